"""Grouped metrics against scikit-learn, plain loops, and the mean over all orders of a tie."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import (
    label_ranking_average_precision_score,
    log_loss,
    ndcg_score,
    roc_auc_score,
)

from legoray.train.metrics import check_metrics, direction, grouped_metrics, tie_blocks

PLAIN = ["auc", "mrr", "mrr_first", "lrap"]
AT_K = [f"{name}@{k}" for name in ("ndcg", "hit", "recall") for k in (1, 3, 10)]


def of_order(name, labels):
    """A metric of one group whose rows stand in the order of their scores, by its definition."""
    base, _, k = name.partition("@")
    ranks = [rank for rank, label in enumerate(labels, 1) if label]
    k = int(k) if k else 0
    if base == "mrr":
        return sum(1 / rank for rank in ranks) / len(ranks)
    if base == "mrr_first":
        return 1 / ranks[0]
    if base == "hit":
        return float(ranks[0] <= k)
    if base == "recall":
        return sum(rank <= k for rank in ranks) / len(ranks)
    gain = sum(1 / np.log2(rank + 1) for rank in ranks if rank <= k)
    return gain / sum(1 / np.log2(rank + 1) for rank in range(1, min(k, len(ranks)) + 1))


def expected(name, scores, labels):
    """The mean of a metric over every order of the rows that scores do not decide."""
    if name == "auc":
        return roc_auc_score(labels, scores)
    if name == "lrap":
        return label_ranking_average_precision_score(labels[None], scores[None])
    values = sorted(set(scores), reverse=True)
    ties = [itertools.permutations(labels[scores == value]) for value in values]
    orders = [list(itertools.chain(*order)) for order in itertools.product(*ties)]
    return np.mean([of_order(name, order) for order in orders])


def rows(seed, groups=300, most=60, levels=None):
    """Random scored rows in random order, of groups with and without clicks and non-clicks."""
    rng = np.random.default_rng(seed)
    group = np.repeat(rng.permutation(10 * groups)[:groups], rng.integers(1, most, groups))
    labels = (rng.random(len(group)) < 0.2).astype(np.int8)
    scores = rng.integers(0, levels, len(group)) if levels else rng.normal(size=len(group))
    shuffled = rng.permutation(len(group))
    return scores.astype(np.float64)[shuffled], labels[shuffled], group[shuffled]


def usable(scores, labels, groups):
    for group in np.unique(groups):
        inside = groups == group
        if 0 < labels[inside].sum() < inside.sum():
            yield scores[inside], labels[inside]


@pytest.mark.parametrize("name", [*PLAIN, *AT_K])
def test_ties_have_the_mean_over_all_orders(name):
    scores, labels, groups = rows(1, groups=40, most=7, levels=3)
    wanted = [expected(name, s, y) for s, y in usable(scores, labels, groups)]
    assert grouped_metrics(scores, labels, groups, [name])[name] == pytest.approx(
        np.mean(wanted), abs=1e-9
    )


@pytest.mark.parametrize("levels", [None, 1, 4, 40])
def test_equals_scikit_learn(levels):
    scores, labels, groups = rows(2, levels=levels)
    wanted = {
        "auc": roc_auc_score,
        "lrap": lambda y, s: label_ranking_average_precision_score(y[None], s[None]),
        "ndcg@5": lambda y, s: ndcg_score(y[None], s[None], k=5),
        "ndcg@10": lambda y, s: ndcg_score(y[None], s[None], k=10),
    }
    found = grouped_metrics(scores, labels, groups, list(wanted))
    for name, reference in wanted.items():
        values = [reference(y, s) for s, y in usable(scores, labels, groups)]
        assert found[name] == pytest.approx(np.mean(values), abs=1e-9), name


@pytest.mark.parametrize("name", [name for name in [*PLAIN, *AT_K] if name not in ("auc", "lrap")])
def test_equals_a_plain_loop_without_ties(name):
    scores, labels, groups = rows(3)
    values = [of_order(name, y[np.argsort(-s)]) for s, y in usable(scores, labels, groups)]
    found = grouped_metrics(scores, labels, groups, [name])[name]
    assert found == pytest.approx(np.mean(values), abs=1e-9)


@pytest.mark.parametrize("levels", [None, 5])
def test_pooled_metrics_equal_scikit_learn(levels):
    scores, labels, groups = rows(4, levels=levels)
    found = grouped_metrics(scores, labels, groups, ["pooled_auc", "logloss"])
    assert found["pooled_auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    assert found["logloss"] == pytest.approx(log_loss(labels, 1 / (1 + np.exp(-scores))), abs=1e-9)


def test_a_constant_score_has_no_advantage_over_random_ones():
    _, labels, groups = rows(5, groups=400)
    names = ["auc", "mrr", "mrr_first", *AT_K]
    constant = grouped_metrics(np.zeros(len(labels)), labels, groups, names)
    rng = np.random.default_rng(0)
    drawn = [grouped_metrics(rng.random(len(labels)), labels, groups, names) for _ in range(200)]
    assert constant["auc"] == 0.5
    for name in names:
        values = [metrics[name] for metrics in drawn]
        error = np.std(values) / np.sqrt(len(values))
        assert constant[name] == pytest.approx(np.mean(values), abs=4.5 * error), name


@pytest.mark.parametrize("levels", [None, 6])
@pytest.mark.parametrize("first_group", [0, -5, 2**40])
def test_single_and_double_precision_are_sorted_alike(levels, first_group):
    scores, labels, groups = rows(9, levels=levels)
    signed = (scores - scores.mean()).astype(np.float32)
    names = [*PLAIN, *AT_K]
    wanted = grouped_metrics(signed.astype(np.float64) * (1 + 1e-12), labels, groups, names)
    found = grouped_metrics(signed, labels, groups + first_group, names)
    assert found == pytest.approx(wanted, abs=1e-12)


def test_order_of_rows_and_names_of_groups_do_not_matter():
    scores, labels, groups = rows(6, levels=9)
    names = [*PLAIN, *AT_K, "pooled_auc", "logloss"]
    first = grouped_metrics(scores, labels, groups, names)
    order = np.random.default_rng(0).permutation(len(scores))
    second = grouped_metrics(scores[order], labels[order], groups[order] + 10**12, names)
    assert second == pytest.approx(first, abs=1e-12)


def test_groups_of_one_kind_are_left_out_and_counted():
    blocks = tie_blocks([3, 2, 1, 0, 5], [1, 1, 0, 0, 1], [7, 9, 9, 4, 4])
    assert (len(blocks), blocks.left_out) == (2, 1)


def test_extreme_scores_keep_their_order():
    for large in (1e308, 1e30):
        scores = [np.inf, np.inf, np.float32(large) if large < 1e38 else large, 0.0, -0.0, -np.inf]
        found = grouped_metrics(scores, [1, 0, 0, 1, 0, 0], [0] * 6, ["auc"])["auc"]
        assert found == pytest.approx(roc_auc_score([1, 0, 0, 1, 0, 0], [5, 5, 4, 3, 3, 0]))
    assert grouped_metrics([800.0, -800.0], [1, 0], [0, 0], ["logloss"])["logloss"] == 0.0


def test_long_groups_stay_exact():
    rng = np.random.default_rng(8)
    labels = (rng.random(200_000) < 0.001).astype(int)
    found = grouped_metrics(np.zeros(200_000), labels, np.zeros(200_000), ["mrr_first", "hit@10"])
    clicks, alive, mean, none = int(labels.sum()), 1.0, 0.0, 1.0
    for rank in range(1, 200_000):
        chance = clicks / (200_000 - rank + 1)
        mean += alive * chance / rank
        alive *= 1 - chance
        none = alive if rank == 10 else none
        if alive < 1e-18:
            break
    assert found["mrr_first"] == pytest.approx(mean, abs=1e-9)
    assert found["hit@10"] == pytest.approx(1 - none, abs=1e-9)


@pytest.mark.parametrize(
    ("scores", "labels", "groups", "message"),
    [
        ([1.0, np.nan], [1, 0], [0, 0], "1 of 2 scores are NaN"),
        ([1.0, 2.0], [1, 2], [0, 0], "0 or 1"),
        ([1.0, 2.0], [1], [0, 0], "one length"),
        ([1.0, 2.0], [1, 1], [0, 0], "no group"),
        ([], [], [], "no group"),
    ],
)
def test_what_cannot_be_measured_is_refused(scores, labels, groups, message):
    with pytest.raises(ValueError, match=message):
        grouped_metrics(scores, labels, groups, ["auc"])


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ndgc@5", "ndcg@5"),
        ("AUC", "auc"),
        ("ndcg", "such as ndcg@10"),
        ("ndcg@0", "such as ndcg@10"),
        ("hit@x", "such as hit@10"),
        ("auc@5", "auc"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name, hint):
    (problem,) = check_metrics([name])
    assert hint in str(problem)
    assert name in str(problem)


def test_select_must_be_measured_once():
    assert check_metrics(["auc", "hit@3"], "hit@3") == []
    assert "not measured" in str(check_metrics(["auc"], "mrr")[0])
    assert "twice" in str(check_metrics(["auc", "auc"], "auc")[0])
    assert [direction("logloss"), direction("auc")] == ["min", "max"]
