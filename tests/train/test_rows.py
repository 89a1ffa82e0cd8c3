"""AdamW row by row against torch's own on the whole table."""

import pytest
import torch
from train_corpora import make_corpus, make_job, trial, write_tables

from legoray.model.layers import RowTable
from legoray.train import rows as rows_module
from legoray.train.checkpoint import read_checkpoint
from legoray.train.job import Runtime
from legoray.train.loop import train
from legoray.train.rows import RowAdamW


def pair(count=40, size=3, decay=0.0):
    """Our table with its optimizer, and a twin with torch's."""
    torch.manual_seed(0)
    table = RowTable(count, size, 1.0)
    twin = torch.nn.Embedding(count, size, padding_idx=0)
    twin.load_state_dict(table.state_dict())
    theirs = torch.optim.AdamW(twin.parameters(), lr=0.01, weight_decay=decay)
    return table, RowAdamW(table, rate=0.01, decay=decay), twin, theirs


def one_step(table, ours, twin, theirs, *, scale=1.0, most=None):
    """The same step for both, on a few rows, some of them twice."""
    rows = torch.randint(0, most or len(table.weight), (6,))
    goal = torch.randn(6, table.embedding_dim)
    table.weight.grad = None
    theirs.zero_grad()
    for one in (table, twin):
        (scale * (one(rows) * goal).sum()).backward()
    ours.step()
    theirs.step()


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_it_equals_torchs(decay):
    sides = pair(decay=decay)
    for step in range(300):
        one_step(*sides, most=5 if 50 < step < 200 else None)  # most rows rest for 150 steps
    table, ours, twin, theirs = sides
    ours.settle()
    torch.testing.assert_close(table.weight, twin.weight, atol=2e-6, rtol=1e-5)
    state, wanted = ours.state(), theirs.state[twin.weight]
    for name in ("step", "exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(state[name], wanted[name], atol=1e-7, rtol=2e-5)


@pytest.mark.parametrize("scale", [1e-6, 1e-8, 1e-11])
def test_gradients_near_eps(scale):
    sides = pair()
    start = sides[0].weight.detach().clone()
    for _ in range(100):
        one_step(*sides, scale=scale)
    sides[1].settle()
    moved, wanted = (side.weight.detach() - start for side in (sides[0], sides[2]))
    assert (moved - wanted).norm() < 0.01 * wanted.norm()


def test_rows_are_up_to_date_when_they_are_read():
    table, ours, twin, theirs = pair()
    for _ in range(30):
        one_step(table, ours, twin, theirs)
        rows = torch.randint(0, 40, (4,))
        torch.testing.assert_close(table(rows), twin(rows), atol=1e-6, rtol=1e-5)


def test_padding_stays_zero():
    sides = pair(decay=0.1)
    for _ in range(5):
        one_step(*sides, most=2)
    sides[1].settle()
    assert not sides[0].weight[0].any()


@pytest.mark.parametrize("composition", [("id", "gru", "dot"), ("id", "lstur", "dcn")])
def test_training_row_by_row_equals_training_whole_tables(tmp_path, monkeypatch, composition):
    corpus = make_corpus()
    tables = write_tables(tmp_path / "tables", corpus)
    found = []
    for least in (1, 10**9):
        monkeypatch.setattr(rows_module, "LEAST", least)
        config = trial(*composition, epochs=2, batch_size=4, weight_decay=0.01, accumulate=2)
        job = make_job(tables, tmp_path / str(least), config, keep_last=True)
        outcome = train(job, Runtime(corpus), lambda metrics: None)
        found.append((outcome.epochs[-1]["loss"], read_checkpoint(tmp_path / str(least))[1]))
    (loss, tensors), (wanted, others) = found
    assert loss == pytest.approx(wanted, abs=1e-4)
    assert tensors.keys() == others.keys()
    for name in ("model/content.table.weight", "optimizer/content.table.weight/exp_avg"):
        torch.testing.assert_close(tensors[name], others[name], atol=5e-4, rtol=1e-2)
