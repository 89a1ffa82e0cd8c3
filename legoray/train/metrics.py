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

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from legoray.errors import Problem, unknown

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Mask = NDArray[np.bool_]

POOLED = ("pooled_auc", "logloss")


@dataclass(frozen=True)
class TieBlocks:
    """The rows of each group in order of score, equal scores together as one block.

    Blocks `[T]` stand in order of group, then of falling score; groups `[G]` are only those that
    have both a click and a non-click.
    """

    group: Int  # [T] which group a block belongs to
    above: Int  # [T] rows of the group that score higher
    size: Int  # [T] rows in the block
    clicks: Int  # [T] clicks in the block
    clicks_above: Int  # [T] clicks that score higher
    group_size: Int  # [G]
    group_clicks: Int  # [G]
    left_out: int  # groups without a click or without a non-click

    def __len__(self) -> int:
        return len(self.group_size)

    def sum(self, values: NDArray[Any]) -> Float:
        """Sum a value of each block over the blocks of each group: `[T] -> [G]`."""
        return _sum(values, self.group, len(self))


def tie_blocks(scores: ArrayLike, labels: ArrayLike, groups: ArrayLike) -> TieBlocks:
    """Sort `[R]` rows by group and falling score, and find the ties.

    Raises:
        ValueError: a score is NaN, a label is neither 0 nor 1, or the lengths differ.
    """
    label, new_group, new_block = _in_order(*_checked(scores, labels, groups))
    clicks = np.concatenate([[0], np.cumsum(label)])
    start = np.flatnonzero(new_block)
    end = np.append(start[1:], len(label))
    first = np.flatnonzero(new_group)
    group_size = np.diff(np.append(first, len(label)))
    group_clicks = clicks[first + group_size] - clicks[first]
    number = np.cumsum(new_group)[start] - 1
    both = (group_clicks > 0) & (group_clicks < group_size)
    kept = both[number]
    start, end, number = start[kept], end[kept], number[kept]
    return TieBlocks(
        group=(np.cumsum(both) - 1)[number],
        above=start - first[number],
        size=end - start,
        clicks=clicks[end] - clicks[start],
        clicks_above=clicks[start] - clicks[first[number]],
        group_size=group_size[both],
        group_clicks=group_clicks[both],
        left_out=int((~both).sum()),
    )


def _checked(scores: ArrayLike, labels: ArrayLike, groups: ArrayLike) -> tuple[Float, Int, Int]:
    score = np.asarray(scores, dtype=np.float64)
    label, group = np.asarray(labels), np.asarray(groups)
    if not score.shape == label.shape == group.shape or score.ndim != 1:
        shapes = f"{score.shape}, {label.shape} and {group.shape}"
        raise ValueError(f"scores, labels and groups must be of one length: {shapes}")
    bad = np.isnan(score)
    if bad.any():
        raise ValueError(f"{int(bad.sum())} of {len(score)} scores are NaN")
    if not ((label == 0) | (label == 1)).all():
        raise ValueError("labels must be 0 or 1")
    return score, label.astype(np.int64), group.astype(np.int64)


def _in_order(score: Float, label: Int, group: Int) -> tuple[Int, Mask, Mask]:
    """Labels in order of group and falling score, and where a new group and a new tie start."""
    key = _packed(score, label, group)
    if key is not None:
        key.sort()
        return (key & 1).astype(np.int64), _changes(key >> 33), _changes(key >> 1)
    order = np.lexsort((-score, group))
    new_group = _changes(group[order])
    return label[order], new_group, new_group | _changes(score[order])


def _packed(score: Float, label: Int, group: Int) -> NDArray[np.uint64] | None:
    """Group, score (falling) and label of each row as one number that sorts like the three.

    Sorting numbers is several times faster than sorting an index, but it takes scores that are
    float32 and group numbers below 2^31; None for others.
    """
    with np.errstate(over="ignore"):
        short = score.astype(np.float32) + np.float32(0)  # -0 and 0 are a tie
    if not len(group) or group.min() < 0 or group.max() >= 2**31 or (short != score).any():
        return None
    bits = short.view(np.uint32)
    falling = np.where(bits >> 31, bits, ~bits & np.uint32(2**31 - 1))
    key = group.astype(np.uint64) << np.uint64(33)
    key |= falling.astype(np.uint64) << np.uint64(1)
    key |= label.astype(np.uint64)
    return key


def _changes(values: NDArray[Any]) -> Mask:
    """Where a value differs from the one before it; the first one counts as new."""
    new = np.ones(len(values), dtype=bool)
    new[1:] = values[1:] != values[:-1]
    return new


def _sum(values: NDArray[Any], group: Int, groups: int) -> Float:
    return np.bincount(group, weights=values, minlength=groups).astype(np.float64, copy=False)


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
    return _sum(weights, blocks.group[first][block], len(blocks))


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
    return {name: _value(name, blocks, scores, labels) for name in names}


def _value(name: str, blocks: TieBlocks, scores: Any, labels: Any) -> float:
    if name == "logloss":
        raw = np.asarray(scores, dtype=np.float64)
        return float(np.mean(np.logaddexp(0, raw) - np.where(labels, raw, 0.0)))
    if name == "pooled_auc":
        pooled = tie_blocks(scores, labels, np.zeros(len(labels), dtype=np.int64))
        if not len(pooled):
            raise ValueError("pooled_auc needs both a click and a non-click")
        return float(_auc(pooled)[0])
    base, at, k = name.partition("@")
    return float(np.mean(_AT_K[base](blocks, int(k)) if at else _PLAIN[base](blocks)))
