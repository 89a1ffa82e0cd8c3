"""Cached evaluation against one impression at a time through the whole model."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from train_corpora import make_corpus, make_job, trial, write_tables

from legoray.config import EvaluateConfig
from legoray.errors import InfeasibleError, InputError
from legoray.model.base import (
    Batch,
    BehaviorOperator,
    ClickPredictor,
    History,
    PartConfig,
    UserState,
)
from legoray.train import scoring as module
from legoray.train.evaluate import evaluate, group_counts, measure
from legoray.train.job import Runtime
from legoray.train.loop import open_model
from legoray.train.metrics import grouped_metrics
from legoray.train.scoring import Worker, needed_items


class TwoInterests(BehaviorOperator):
    """Two interests per user: the mean of the history, and its sum."""

    Config = PartConfig
    produces = "interests"

    def __init__(self, config, shape):
        super().__init__()
        self.dense = nn.Linear(shape.hidden_size, shape.hidden_size)

    def forward(self, history, candidates=None):
        mask = history.mask
        total = (self.dense(history.vectors) * mask[..., None]).sum(1)
        mean = total / mask.sum(1, keepdim=True).clamp(min=1)
        return UserState("interests", torch.stack([mean, total], 1))


class BestInterest(ClickPredictor):
    Config = PartConfig
    accepts = frozenset({"interests"})

    def __init__(self, config, shape):
        super().__init__()

    def forward(self, user, candidates, fields=None):
        return torch.einsum("bmd,bkd->bmk", user.values, candidates).amax(1)


HERE = __name__
COMPOSITIONS = [
    ("id", "pooling", "dot"),
    ("id", "none", "din"),
    ("pooling", "additive", "dcn"),
    ("cnn", "gru", "dnn"),
    ("attention", "attention", "dot"),
    ("pooling", f"{HERE}:TwoInterests", f"{HERE}:BestInterest"),
]


@pytest.fixture(scope="module")
def corpus():
    return make_corpus(3, impressions=120)


@pytest.fixture(scope="module")
def tables(corpus, tmp_path_factory):
    return write_tables(tmp_path_factory.mktemp("evaluate") / "tables", corpus)


def opened(corpus, tables, composition, **train):
    config = trial(*composition, **train)
    model = open_model(make_job(tables, tables / "unused", config), Runtime(corpus))
    return model, config


def scored(corpus, tables, composition, split="valid", worker=None, **train):
    model, config = opened(corpus, tables, composition, **train)
    return evaluate(
        model.recommender,
        model.inputs,
        split,
        corpus,
        config=config.evaluate,
        max_history=config.train.max_history,
        worker=worker,
    )


@torch.no_grad()
def one_by_one(model, corpus, split, max_history):
    """Scores without any cache: each impression on its own, each item wherever it occurs."""
    model.recommender.eval()
    scores = []
    for i in range(len(split)):
        items = split.item[split.offsets[i] : split.offsets[i + 1]]
        start = corpus.history_offsets[split.history[i]]
        history = corpus.history_items[start : start + split.history_end[i]][-max_history:]
        occurring = torch.tensor([*history, *items], dtype=torch.long)
        numbers = torch.arange(1, len(occurring) + 1)
        padded = torch.zeros(1, max(len(history), 1), dtype=torch.long)
        padded[0, : len(history)] = numbers[: len(history)]
        candidates = numbers[len(history) :][None]
        inputs = model.inputs.items.gather(occurring)
        batch = Batch(inputs, padded, candidates, torch.zeros(candidates.shape))
        scores.append(model.recommender(batch)[0].numpy())
    return np.concatenate(scores)


@pytest.mark.parametrize("composition", COMPOSITIONS, ids="+".join)
@pytest.mark.parametrize("max_history", [3, 8])
def test_cached_scores_equal_uncached_ones(corpus, tables, composition, max_history):
    _, scores = scored(corpus, tables, composition, max_history=max_history)
    model, _ = opened(corpus, tables, composition, max_history=max_history)
    wanted = one_by_one(model, corpus, corpus.splits["valid"], max_history)
    np.testing.assert_allclose(scores, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("composition", COMPOSITIONS[:3], ids="+".join)
def test_small_blocks_and_pieces_change_nothing(corpus, tables, composition, monkeypatch):
    whole, scores = scored(corpus, tables, composition)
    monkeypatch.setattr(module, "PIECE", 4)
    monkeypatch.setitem(module.BUDGETS, "cpu", (16, 300))
    metrics, again = scored(corpus, tables, composition)
    np.testing.assert_allclose(again, scores, atol=1e-6)
    assert metrics == pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize("stage", ["encode_items", "encode_users", "score"])
def test_running_out_of_memory_makes_blocks_smaller(corpus, tables, stage, monkeypatch):
    monkeypatch.setitem(module.BUDGETS, "cpu", (2**8, 2**14))
    model, config = opened(corpus, tables, COMPOSITIONS[0])
    arguments = {"config": config.evaluate, "max_history": 8}
    wanted = evaluate(model.recommender, model.inputs, "valid", corpus, **arguments)[1]
    work, failures = getattr(model.recommender, stage), []

    def scarce(*inputs):
        names = {UserState: "values", History: "vectors"}
        values = [getattr(v, names[type(v)]) if type(v) in names else v for v in inputs]
        if max(len(value) for value in values if value is not None) > 16:
            failures.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return work(*inputs)

    setattr(model.recommender, stage, scarce)
    found = evaluate(model.recommender, model.inputs, "valid", corpus, **arguments)[1]
    assert failures
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_model_that_never_fits_gives_up(corpus, tables, monkeypatch):
    monkeypatch.setitem(module.BUDGETS, "cpu", (4, 4))
    model, config = opened(corpus, tables, COMPOSITIONS[0])

    def never(*inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    model.recommender.score = never
    with pytest.raises(InfeasibleError, match="out of memory in evaluation"):
        evaluate(
            model.recommender,
            model.inputs,
            "valid",
            corpus,
            config=config.evaluate,
            max_history=8,
        )


def test_evaluation_keeps_the_mode_and_drops_nothing_out(corpus, tables):
    model, config = opened(corpus, tables, ("attention", "attention", "dot"))
    model.recommender.train()
    arguments = {"config": config.evaluate, "max_history": 8}
    first = evaluate(model.recommender, model.inputs, "valid", corpus, **arguments)[1]
    second = evaluate(model.recommender, model.inputs, "valid", corpus, **arguments)[1]
    assert model.recommender.training
    assert (first == second).all()


def test_metrics_are_those_of_the_scores(corpus, tables):
    metrics, scores = scored(corpus, tables, COMPOSITIONS[0])
    split = corpus.splits["valid"]
    groups = np.repeat(np.arange(len(split)), np.diff(split.offsets))
    assert metrics == grouped_metrics(scores, split.label, groups, list(metrics))
    assert list(metrics) == ["auc", "mrr", "mrr_first", "ndcg@5", "ndcg@10"]


def test_groups_may_be_users(corpus):
    split = corpus.splits["valid"]
    scores = np.random.default_rng(0).random(split.rows)
    users = np.repeat(split.user, np.diff(split.offsets))
    wanted = grouped_metrics(scores, split.label, users, ["auc"])
    config = EvaluateConfig(metrics=["auc"], group="user")
    assert measure(scores, "valid", corpus, config) == wanted
    own = replace(corpus, group="user")
    assert measure(scores, "valid", own, EvaluateConfig(metrics=["auc"])) == wanted
    usable = [set(split.label[users == user]) == {0, 1} for user in np.unique(users)]
    assert group_counts(split, "user") == (sum(usable), len(usable) - sum(usable))


def test_bfloat16_is_close(corpus, tables):
    _, exact = scored(corpus, tables, ("cnn", "attention", "dot"))
    worker = Worker(precision="bfloat16")
    _, rough = scored(corpus, tables, ("cnn", "attention", "dot"), worker=worker)
    assert 0 < np.abs(rough - exact).max() < 0.1 * np.abs(exact).max()


def test_only_needed_items_are_encoded(corpus):
    split = corpus.splits["valid"]
    wanted = set(split.item.tolist())
    for history, end in zip(split.history, split.history_end, strict=True):
        start = corpus.history_offsets[history]
        wanted |= set(corpus.history_items[start : start + end][-3:].tolist())
    assert set(needed_items(split, corpus, 3).tolist()) == wanted


def test_an_unlabeled_split_gives_scores_alone(corpus, tables):
    test = replace(
        corpus.splits["test"], labeled=False, label=np.zeros(corpus.splits["test"].rows, np.int8)
    )
    hidden = replace(corpus, splits={**corpus.splits, "test": test})
    metrics, scores = scored(hidden, tables, COMPOSITIONS[0], split="test")
    assert metrics == {}
    assert (scores == scored(corpus, tables, COMPOSITIONS[0], split="test")[1]).all()


def test_nan_scores_are_infeasible(corpus, tables):
    model, config = opened(corpus, tables, COMPOSITIONS[0])
    with torch.no_grad():
        next(model.recommender.content.parameters())[5] = float("nan")
    with pytest.raises(InfeasibleError, match="scores of the valid split are NaN"):
        evaluate(
            model.recommender, model.inputs, "valid", corpus,
            config=config.evaluate, max_history=8,
        )  # fmt: skip


def test_a_split_without_usable_groups_is_the_users_mistake(corpus):
    split = corpus.splits["valid"]
    clicks = replace(split, label=np.ones_like(split.label))
    bad = replace(corpus, splits={"train": corpus.splits["train"], "valid": clicks})
    with pytest.raises(InputError, match="no impression with both a click and a non-click"):
        measure(np.zeros(split.rows), "valid", bad, EvaluateConfig())
    with pytest.raises(InputError, match=r"the split 'test' is empty.*train, valid"):
        measure(np.zeros(split.rows), "test", bad, EvaluateConfig())
