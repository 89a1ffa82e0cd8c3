"""A prepared data set as flat arrays: what training and evaluation gather from.

The arrays are plain numpy, contiguous and never written to, so that Ray's object store can hold one
copy per node and every worker maps it without copying.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Split:
    """One of `train`, `valid`, `test`: impressions and, below them, their labelled candidates.

    Impression `i` owns the rows `offsets[i]:offsets[i + 1]`. Within an impression the clicks stand
    first: its rows `offsets[i]:offsets[i] + clicks[i]` have label 1, the rest label 0. An unlabeled
    test split has `labeled = False` and all labels 0. With `full_ranking` there are only clicks.
    """

    impression: Int64  # [I] the impression's id as in the table
    history: Int32  # [I] row of the history in the corpus
    history_end: Int32  # [I] how much of that history lies before the impression
    user: Int32  # [I] dense user number
    time: Int64  # [I] seconds since 1970, -1 where unknown
    offsets: Int64  # [I + 1]
    clicks: Int32  # [I]
    item: Int32  # [R]
    label: NDArray[np.int8]  # [R]
    labeled: bool = True
    full_ranking: bool = False  # the rows are clicks alone, each ranked against all items
    slices: dict[str, Mask] = field(default_factory=dict)  # slice -> [I] which impressions

    def __len__(self) -> int:
        return len(self.impression)

    @property
    def rows(self) -> int:
        """How many (impression, item) pairs the split has."""
        return len(self.item)


@dataclass(frozen=True)
class Corpus:
    """Histories in compressed rows, and the splits. Item 0 is padding and stands nowhere here."""

    name: str
    fingerprint: str
    item_count: int  # rows of an item table, the padding row included
    history_items: Int32  # [T] all histories one after another, each in time order
    history_offsets: Int64  # [H + 1]
    splits: dict[str, Split]
    group: str = "impression"
    protocol: dict[str, object] = field(default_factory=dict)

    @cached_property
    def known_users(self) -> NDArray[np.int64]:
        """`[U]` user -> number from 1 of those with training impressions, 0 for the others."""
        seen = [split.user.max(initial=-1) for split in self.splits.values()]
        numbers = np.zeros(int(max(seen, default=-1)) + 1, dtype=np.int64)
        train = self.splits.get("train")
        if train is not None:
            users = np.unique(train.user)
            numbers[users] = np.arange(1, len(users) + 1)
        return numbers

    def histories(self, history: Int32, history_end: Int32, length: int) -> NDArray[np.int64]:
        """The last `length` items before each impression, padded with 0 on the right.

        Args:
            history: `[B]` rows of histories.
            history_end: `[B]` how much of each lies before the impression.
            length: width of the result at most.

        Returns:
            `[B, W]` with W the longest history here, at least 1 and at most `length`; oldest first.
        """
        start = self.history_offsets[history]
        count = np.minimum(history_end.astype(np.int64), length)
        width = max(int(count.max(initial=1)), 1)
        column = np.arange(width)
        position = (start + history_end - count)[:, None] + column
        inside = column < count[:, None]
        last = max(len(self.history_items) - 1, 0)
        items = self.history_items[np.minimum(position, last)] if len(self.history_items) else 0
        return np.where(inside, items, 0).astype(np.int64)
