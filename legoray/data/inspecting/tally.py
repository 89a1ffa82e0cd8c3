"""Counting whole numbers piece by piece, in memory that depends on their size alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from legoray.data.inspecting.result import Distribution

Int64 = NDArray[np.int64]


def _none() -> Int64:
    return np.zeros(0, np.int64)


@dataclass
class Tally:
    """How often each whole number from 0 on was met."""

    counts: Int64 = field(default_factory=_none)

    def add(self, numbers: NDArray[Any]) -> None:
        """Count some more."""
        more = np.bincount(numbers, minlength=len(self.counts)).astype(np.int64)
        more[: len(self.counts)] += self.counts
        self.counts = more

    def distribution(self) -> Distribution:
        """What was met."""
        values = np.flatnonzero(self.counts)
        return Distribution(values=values.tolist(), counts=self.counts[values].tolist())


@dataclass
class SparseTally:
    """The same for numbers that are large, but close to each other."""

    numbers: Int64 = field(default_factory=_none)  # rising
    counts: Int64 = field(default_factory=_none)

    def add(self, numbers: Int64) -> None:
        """Count some more."""
        found, counts = np.unique(numbers, return_counts=True)
        every, place = np.unique(np.concatenate([self.numbers, found]), return_inverse=True)
        total = np.zeros(len(every), np.int64)
        np.add.at(total, place, np.concatenate([self.counts, counts]))
        self.numbers, self.counts = every, total
