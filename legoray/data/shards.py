"""Lists of different lengths, written in pieces: where pieces end and where shards begin.

Shards do not depend on the pieces in which the lists came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from legoray.data.ragged import Int64, offsets_of

PIECE = 1 << 18  # elements held in memory at once, but for a list that is longer


@dataclass(frozen=True)
class Lists:
    """Some lists that follow one another, as rows of a table."""

    table: pa.Table
    offsets: Int64  # [L + 1] where each list's elements begin; only differences count
    rows: Int64  # [L + 1] where each list's rows begin


def in_pieces(which: Int64, length: NDArray[Any], size: int = 0) -> Iterator[Int64]:
    """Numbers of lists in pieces of about `size` elements (`PIECE` where not given); at least one.

    Args:
        which: `[N]` the numbers, in any order.
        length: `[L]` of all lists.
        size: of a piece, which may exceed it by less than a list.
    """
    offsets = offsets_of(length[which])
    for start, end in pairwise(_cuts(offsets, size or PIECE)):
        yield which[start:end]


def shards(pieces: Iterable[Lists], size: int, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of all pieces as tables of about `size` elements; one empty one where none are.

    A shard begins with the first list at or after each multiple of `size`.
    """
    waiting: list[pa.Table] = []
    before, target, empty = 0, size, True
    for piece in pieces:
        ends = piece.offsets - piece.offsets[0] + before
        before, start = int(ends[-1]), 0
        while (cut := int(np.searchsorted(ends, target))) < len(ends):
            waiting.append(_between(piece, start, cut))
            yield pa.concat_tables(waiting).combine_chunks()
            waiting, empty, start = [], False, cut
            target = (int(ends[cut]) // size + 1) * size
        if start < len(ends) - 1:
            waiting.append(_between(piece, start, len(ends) - 1))
    if waiting or empty:
        yield pa.concat_tables([schema.empty_table(), *waiting]).combine_chunks()


def _between(piece: Lists, start: int, end: int) -> pa.Table:
    return piece.table.slice(piece.rows[start], piece.rows[end] - piece.rows[start])


def _cuts(offsets: Int64, size: int) -> list[int]:
    """Lists at which to begin anew, so that nothing exceeds `size` by a list or more."""
    at = np.searchsorted(offsets, np.arange(0, int(offsets[-1]), size))
    last = len(offsets) - 1
    return [0, *[cut for cut in np.unique(at).tolist() if 0 < cut < last], last]
