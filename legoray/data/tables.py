"""Normalized tables, written: each function writes one table's shards and tells its facts.

What has as many rows as candidates or history items may come in pieces: a piece is all that is held
in memory, and shards and fingerprints are the same whatever the pieces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from legoray.data.corpus import Int32, Int64
from legoray.data.engine import Engine
from legoray.data.fingerprint import ColumnsHash
from legoray.data.protocol import Sampled
from legoray.data.ragged import expand, list_array, offsets_of, rows_of
from legoray.data.schema import HISTORIES, INTERACTIONS, items_schema, users_schema
from legoray.data.shards import Lists, cuts, shards
from legoray.data.stages import Facts

SHARD_ROWS = 1 << 20
SHARD_BYTES = 64 << 20  # of texts in memory, before they are compressed
BATCH = 1 << 16  # rows of texts that are read at a time
GROUP = 1 << 13  # items that can be read for themselves, so that many tokenize them at once


@dataclass(frozen=True)
class Impressions:
    """The impressions of one split and, below them, their candidates (see `corpus.Split`)."""

    id: Int64  # [I]
    history: Int32  # [I] history_id
    end: Int32  # [I] history_end
    time: Int64  # [I] seconds since 1970, -1 where unknown
    offsets: Int64  # [I + 1]
    item: Int32  # [R]
    label: NDArray[np.int8]  # [R]
    labeled: bool = True

    def pieces(self) -> Iterator[Impressions]:
        """The same impressions in order of their ids, some at a time."""
        length = np.diff(self.offsets)
        if (self.id[1:] >= self.id[:-1]).all():
            for start, end in cuts(length):
                yield self._between(start, end)
            return
        order = np.argsort(self.id, kind="stable")
        for start, end in cuts(length[order]):
            yield self.take(order[start:end])

    def _between(self, start: int, end: int) -> Impressions:
        rows = slice(self.offsets[start], self.offsets[end])
        return Impressions(
            id=self.id[start:end],
            history=self.history[start:end],
            end=self.end[start:end],
            time=self.time[start:end],
            offsets=self.offsets[start : end + 1] - self.offsets[start],
            item=self.item[rows],
            label=self.label[rows],
            labeled=self.labeled,
        )

    def clicks_first(self) -> Impressions:
        """The same impressions with clicks first in each, else as they stood."""
        clicked = self.label > 0
        rising = clicked[1:] > clicked[:-1]
        inner = self.offsets[(self.offsets > 0) & (self.offsets < len(clicked))]
        rising[inner - 1] = False
        if not rising.any():
            return self
        before = offsets_of(clicked)
        start, end = self.offsets[:-1], self.offsets[1:]
        row, at = rows_of(self.offsets), np.arange(len(clicked))
        clicks = before[:-1] - before[start][row]  # of the impression, before each row
        others = at - start[row] - clicks + (before[end] - before[start])[row]
        place = start[row] + np.where(clicked, clicks, others)
        item, label = np.empty_like(self.item), np.empty_like(self.label)
        item[place], label[place] = self.item, self.label
        return replace(self, item=item, label=label)

    def take(self, which: NDArray[np.int64]) -> Impressions:
        """Some impressions, by their positions."""
        count = np.diff(self.offsets)[which]
        rows = expand(self.offsets[which], count)
        return Impressions(
            id=self.id[which],
            history=self.history[which],
            end=self.end[which],
            time=self.time[which],
            offsets=offsets_of(count),
            item=self.item[rows],
            label=self.label[rows],
            labeled=self.labeled,
        )


def clicks_with_negatives(
    *, id: Int64, history: Int32, end: Int32, time: Int64, item: Int32, sampled: Sampled
) -> Impressions:
    """One impression per click: the click, then its negatives.

    Args:
        id: `[I]` the impressions' ids.
        history: `[I]`, and so `end` and `time`: see `Impressions`.
        end: see there.
        time: see there.
        item: `[I]` what was clicked.
        sampled: the negatives of each.
    """
    offsets = offsets_of(sampled.count + 1)
    items = np.zeros(offsets[-1], np.int32)
    label = np.zeros(offsets[-1], np.int8)
    items[offsets[:-1]] = item
    label[offsets[:-1]] = 1
    items[expand(offsets[:-1] + 1, sampled.count)] = sampled.item
    return Impressions(id, history, end, time, offsets, items, label)


def write_items(
    folder: Path, engine: Engine, keys: pa.Array, attributes: Mapping[str, pa.Array]
) -> Facts:
    """Write `items`; row i of the input becomes item i + 1. Attributes are texts without nulls."""
    table = pa.table({"key": keys, **attributes})
    return write_item_pieces(folder, engine, [table])


def write_item_pieces(folder: Path, engine: Engine, pieces: Iterable[pa.Table]) -> Facts:
    """Write `items` from tables of `key` and attributes that follow one another, at least one."""
    first, rest = _peeked(pieces)
    attributes = [name for name in first.column_names if name != "key"]
    written = _Numbered(items_schema(attributes), first=1)
    engine.write(written.shards(rest), folder / "items", GROUP)
    return Facts(
        counts={"items": written.count} | written.lacking("items"),
        attributes=attributes,
        hashes={"items": written.content.hexdigest()},
    )


def write_users(
    folder: Path, engine: Engine, keys: pa.Array, attributes: Mapping[str, pa.Array] | None = None
) -> Facts:
    """Write `users`; row i of the input becomes user i. Attributes are texts without nulls."""
    names = list(attributes or {})
    written = _Numbered(users_schema(names), first=0)
    table = pa.table({"key": keys, **(attributes or {})})
    engine.write(written.shards([table]), folder / "users")
    return Facts(
        counts={"users": written.count} | written.lacking("users"),
        user_attributes=names,
        hashes={"users": written.content.hexdigest()},
    )


@dataclass
class _Numbered:
    """Rows with a key, as they are numbered, hashed and cut into shards."""

    schema: pa.Schema
    first: int
    count: int = 0
    content: ColumnsHash = field(default_factory=ColumnsHash)
    without: Counter[str] = field(default_factory=Counter)  # attribute -> rows without a text

    def shards(self, pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Tables of at most SHARD_ROWS rows, and of about SHARD_BYTES of texts at most."""
        waiting = [self.schema.empty_table().select(self.schema.names[1:])]
        for piece in pieces:
            for part in _sized(piece.select(self.schema.names[1:])):
                if len(waiting) > 1 and _too_much([*waiting, part]):
                    yield self._shard(waiting)
                    waiting = []
                waiting.append(part)
        yield self._shard(waiting)

    def _shard(self, pieces: list[pa.Table]) -> pa.Table:
        schema = pa.schema([self.schema.field(name) for name in self.schema.names[1:]])
        piece = pa.concat_tables([piece.cast(schema) for piece in pieces])
        begin = self.first + self.count
        numbers = pa.array(np.arange(begin, begin + len(piece), dtype=np.int32))
        self.count += len(piece)
        self.content.add({name: piece[name] for name in piece.column_names})
        for name in piece.column_names[1:]:
            self.without[name] += pc.sum(pc.equal(piece[name], "")).as_py() or 0
        return piece.add_column(0, self.schema.field(0), numbers)

    def lacking(self, of: str) -> dict[str, int]:
        """How many rows have no text in an attribute, where any lacks it."""
        return {f"{of}_without/{name}": count for name, count in self.without.items() if count}


def _too_much(parts: list[pa.Table]) -> bool:
    """Whether these are more than a shard takes."""
    rows, size = sum(len(part) for part in parts), sum(part.nbytes for part in parts)
    return rows > SHARD_ROWS or size > SHARD_BYTES


def _sized(table: pa.Table) -> Iterator[pa.Table]:
    """A table in parts that fit into a shard."""
    rows = min(SHARD_ROWS, max(len(table) * SHARD_BYTES // max(table.nbytes, 1), 1))
    return (table.slice(start, rows) for start in range(0, len(table), rows))


def _peeked(pieces: Iterable[pa.Table]) -> tuple[pa.Table, Iterator[pa.Table]]:
    """The first piece, and all of them."""
    every = iter(pieces)
    first = next(every)
    return first, chain([first], every)


@dataclass(frozen=True)
class Histories:
    """Some histories that follow one another."""

    user: Int32  # [H]
    offsets: Int64  # [H + 1]
    items: Int32  # [T]

    def pieces(self) -> Iterator[Histories]:
        """The same histories, some at a time."""
        for start, end in cuts(np.diff(self.offsets)):
            rows = slice(self.offsets[start], self.offsets[end])
            yield Histories(self.user[start:end], self.offsets[start : end + 1], self.items[rows])


def write_histories(
    folder: Path, engine: Engine, user: Int32, offsets: Int64, items: Int32
) -> Facts:
    """Write `histories`; list i of the input becomes history i."""
    return write_history_pieces(folder, engine, Histories(user, offsets, items).pieces())


def write_history_pieces(folder: Path, engine: Engine, pieces: Iterable[Histories]) -> Facts:
    """Write `histories` from pieces that follow one another."""
    written = _WrittenHistories()
    engine.write(shards(written.lists(pieces), SHARD_ROWS, HISTORIES), folder / "histories")
    return Facts(
        counts={"histories": written.count, "history_items": written.items},
        hashes={"histories": written.content.hexdigest()},
    )


@dataclass
class _WrittenHistories:
    """Histories, as they are numbered, hashed and made into tables."""

    count: int = 0
    items: int = 0
    content: ColumnsHash = field(default_factory=ColumnsHash)

    def lists(self, pieces: Iterable[Histories]) -> Iterator[Lists]:
        self.content.add({"offsets": np.zeros(1, np.int64)})
        for piece in pieces:
            ends = piece.offsets[1:] - piece.offsets[0] + self.items
            self.content.add({"user": piece.user, "offsets": ends, "items": piece.items})
            rows = np.arange(len(piece.user) + 1)
            numbers = (rows[:-1] + self.count).astype(np.int32)
            lists = list_array(piece.offsets, piece.items)
            self.count += len(piece.user)
            self.items += len(piece.items)
            yield Lists(pa.table([numbers, piece.user, lists], HISTORIES), piece.offsets, rows)


def write_interactions(
    folder: Path, engine: Engine, split: str, data: Impressions | Iterable[Impressions]
) -> Facts:
    """Write `interactions/<split>`, sorted by impression and clicks first.

    Args:
        folder: of the stage.
        engine: writes the shards.
        split: their name.
        data: all impressions; or pieces of them, at least one, of which none has an id below those
            of earlier pieces, and which agree in `labeled`.
    """
    pieces = [data] if isinstance(data, Impressions) else data
    written = _WrittenInteractions()
    target = folder / "interactions" / split
    engine.write(shards(written.lists(pieces), SHARD_ROWS, INTERACTIONS), target)
    return Facts(
        counts={f"{name}/{split}": count for name, count in written.counts.items()},
        labeled={split: written.labeled},
        hashes={f"interactions/{split}": written.content.hexdigest()},
    )


@dataclass
class _WrittenInteractions:
    """Impressions, as they are counted, hashed and made into tables."""

    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("impressions", "rows", "clicks"), 0)
    )
    labeled: bool = True
    last: int = np.iinfo(np.int64).min  # the greatest id so far
    content: ColumnsHash = field(default_factory=ColumnsHash)

    def lists(self, pieces: Iterable[Impressions]) -> Iterator[Lists]:
        self.content.add({"offsets": np.zeros(1, np.int64)})
        for piece in (part.clicks_first() for given in pieces for part in given.pieces()):
            self._check(piece.id)
            columns = {name: getattr(piece, name) for name in _HASHED}
            self.content.add({**columns, "offsets": piece.offsets[1:] + self.counts["rows"]})
            self.counts["impressions"] += len(piece.id)
            self.counts["rows"] += len(piece.item)
            self.counts["clicks"] += int(piece.label.sum())
            self.labeled = piece.labeled
            yield Lists(_interaction_table(piece), piece.offsets, piece.offsets)

    def _check(self, ids: Int64) -> None:
        if len(ids):
            if ids[0] < self.last or (ids[1:] < ids[:-1]).any():
                raise RuntimeError("pieces of interactions must be in order of their ids")
            self.last = int(ids[-1])


_HASHED = ("id", "history", "end", "time", "item", "label")


def _interaction_table(data: Impressions) -> pa.Table:
    count = np.diff(data.offsets)
    of_impression = [np.repeat(x, count) for x in (data.id, data.history, data.end, data.time)]
    columns = [*of_impression[:3], data.item, data.label, of_impression[3]]
    return pa.table(columns, schema=INTERACTIONS)


def read_folder(folder: Path, columns: list[str] | None = None) -> pa.Table:
    """All shards of a folder as one table, in order."""
    return pa.concat_tables(
        [pq.read_table(path, columns=columns) for path in sorted(folder.glob("*.parquet"))]
    )


def count_rows(folder: Path) -> int:
    """How many rows the shards of a folder have."""
    return sum(pq.read_metadata(path).num_rows for path in folder.glob("*.parquet"))


def take_rows(folder: Path, which: NDArray[Any]) -> Iterator[pa.Table]:
    """Some rows of the shards of a folder in pieces, at least one; `which` rises."""
    begin = 0
    for path in sorted(folder.glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(BATCH):
            start, end = np.searchsorted(which, [begin, begin + len(batch)])
            taken = pa.array(which[start:end] - begin)
            yield pa.Table.from_batches([batch]).take(taken)
            begin += len(batch)
