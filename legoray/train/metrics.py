"""Metrics per group (impression or user), for all groups at once, by one sort and segment sums.

Rows that a model scores equally have no order, so they share the value that they would have on
average over all orders: a constant score gives AUC .5 and no advantage in anything else. Only
`lrap` follows scikit-learn's rule instead (every row of a tie gets the tie's last rank), which is
never more favourable. Scores are raw; everything is computed in float64.

| name | per group |
| --- | --- |
| `auc` | share of (click, non-click) pairs in the right order, a tie counting half |
| `mrr` | as MIND computes it: the mean over all clicks of 1 / rank |
| `mrr_first` | 1 / rank of the first click |
| `ndcg@k` | gain 2^label - 1, discount 1 / log2(rank + 1), over the best possible |
| `hit@k` | whether a click stands among the first k |
| `recall@k` | share of the clicks that stand among the first k |
| `lrap` | label ranking average precision |
| `pooled_auc` | AUC over all rows as one group |
| `logloss` | binary cross-entropy of sigmoid(score), the mean over all rows |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from legoray.errors import Problem, unknown
from legoray.train.ties import (
    Float,
    Int,
    Mask,
    TieBlocks,
    blocks_in_order,
    changes,
    summed,
    tie_blocks,
)

POOLED = ("pooled_auc", "logloss")


def _auc(blocks: TieBlocks) -> Float:
    misses = blocks.size - blocks.clicks
    total = (blocks.group_size - blocks.group_clicks).astype(np.float64)
    below = total[blocks.group] - (blocks.above - blocks.clicks_above) - misses
    return blocks.sum(blocks.clicks * (below + misses / 2)) / (total * blocks.group_clicks)


def _mrr(blocks: TieBlocks) -> Float:
    """The mean of 1 / rank over a tie of t rows below g others is (H(g + t) - H(g)) / t."""
    harmonic = _running(blocks, lambda rank: 1 / rank)
    mean = (harmonic[blocks.above + blocks.size] - harmonic[blocks.above]) / blocks.size
    return blocks.sum(blocks.clicks * mean) / blocks.group_clicks


def _mrr_first(blocks: TieBlocks) -> Float:
    """The mean of 1 / rank of the first of p clicks in a tie of t rows.

    With S(m) the probability that none of them is among the tie's first m rows, it is the sum over
    m of (S(m - 1) - S(m)) / (g + m).
    """
    first = (blocks.clicks > 0) & (blocks.clicks_above == 0)
    above, size, clicks = blocks.above[first], blocks.size[first], blocks.clicks[first]
    end = np.cumsum(size)
    block = np.repeat(np.arange(len(size)), size)
    place = np.arange(1, len(block) + 1) - (end - size)[block]
    log_factorial = _log_factorial(blocks)
    none_before = _none_among(place - 1, size[block], clicks[block], log_factorial)
    none_after = _none_among(place, size[block], clicks[block], log_factorial)
    weights = (none_before - none_after) / (above[block] + place)
    return summed(weights, blocks.group[first][block], len(blocks))


def _ndcg(blocks: TieBlocks, k: int) -> Float:
    discount = _running(blocks, lambda rank: np.where(rank <= k, 1 / np.log2(rank + 1), 0))
    mean = (discount[blocks.above + blocks.size] - discount[blocks.above]) / blocks.size
    return blocks.sum(blocks.clicks * mean) / discount[blocks.group_clicks]


def _hit(blocks: TieBlocks, k: int) -> Float:
    """Only one tie of a group can reach over place k; what lies above it counts in full."""
    inside = np.clip(k - blocks.above, 0, blocks.size)
    none = _none_among(inside, blocks.size, blocks.clicks, _log_factorial(blocks))
    return 1 - np.multiply.reduceat(none, np.searchsorted(blocks.group, np.arange(len(blocks))))


def _recall(blocks: TieBlocks, k: int) -> Float:
    inside = np.clip(k - blocks.above, 0, blocks.size)
    return blocks.sum(blocks.clicks * (inside / blocks.size)) / blocks.group_clicks


def _lrap(blocks: TieBlocks) -> Float:
    precision = (blocks.clicks_above + blocks.clicks) / (blocks.above + blocks.size)
    return blocks.sum(blocks.clicks * precision) / blocks.group_clicks


def _running(blocks: TieBlocks, value: Callable[[Float], Float]) -> Float:
    """Sums of a function of the rank over the first 0, 1, 2, ... ranks."""
    ranks = np.arange(1, int(blocks.group_size.max(initial=0)) + 1, dtype=np.float64)
    return np.concatenate([[0.0], np.cumsum(value(ranks))])


def _log_factorial(blocks: TieBlocks) -> Float:
    return _running(blocks, np.log)


def _none_among(drawn: Int, size: Int, clicks: Int, log_factorial: Float) -> Float:
    """Probability that `drawn` of `size` rows, at random, hold none of the `clicks`.

    It is C(size - clicks, drawn) / C(size, drawn).
    """
    left = size - clicks - drawn
    log = (
        log_factorial[size - clicks]
        - log_factorial[np.maximum(left, 0)]
        + log_factorial[size - drawn]
        - log_factorial[size]
    )
    return np.where(left >= 0, np.exp(log), 0.0)


_PLAIN: dict[str, Callable[[TieBlocks], Float]] = {
    "auc": _auc,
    "mrr": _mrr,
    "mrr_first": _mrr_first,
    "lrap": _lrap,
}
_AT_K: dict[str, Callable[[TieBlocks, int], Float]] = {
    "ndcg": _ndcg,
    "hit": _hit,
    "recall": _recall,
}


def metric_names() -> list[str]:
    """The names that `evaluate.metrics` may hold; `@k` stands for any number from 1."""
    return [*_PLAIN, *(f"{name}@k" for name in _AT_K), *POOLED]


def check_metrics(
    names: Iterable[str], select: str | None = None, where: str = "evaluate.metrics"
) -> list[Problem]:
    """What is wrong with a list of metric names, and with `select`, which must be one of them."""
    listed = list(names)
    problems = [_check(name, where) for name in listed]
    twice = [name for name in dict.fromkeys(listed) if listed.count(name) > 1]
    problems += [Problem(where, f"'{name}' stands twice") for name in twice]
    if select is not None and select not in listed:
        hint = f"measured are: {', '.join(listed)}"
        problems.append(Problem("evaluate.select", f"'{select}' is not measured", hint))
    return [problem for problem in problems if problem is not None]


def _check(name: str, where: str) -> Problem | None:
    base, at, k = name.partition("@")
    if base in _AT_K and at:
        if k.isascii() and k.isdigit() and int(k) > 0:
            return None
        return Problem(where, f"'{name}' needs a number from 1 after the @", f"such as {base}@10")
    if not at and base in _AT_K:
        return Problem(where, f"'{name}' needs a length", f"such as {base}@10")
    if name in _PLAIN or name in POOLED:
        return None
    options = [*_PLAIN, *POOLED, *(f"{n}@{k}" for n in _AT_K for k in (5, 10))]
    return unknown("metric", name, options, where)


def direction(name: str) -> Literal["max", "min"]:
    """Whether more of a metric is better, or less."""
    return "min" if name == "logloss" else "max"


def grouped_metrics(
    scores: ArrayLike, labels: ArrayLike, groups: ArrayLike, names: Sequence[str]
) -> dict[str, float]:
    """The metrics of `[R]` scored rows, each the mean over groups.

    Groups without a click or without a non-click say nothing about order and are left out of the
    mean; `tie_blocks(...)` gives their number.

    Raises:
        ValueError: a score is NaN, a label is neither 0 nor 1, a name is unknown, or no group has
            both a click and a non-click.
    """
    return metrics_of(tie_blocks(scores, labels, groups), scores, labels, names)


def metrics_of(
    blocks: TieBlocks, scores: ArrayLike, labels: ArrayLike, names: Sequence[str]
) -> dict[str, float]:
    """As `grouped_metrics`, for rows that are sorted already."""
    problems = check_metrics(names)
    if problems:
        raise ValueError("; ".join(map(str, problems)))
    if not len(blocks) and any(name not in POOLED for name in names):
        raise ValueError("no group has both a click and a non-click")
    pooled = None
    if any(name in POOLED for name in names):
        pooled = Pooled(scores, labels, np.zeros(len(np.asarray(labels))))
    return measured(blocks, names, pooled=pooled)


def measured(
    blocks: TieBlocks,
    names: Sequence[str],
    *,
    pooled: Pooled | None = None,
    members: Mapping[str, Mask] | None = None,
) -> dict[str, float]:
    """The metrics of sorted rows, and where `members` are given, of slices of the groups.

    Args:
        blocks: of the rows.
        names: of the metrics.
        pooled: the rows, for metrics that take them as one group.
        members: slice -> which groups, by their numbers. Each slice's metrics are called
            `<metric>/<slice>`, and how many groups are behind them `groups/<slice>`; a slice none
            of whose groups has both a click and a non-click is left out.
    """
    per_group = {name: group_values(name, blocks) for name in names if name not in POOLED}

    def values(chosen: Mask | slice, member: Mask | None) -> dict[str, float]:
        return {
            name: float(np.mean(per_group[name][chosen]))
            if name in per_group
            else _of_rows(name, pooled, member)
            for name in names
        }

    found = values(slice(None), None)
    if members is None:
        return found
    found["groups/all"] = float(len(blocks))
    for one, member in members.items():
        chosen = member[blocks.key]
        if chosen.any():
            found |= {f"{name}/{one}": v for name, v in values(chosen, member).items()}
            found[f"groups/{one}"] = float(chosen.sum())
    return found


def group_values(name: str, blocks: TieBlocks) -> Float:
    """`[G]` a metric of each group."""
    base, at, k = name.partition("@")
    return _AT_K[base](blocks, int(k)) if at else _PLAIN[base](blocks)


def _of_rows(name: str, pooled: Pooled | None, member: Mask | None) -> float:
    if pooled is None:
        raise ValueError(f"{name} needs the rows")
    return pooled.logloss(member) if name == "logloss" else pooled.auc(member)


class Pooled:
    """Rows as one group: all of them, or those of some groups."""

    def __init__(self, scores: ArrayLike, labels: ArrayLike, groups: ArrayLike) -> None:
        self._score = np.asarray(scores, dtype=np.float64)
        self._label = np.asarray(labels).astype(np.int64)
        self._group = np.asarray(groups).astype(np.int64)

    def logloss(self, member: Mask | None) -> float:
        """Binary cross-entropy of sigmoid(score), the mean over rows."""
        if member is None:
            return float(np.mean(self._losses))
        total, rows = self._group_losses
        return float(total[member[: len(rows)]].sum() / rows[member[: len(rows)]].sum())

    def auc(self, member: Mask | None) -> float:
        """AUC over rows of all groups together."""
        if member is None:
            blocks = tie_blocks(self._score, self._label, np.zeros_like(self._group))
        else:
            label, group, score = self._ordered
            label, score = label[member[group]], score[member[group]]
            blocks = blocks_in_order(label > 0, np.zeros_like(label), changes(score))
        if not len(blocks):
            raise ValueError("pooled_auc needs both a click and a non-click")
        return float(_auc(blocks)[0])

    @cached_property
    def _losses(self) -> Float:
        return np.logaddexp(0, self._score) - np.where(self._label, self._score, 0.0)

    @cached_property
    def _group_losses(self) -> tuple[Float, Int]:
        """Each group's sum of losses, and its number of rows."""
        total = np.bincount(self._group, weights=self._losses).astype(np.float64, copy=False)
        return total, np.bincount(self._group).astype(np.int64)

    @cached_property
    def _ordered(self) -> tuple[Int, Int, Float]:
        """Labels, groups and scores in falling order of score."""
        order = np.argsort(-self._score, kind="stable")
        return self._label[order], self._group[order], self._score[order]
