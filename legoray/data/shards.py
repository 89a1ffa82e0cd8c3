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


def cuts(length: NDArray[Any], size: int = 0) -> list[tuple[int, int]]:
    """Where to cut lists so that no piece exceeds `size` elements by a list or more; at least one.

    Args:
        length: `[L]` of the lists.
        size: of a piece; `PIECE` where not given.
    """
    offsets = offsets_of(length)
    step, last = size or PIECE, len(length)
    at = np.searchsorted(offsets, np.arange(step, int(offsets[-1]), step))
    return list(pairwise([0, *np.unique(at[at < last]).tolist(), last]))


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
