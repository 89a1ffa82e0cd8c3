"""Lists of different lengths as flat arrays: `values`, and `offsets` where each list begins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


def offsets_of(counts: NDArray[Any]) -> Int64:
    """`[n + 1]` offsets of lists of these lengths."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def expand(start: NDArray[Any], count: NDArray[Any]) -> Int64:
    """`start[0], start[0] + 1, ..., start[1], ...`: positions of all elements of some lists."""
    offsets = offsets_of(count)
    return np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], count)


def keep(offsets: Int64, kept: NDArray[np.bool_]) -> Int64:
    """The offsets after the elements where `kept` is false were taken out."""
    before = np.zeros(len(kept) + 1, np.int64)
    np.cumsum(kept, out=before[1:])
    return before[offsets]


def rows_of(offsets: Int64) -> Int64:
    """For every element, the number of its list."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def flat(column: pa.ChunkedArray, dtype: Any) -> tuple[Int64, NDArray[Any]]:
    """Offsets and values of a list column without nulls."""
    counts, values = [], []
    for chunk in column.chunks:
        ends = chunk.offsets.to_numpy().astype(np.int64)
        counts.append(np.diff(ends))
        part = chunk.values.slice(ends[0], ends[-1] - ends[0])
        values.append(part.to_numpy(zero_copy_only=False))
    if not counts:
        return np.zeros(1, np.int64), np.zeros(0, dtype)
    return offsets_of(np.concatenate(counts)), np.concatenate(values).astype(dtype, copy=False)


def distinct(numbers: NDArray[Any]) -> NDArray[Any]:
    """Sorted, each once. `np.unique` hashes, which takes ten times as long for millions of them."""
    ordered = np.sort(numbers)
    new = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    return ordered[new]


def list_array(offsets: Int64, values: NDArray[Any]) -> pa.ListArray:
    """The reverse of `flat`, for at most 2^31 elements."""
    return pa.ListArray.from_arrays(pa.array((offsets - offsets[0]).astype(np.int32)), values)


def hash_rows(offsets: Int64, values: NDArray[Any]) -> NDArray[np.uint64]:
    """A 64-bit hash of each list, which depends on its order.

    Elements are mixed with their position and summed modulo 2^64, so that sums of whole lists are
    differences of one running sum.
    """
    position = np.arange(len(values), dtype=np.uint64) - np.repeat(
        offsets[:-1].astype(np.uint64), np.diff(offsets)
    )
    mixed = _mix(_mix(values.astype(np.uint64)) + position * np.uint64(0x9E3779B97F4A7C15))
    total = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(mixed, out=total[1:])
    return total[offsets[1:]] - total[offsets[:-1]]


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finalizer: every bit of the input moves every bit of the output."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
