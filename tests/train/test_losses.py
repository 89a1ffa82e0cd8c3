"""Losses against their formulas."""

import math
import shutil

import pytest
import torch
from train_corpora import trial

from legoray.train.losses import check_train, loss_of, summed_loss

SCORES = [[1.5, -0.5, 0.25], [0.0, 2.0, -1.0]]
LABELS = [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def of_row(loss, scores, labels):
    if loss == "cross-entropy":
        return -math.log(math.exp(scores[0]) / sum(map(math.exp, scores)))
    pairs = list(zip(map(sigmoid, scores), labels, strict=True))
    if loss == "binary":
        values = [-math.log(p if y else 1 - p) for p, y in pairs]
    else:
        values = [(y - p) ** 2 for p, y in pairs]
    return sum(values) / len(values)


@pytest.mark.parametrize("loss", ["cross-entropy", "binary", "squared"])
def test_sums_the_rows(loss):
    found = summed_loss(torch.tensor(SCORES), torch.tensor(LABELS), loss)
    rows = zip(SCORES, LABELS, strict=True)
    assert float(found) == pytest.approx(sum(of_row(loss, s, y) for s, y in rows), rel=1e-6)


def test_half_precision_scores_are_summed_in_full():
    scores = torch.tensor(SCORES, dtype=torch.bfloat16)
    assert summed_loss(scores, torch.tensor(LABELS), "binary").dtype == torch.float32


@pytest.mark.parametrize(
    ("task", "loss", "meant"),
    [
        ("matching", "auto", "cross-entropy"),
        ("ranking", "auto", "binary"),
        ("ranking", "squared", "squared"),
        ("matching", "binary", "binary"),
    ],
)
def test_auto_depends_on_the_task(task, loss, meant):
    config = trial(task=task, loss=loss).train
    assert loss_of(config) == meant
    assert check_train(config) == []


def test_one_candidate_has_no_cross_entropy():
    (problem,) = check_train(trial(task="ranking", loss="cross-entropy").train)
    assert problem.where == "train.loss"
    assert "binary" in problem.hint


def test_compiling_without_a_compiler_is_refused(monkeypatch):
    assert shutil.which("g++") is None or check_train(trial(compile=True).train) == []
    monkeypatch.setenv("CXX", "no-such-compiler")
    (problem,) = check_train(trial(compile=True).train)
    assert problem.where == "train.compile"
    assert "C++ compiler" in problem.message
    assert "g++" in problem.hint
    assert check_train(trial().train) == []
