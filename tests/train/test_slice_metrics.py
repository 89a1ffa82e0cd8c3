"""Metrics of slices against the same rows measured by themselves."""

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score
from train_corpora import make_corpus, with_slices

from legoray.config import EvaluateConfig
from legoray.train.baselines import baseline_metrics
from legoray.train.evaluate import measure
from legoray.train.metrics import grouped_metrics

GROUPED = ["auc", "mrr", "mrr_first", "ndcg@5", "hit@3", "recall@3", "lrap"]
POOLED = ["pooled_auc", "logloss"]


@pytest.fixture(scope="module")
def corpus():
    return with_slices(make_corpus(5, impressions=160), seed=2)


def scores_of(split, levels):
    """Some of them equal."""
    return np.random.default_rng(levels).integers(0, levels, split.rows) / levels * 3.0


def rows_in(split, marked, group):
    """Rows of the impressions that are of a slice, and the groups of all rows, by loops."""
    inside, groups = [], []
    for i in range(len(split)):
        size = split.offsets[i + 1] - split.offsets[i]
        inside += [marked[i]] * size
        groups += [split.user[i] if group == "user" else i] * size
    return np.array(inside), np.array(groups)


@pytest.mark.parametrize("group", ["impression", "user"])
@pytest.mark.parametrize("levels", [3, 10_000])
def test_each_slice_is_measured_as_if_it_stood_alone(corpus, group, levels):
    split = corpus.splits["valid"]
    scores = scores_of(split, levels)
    config = EvaluateConfig(metrics=[*GROUPED, *POOLED], group=group)
    found = measure(scores, "valid", corpus, config, slices=True)
    total = measure(scores, "valid", corpus, config)
    assert {name: found[name] for name in total} == total
    measured = 0
    for one, marked in split.slices.items():
        inside, groups = rows_in(split, marked, group)
        usable = [set(split.label[inside & (groups == g)]) for g in np.unique(groups[inside])]
        if {0, 1} not in usable:
            assert not any(name.endswith(f"/{one}") for name in found)
            continue
        rows = scores[inside], split.label[inside], groups[inside]
        wanted = grouped_metrics(*rows, GROUPED)
        own = {name: found[f"{name}/{one}"] for name in GROUPED}
        assert own == pytest.approx(wanted, abs=1e-12)
        assert found[f"groups/{one}"] == usable.count({0, 1})
        assert found[f"pooled_auc/{one}"] == pytest.approx(roc_auc_score(rows[1], rows[0]))
        chance = 1 / (1 + np.exp(-rows[0]))
        assert found[f"logloss/{one}"] == pytest.approx(log_loss(rows[1], chance))
        measured += 1
    assert measured >= 3
    assert np.isfinite(list(found.values())).all()


def test_a_slice_without_a_usable_group_is_absent(corpus):
    split = corpus.splits["valid"]
    useless = np.diff(split.offsets) == split.clicks  # clicks alone
    assert useless.any()
    marked = {"tail-item": useless, "head-item": ~useless}
    own = with_slices(corpus)
    own.splits["valid"].slices.clear()
    own.splits["valid"].slices.update(marked)
    found = measure(scores_of(split, 99), "valid", own, EvaluateConfig(), slices=True)
    assert not any(name.endswith("tail-item") for name in found)
    assert found["groups/head-item"] == found["groups/all"]
    assert found["auc/head-item"] == found["auc"]


def test_slices_are_given_where_they_are_asked_for(corpus):
    config = EvaluateConfig(metrics=["auc"])
    scores = scores_of(corpus.splits["test"], 50)
    assert list(measure(scores, "test", corpus, config)) == ["auc"]
    names = {"auc/cold-user", "groups/cold-user", "groups/all"}
    assert names <= set(measure(scores, "test", corpus, config, slices=True))
    assert names <= set(baseline_metrics("random", corpus, "test", config, 1, slices=True))
    assert list(baseline_metrics("random", corpus, "test", config, 1)) == ["auc"]
