"""Numbers on disk, appended piece by piece and gathered by position.

What is gathered takes memory, the rest does not: a file is mapped for each gather and let go after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from legoray.data.ragged import offsets_of


@dataclass(frozen=True)
class NumberFile:
    """A flat file of numbers of one type, in the machine's byte order."""

    path: Path
    dtype: type

    def append(self, numbers: NDArray[Any]) -> None:
        """Add numbers at the end."""
        with self.path.open("ab") as file:
            np.ascontiguousarray(numbers, self.dtype).tofile(file)

    def __len__(self) -> int:
        size = self.path.stat().st_size if self.path.exists() else 0
        return size // np.dtype(self.dtype).itemsize

    def gather(self, at: NDArray[np.int64]) -> NDArray[Any]:
        """The numbers at some positions."""
        if not len(at):
            return np.zeros(0, self.dtype)
        mapped = np.memmap(self.path, self.dtype, mode="r")
        gathered: NDArray[Any] = np.asarray(mapped)[at]
        return gathered


def gather(files: Sequence[NumberFile], at: NDArray[np.int64]) -> NDArray[Any]:
    """The numbers at some positions of several files, at least one, as if they were one file."""
    begin = offsets_of(np.array([len(file) for file in files]))
    owner = np.searchsorted(begin, at, side="right") - 1
    found: NDArray[Any] = np.empty(len(at), files[0].dtype)
    for number, file in enumerate(files):
        inside = owner == number
        found[inside] = file.gather(at[inside] - begin[number])
    return found
