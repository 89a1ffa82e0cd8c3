"""Scored rows in order of group and score, equal scores together: what grouped metrics are made of.

One sort puts all rows of all groups in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Mask = NDArray[np.bool_]


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
    key: Int  # [G] the groups' numbers as they were given

    def __len__(self) -> int:
        return len(self.group_size)

    def sum(self, values: NDArray[Any]) -> Float:
        """Sum a value of each block over the blocks of each group: `[T] -> [G]`."""
        return summed(values, self.group, len(self))


def tie_blocks(scores: ArrayLike, labels: ArrayLike, groups: ArrayLike) -> TieBlocks:
    """Sort `[R]` rows by group and falling score, and find the ties.

    Raises:
        ValueError: a score is NaN, a label is neither 0 nor 1, or the lengths differ.
    """
    return blocks_in_order(*_in_order(*_checked(scores, labels, groups)))


def blocks_in_order(label: Int, key: Int, new_block: Mask) -> TieBlocks:
    """The blocks of rows in order: their labels, groups, and where a new tie starts."""
    new_group = changes(key)
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
        key=key[first][both],
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


def _in_order(score: Float, label: Int, group: Int) -> tuple[Int, Int, Mask]:
    """Labels and groups in order of group and falling score, and where a new tie starts."""
    key = _packed(score, label, group)
    if key is not None:
        key.sort()
        return (key & 1).astype(np.int64), (key >> 33).astype(np.int64), changes(key >> 1)
    order = np.lexsort((-score, group))
    return label[order], group[order], changes(group[order]) | changes(score[order])


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


def changes(values: NDArray[Any]) -> Mask:
    """`[R]` where a value differs from the one before it; the first one counts as new."""
    new = np.ones(len(values), dtype=bool)
    new[1:] = values[1:] != values[:-1]
    return new


def summed(values: NDArray[Any], group: Int, groups: int) -> Float:
    """`[G]` sums of values by group."""
    return np.bincount(group, weights=values, minlength=groups).astype(np.float64, copy=False)
