"""Normalized tables, written: each function writes one table's shards and tells its facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from legoray.data.corpus import Int32, Int64
from legoray.data.engine import Engine
from legoray.data.fingerprint import hash_columns
from legoray.data.protocol import Sampled
from legoray.data.ragged import expand, list_array, offsets_of, rows_of
from legoray.data.schema import HISTORIES, INTERACTIONS, items_schema, users_schema
from legoray.data.stages import Facts

SHARD_ROWS = 1 << 20


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

    def canonical(self) -> Impressions:
        """The same impressions in order of their ids, clicks first in each, else as they stood."""
        order = np.argsort(self.id, kind="stable")
        chosen = self.take(order)
        rows = np.lexsort((-chosen.label, rows_of(chosen.offsets)))
        return replace(chosen, item=chosen.item[rows], label=chosen.label[rows])

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
    """Write `items`; row i of the input becomes item i + 1."""
    columns = {"key": keys, **attributes}
    table = pa.table(
        {"item_id": pa.array(np.arange(1, len(keys) + 1, dtype=np.int32)), **columns}
    ).cast(items_schema(list(attributes)))
    engine.write(_slices(table), folder / "items")
    return Facts(
        counts={"items": len(keys)} | _without(table, "items", attributes),
        attributes=list(attributes),
        hashes={"items": hash_columns({name: table[name] for name in columns})},
    )


def write_users(
    folder: Path, engine: Engine, keys: pa.Array, attributes: Mapping[str, pa.Array] | None = None
) -> Facts:
    """Write `users`; row i of the input becomes user i. Attributes are texts without nulls."""
    columns = {"key": keys, **(attributes or {})}
    numbers = pa.array(np.arange(len(keys), dtype=np.int32))
    table = pa.table({"user": numbers, **columns}).cast(users_schema(list(attributes or {})))
    engine.write(_slices(table), folder / "users")
    return Facts(
        counts={"users": len(keys)} | _without(table, "users", attributes or {}),
        user_attributes=list(attributes or {}),
        hashes={"users": hash_columns({name: table[name] for name in columns})},
    )


def _without(table: pa.Table, of: str, attributes: Mapping[str, pa.Array]) -> dict[str, int]:
    """How many rows have no text in an attribute, where any lacks it."""
    empty = {name: pc.sum(pc.equal(table[name], "")).as_py() for name in attributes}
    return {f"{of}_without/{name}": count for name, count in empty.items() if count}


def write_histories(
    folder: Path, engine: Engine, user: Int32, offsets: Int64, items: Int32
) -> Facts:
    """Write `histories`; list i of the input becomes history i."""
    engine.write(_history_shards(user, offsets, items), folder / "histories")
    return Facts(
        counts={"histories": len(user), "history_items": len(items)},
        hashes={"histories": hash_columns({"user": user, "offsets": offsets, "items": items})},
    )


def write_interactions(folder: Path, engine: Engine, split: str, data: Impressions) -> Facts:
    """Write `interactions/<split>`, sorted by impression and clicks first."""
    data = data.canonical()
    engine.write(_interaction_shards(data), folder / "interactions" / split)
    counts = {
        f"impressions/{split}": len(data.id),
        f"rows/{split}": len(data.item),
        f"clicks/{split}": int(data.label.sum()),
    }
    fields = ("id", "history", "end", "time", "offsets", "item", "label")
    return Facts(
        counts=counts,
        labeled={split: data.labeled},
        hashes={f"interactions/{split}": hash_columns({n: getattr(data, n) for n in fields})},
    )


def read_folder(folder: Path, columns: list[str] | None = None) -> pa.Table:
    """All shards of a folder as one table, in order."""
    return pa.concat_tables(
        [pq.read_table(path, columns=columns) for path in sorted(folder.glob("*.parquet"))]
    )


def _slices(table: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, max(len(table), 1), SHARD_ROWS):
        yield table.slice(start, SHARD_ROWS)


def _cuts(offsets: Int64) -> list[int]:
    """Lists at which to begin a new shard, so that none exceeds SHARD_ROWS by more than a list."""
    total = int(offsets[-1])
    at = np.searchsorted(offsets, np.arange(0, total, SHARD_ROWS))
    return [*np.unique(np.minimum(np.append(0, at), len(offsets) - 1)).tolist(), len(offsets) - 1]


def _history_shards(user: Int32, offsets: Int64, items: Int32) -> Iterator[pa.Table]:
    cuts = _cuts(offsets)
    for a, b in pairwise(cuts):
        lists = list_array(offsets[a : b + 1], items[offsets[a] : offsets[b]])
        numbers = np.arange(a, b, dtype=np.int32)
        yield pa.table([numbers, user[a:b], lists], schema=HISTORIES)


def _interaction_shards(data: Impressions) -> Iterator[pa.Table]:
    cuts = _cuts(data.offsets)
    for a, b in pairwise(cuts):
        rows = slice(data.offsets[a], data.offsets[b])
        count = np.diff(data.offsets[a : b + 1])
        repeated = [np.repeat(x[a:b], count) for x in (data.id, data.history, data.end)]
        columns = [*repeated, data.item[rows], data.label[rows], np.repeat(data.time[a:b], count)]
        yield pa.table(columns, schema=INTERACTIONS)
