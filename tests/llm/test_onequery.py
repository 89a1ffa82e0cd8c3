"""The last layer for one token against the library's whole forward, for every family."""

import copy

import pytest
import torch
from llm_cases import FAMILIES, LAYERS, random_model

from legoray.llm.lora import LoraSettings, add_lora, projections
from legoray.llm.onequery import plan
from legoray.llm.split import layers_of, run_view, upper_view

# layers without a cache to take keys and values from: they run their whole forward
WHOLE = {"distilbert", "mpnet", "modernbert", "deberta-v2"}
FITTING = sorted(FAMILIES.keys() - WHOLE)


def last_layers(family, count=1):
    """The upper view of the last layers, and a state of 9 tokens (longer than every window)."""
    view = copy.deepcopy(upper_view(random_model(family), LAYERS, LAYERS - count))
    return view.requires_grad_(False), torch.randn(
        3, 9, 32, generator=torch.Generator().manual_seed(2)
    )


def adapted(view, count, dropout=0.0):
    """Adapters on every projection, none of which is zero; their parameters."""
    layers = layers_of(view, count)
    targets = projections(layers[0])
    add_lora(layers, LoraSettings(rank=2, dropout=dropout, targets=targets))
    trained = {n: p for n, p in view.named_parameters() if p.requires_grad}
    assert len(trained) >= 2 * count * len(targets)
    draws = torch.Generator().manual_seed(1)
    for parameter in trained.values():
        torch.nn.init.normal_(parameter, std=0.2, generator=draws)
    return trained


@pytest.mark.parametrize("family", FAMILIES)
def test_which_families_fit(family):
    view, _ = last_layers(family)
    found = plan(view, 1)
    assert (found is None) == (family in WHOLE)
    assert found is None or found.spread == (family == "gpt2")


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("family", FITTING)
def test_it_equals_the_librarys_forward_and_its_gradient(family, count):
    view, hidden = last_layers(family, count)
    trained = adapted(view, count)
    one_query = plan(view, count)
    rows = torch.arange(3)
    for lengths, at in (([9, 9, 9], [8, 8, 8]), ([9, 2, 5], [8, 1, 4]), ([9, 2, 5], [0, 1, 0])):
        mask = torch.arange(9) < torch.tensor(lengths)[:, None]
        given, at = None if mask.all() else mask, torch.tensor(at)
        whole = run_view(view, hidden, given)[rows, at]
        one = one_query(view, hidden, given, at)
        torch.testing.assert_close(one, whole, rtol=1e-5, atol=1e-5)
        expected = torch.autograd.grad(whole.sin().sum(), list(trained.values()))
        found = torch.autograd.grad(one.sin().sum(), list(trained.values()))
        largest = max(float(gradient.abs().max()) for gradient in expected)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * largest)
        # and none is zero because something was cut off
        assert all(gradient.abs().max() > 0 for gradient in expected)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_what_lies_under_the_mask_never_matters(family):
    view, hidden = last_layers(family)
    one_query, at = plan(view, 1), torch.tensor([8, 1, 4])
    mask = torch.arange(9) <= at[:, None]
    garbage = torch.where(mask[..., None], hidden, torch.full_like(hidden, 1e3))
    assert torch.equal(one_query(view, hidden, mask, at), one_query(view, garbage, mask, at))


def test_it_is_tried_without_dropout_and_dropout_is_put_back():
    view, hidden = last_layers("bert")
    adapted(view, 1, dropout=0.5)
    one_query, at = plan(view.train(), 1), torch.tensor([8, 8, 8])
    assert one_query is not None
    assert all(module.training for module in view.modules())
    with torch.no_grad():
        first, second = (one_query(view, hidden, None, at) for _ in range(2))
        assert not torch.equal(first, second)
        view.eval()
        first, second = (one_query(view, hidden, None, at) for _ in range(2))
        assert torch.equal(first, second)


def test_a_window_that_stands_in_the_layer_itself_is_not_mistaken():
    # GPT-Neo takes the last row of its own mask, which is not the pooled token's
    kinds = [[["global", "local"], 1], [["local"], 1]]
    sizes = {"num_layers": LAYERS, "num_heads": 4, "window_size": 4, "attention_types": kinds}
    view = copy.deepcopy(upper_view(random_model("gpt_neo", **sizes), LAYERS, LAYERS - 1))
    assert plan(view, 1) is None


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("stablelm", {"num_key_value_heads": 2}),
        ("falcon", {"new_decoder_architecture": False}),  # its layers give tuples
        ("gpt_oss", {"num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 4}),
    ],
)
def test_families_beside_the_catalogues(family, sizes):
    view = upper_view(random_model(family, **sizes), LAYERS, LAYERS - 1)
    hidden = torch.randn(3, 9, 32, generator=torch.Generator().manual_seed(2))
    at = torch.tensor([8, 1, 4])
    mask = torch.arange(9) <= at[:, None]
    expected = run_view(view, hidden, mask)[torch.arange(3), at]
    torch.testing.assert_close(plan(view, 1)(view, hidden, mask, at), expected)


def test_a_layer_that_only_looks_alike_is_not_taken():
    view, hidden = last_layers("llama")
    (layer,) = layers_of(view, 1)
    inner = layer.mlp.forward
    # tokens that see each other outside of the attention cannot be run one at a time
    layer.mlp.forward = lambda states: inner(states.cumsum(dim=1))
    assert run_view(view, hidden, None).shape == hidden.shape
    assert plan(view, 1) is None
