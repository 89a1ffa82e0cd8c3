"""Several workers (real processes, gloo) against one on the same global batches."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from train_corpora import make_corpus, write_tables
from train_ranks import CASES, outcomes

from legoray.train.parallel import Gradients, first_alone


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel")
    write_tables(folder / "tables", make_corpus())
    return folder


@pytest.fixture(scope="module")
def alone(root):
    return outcomes(1, root / "tables", root / "1")[0]


@pytest.fixture(scope="module", params=[2, 3])
def several(root, request):
    """The number of workers, and what each of them came to."""
    return request.param, outcomes(request.param, root / "tables", root / str(request.param))


def close(found, wanted):
    keys = [key for key in wanted if "second" not in key]
    assert [found[key] for key in keys] == pytest.approx([wanted[key] for key in keys], abs=2e-4)


@pytest.mark.parametrize("case", ["matching", "ranking", "sequence", "against-all", "empty-shares"])
def test_the_same_numbers_as_one_worker(root, alone, several, case):
    world, found = several
    assert [len(one[case]["epochs"]) for one in found] == [CASES[case].train.epochs] * world
    for first, second in zip(alone[case]["epochs"], found[0][case]["epochs"], strict=True):
        close(second, first)
    close(found[0][case]["test"], alone[case]["test"])
    if case == "sequence":
        return  # weights whose gradient is 0 up to rounding move at random under Adam
    name = f"{case}/best/model.safetensors"
    single, shared = load_file(root / "1" / name), load_file(root / str(world) / name)
    for key, value in single.items():
        torch.testing.assert_close(shared[key], value, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("case", list(CASES))
def test_all_workers_agree(several, case):
    _, (first, *others) = several
    for other in others:
        for key in set(first[case]) - {"costs", "epochs", "best"}:
            assert other[case][key] == first[case][key]
        for one, two in zip(
            first[case].get("epochs", []), other[case].get("epochs", []), strict=True
        ):
            assert {k: v for k, v in one.items() if "second" not in k} == {
                k: v for k, v in two.items() if "second" not in k
            }


def test_all_workers_stop_together(several):
    for outcome in several[1]:
        assert outcome["stopped"]["stopped"]
        assert len(outcome["stopped"]["epochs"]) == 1


def test_divergence_is_seen_by_all(several, alone):
    assert "the loss is" in alone["diverged"]["reason"]
    for outcome in several[1]:
        assert "the loss is" in outcome["diverged"]["reason"]


def test_memory_that_one_worker_lacks_slows_all_and_changes_nothing(several, alone):
    for outcome in several[1]:
        close(outcome["scarce"]["epochs"][0], alone["scarce"]["epochs"][0])


def test_clipping_equals_torchs():
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2))
    theirs = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2))
    theirs.load_state_dict(ours.state_dict())
    gradients = Gradients(list(ours.parameters()))
    inputs = torch.randn(8, 5)
    for _ in range(2):
        gradients.clear()
        theirs.zero_grad()
        for model in (ours, theirs):
            model(inputs).square().sum().backward()
        for limit in (1e6, 0.5):
            gradients.clip(limit)
            nn.utils.clip_grad_norm_(theirs.parameters(), limit)
            for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
                torch.testing.assert_close(one.grad, two.grad)


def test_parameters_of_several_types_share_one_norm():
    parameters = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(4, dtype=torch.bfloat16))]
    gradients = Gradients(parameters)
    for parameter in parameters:
        parameter.grad += 1
    gradients.clip(1.0)
    total = sum(float(p.grad.float().square().sum()) for p in parameters)
    assert total == pytest.approx(1.0, rel=0.02)


def test_what_the_first_worker_does_is_told():
    assert first_alone(lambda: True, 0, 1)
    assert not first_alone(lambda: True, 1, 1)
    with pytest.raises(OSError, match="no disk"):
        first_alone(lambda: (_ for _ in ()).throw(OSError("no disk")), 0, 1)
