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

    Kept are the blocks `[T]` with a click, in order of group, then of falling score: the others
    have no part in any metric beyond the rows that they put above or below a click. Groups `[G]`
    are only those that have both a click and a non-click.
    """

    group: Int  # [T] which group a block belongs to
    above: Int  # [T] rows of the group that score higher
    size: Int  # [T] rows in the block
    clicks: Int  # [T] clicks in the block, at least one
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


def blocks_in_order(label: Mask, key: NDArray[Any], new_block: Mask) -> TieBlocks:
    """The blocks of rows in order: their labels, groups, and where a new tie starts.

    Few rows are clicks, so after one look at all rows the work is done at the clicks alone.
    """
    first = np.flatnonzero(changes(key))
    group_size = np.diff(np.append(first, len(label)))
    click = np.flatnonzero(label)
    starts = np.append(np.flatnonzero(new_block), len(label))
    block = np.searchsorted(starts, click, side="right") - 1
    own = np.flatnonzero(changes(block))  # of the clicks, the first one of each block
    start, end = starts[block[own]], starts[block[own] + 1]
    number = np.searchsorted(first, start, side="right") - 1
    clicks = np.diff(np.append(own, len(click)))
    group_clicks = np.bincount(number, weights=clicks, minlength=len(first)).astype(np.int64)
    before = np.cumsum(group_clicks) - group_clicks  # clicks of earlier groups
    both = (group_clicks > 0) & (group_clicks < group_size)
    kept = both[number]
    start, end, number = start[kept], end[kept], number[kept]
    return TieBlocks(
        group=(np.cumsum(both) - 1)[number],
        above=start - first[number],
        size=end - start,
        clicks=clicks[kept],
        clicks_above=own[kept] - before[number],
        group_size=group_size[both],
        group_clicks=group_clicks[both],
        left_out=int((~both).sum()),
        key=key[first[both]].astype(np.int64),
    )


def _checked(
    scores: ArrayLike, labels: ArrayLike, groups: ArrayLike
) -> tuple[NDArray[np.floating[Any]], Mask, Int]:
    score, label, group = np.asarray(scores), np.asarray(labels), np.asarray(groups)
    if score.dtype != np.float32:
        score = score.astype(np.float64)
    if not score.shape == label.shape == group.shape or score.ndim != 1:
        shapes = f"{score.shape}, {label.shape} and {group.shape}"
        raise ValueError(f"scores, labels and groups must be of one length: {shapes}")
    bad = np.isnan(score)
    if bad.any():
        raise ValueError(f"{int(bad.sum())} of {len(score)} scores are NaN")
    if not ((label == 0) | (label == 1)).all():
        raise ValueError("labels must be 0 or 1")
    return score, label.astype(bool), group.astype(np.int64, copy=False)


def _in_order(
    score: NDArray[np.floating[Any]], label: Mask, group: Int
) -> tuple[Mask, NDArray[Any], Mask]:
    """Labels and groups in order of group and falling score, and where a new tie starts."""
    key = _packed(score, label, group)
    if key is None:
        order = np.lexsort((-score, group))
        return label[order], group[order], changes(group[order]) | changes(score[order])
    key.sort()
    clicked = (key & 1).astype(bool)
    key >>= np.uint64(1)
    new_block = changes(key)
    key >>= np.uint64(32)
    return clicked, key, new_block


def _packed(score: NDArray[np.floating[Any]], label: Mask, group: Int) -> NDArray[np.uint64] | None:
    """Group, score (falling) and label of each row as one number that sorts like the three.

    Sorting numbers is several times faster than sorting an index, but it takes scores that are
    float32 and group numbers below 2^31; None for others.
    """
    with np.errstate(over="ignore"):
        short = score.astype(np.float32) + np.float32(0)  # -0 and 0 are a tie
    if not len(group) or group.min() < 0 or group.max() >= 2**31:
        return None
    if score.dtype != np.float32 and (short != score).any():
        return None
    bits = short.view(np.int32)
    falling = ~bits & np.int32(2**31 - 1)  # of scores from 0 on
    falling ^= (bits >> 31) & np.int32(2**31 - 1)  # of those below 0 the bits as they are
    falling |= bits & np.int32(-(2**31))
    key = group.astype(np.uint64)
    key <<= np.uint64(32)
    key |= falling.view(np.uint32)
    key <<= np.uint64(1)
    key |= label
    return key


def changes(values: NDArray[Any]) -> Mask:
    """`[R]` where a value differs from the one before it; the first one counts as new."""
    new = np.ones(len(values), dtype=bool)
    new[1:] = values[1:] != values[:-1]
    return new


def summed(values: NDArray[Any], group: Int, groups: int) -> Float:
    """`[G]` sums of values by group."""
    return np.bincount(group, weights=values, minlength=groups).astype(np.float64, copy=False)
