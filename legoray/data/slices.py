"""Which impressions are of a kind that is measured by itself: cold, short, long, head, tail.

Slices are marked from the prepared tables alone, so every processor's are marked alike. Files are
read one after another: what is held does not grow with the interactions, but with the items, the
histories and the largest file.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from legoray.data.corpus import Int32, Int64, Mask
from legoray.data.engine import Engine, pick_engine
from legoray.data.load import table_files
from legoray.data.ragged import flat, rows_of
from legoray.data.schema import HISTORIES, MARKS, SCHEMA_VERSION, SLICES, Manifest
from legoray.data.stages import Facts

SHORT = 5  # a history of at most so many items is short
LONG = 50  # of at least so many is long: as many as a model reads unless it is told otherwise
HEAD = 0.8  # of the clicks of train
RULE = (
    "cold-user: no impression in train; cold-item: a click on what nobody clicked in train or its "
    f"histories; short-history: at most {SHORT} items; long-history: at least {LONG}; head-item: "
    f"all clicks on the items that make up {HEAD:.0%} of train's clicks; tail-item: any other"
)
COLUMNS = ["impression_id", "history_id", "history_end", "item_id", "label"]


@dataclass(frozen=True)
class Seen:
    """What train knows."""

    users: Mask  # [U] who has an impression in it
    items: Mask  # [N + 1] what was clicked in it, as an interaction or in a history
    head: Mask  # [N + 1] the head of its clicks


def write_slices(
    tables: Path,
    folder: Path,
    *,
    counts: Mapping[str, int],
    labeled: Mapping[str, bool],
    engine: Engine,
) -> Facts:
    """Write `slices` of all splits, one file for each file of interactions.

    Args:
        tables: where histories and interactions are.
        folder: where to write.
        counts: `items`, `users` and `histories` as the manifest has them.
        labeled: whether the labels are known, per split.
        engine: writes the files.
    """
    users = _users(tables, counts["histories"])
    seen = seen_by_train(tables, users, counts)
    found: dict[str, int] = {}
    for split, known in labeled.items():
        found |= dict.fromkeys((f"{name}/{split}" for name in SLICES), 0)
        marked = _marked(tables, split, users, seen, known, found)
        engine.write(marked, folder / "slices" / split)
    return Facts(counts=found, protocol={"slices": RULE})


def completed(tables: Path, manifest: Manifest, say: Callable[[str], None]) -> Manifest:
    """The manifest of tables of an earlier version, whose slices are written now.

    It is for the caller to write; killed before that, all of this is done again.
    """
    say(f"marking the slices of {manifest.name}")
    unfinished = tables / "unfinished"
    for folder in (unfinished, tables / "slices"):
        shutil.rmtree(folder, ignore_errors=True)
    facts = write_slices(
        tables,
        unfinished,
        counts=manifest.counts,
        labeled=manifest.labeled,
        engine=pick_engine(0),
    )
    (unfinished / "slices").rename(tables / "slices")
    unfinished.rmdir()
    changes = {
        "schema_version": SCHEMA_VERSION,
        "counts": {**manifest.counts, **facts.counts},
        "protocol": {**manifest.protocol, **facts.protocol},
        "files": [*manifest.files, *table_files(tables, "slices")],
    }
    return manifest.model_copy(update=changes)


def head_items(clicks: Int64, share: float = HEAD) -> Mask:
    """`[N]` the most clicked items that together make up a share of all clicks.

    Pareto's 80/20 rule, by which head and tail are parted since Park and Tuzhilin, The Long Tail of
    Recommender Systems and How to Leverage It (RecSys 2008). An item is of the head where those
    that are clicked more often than it make up less than the share; so items that are clicked
    equally often are in the same part, whatever their numbers.
    """
    value, place, count = np.unique(clicks, return_inverse=True, return_counts=True)
    total = value * count
    above = total[::-1].cumsum()[::-1] - total
    in_head: Mask = ((above < share * total.sum()) & (value > 0))[place]
    return in_head


def _users(tables: Path, histories: int) -> Int32:
    """`[H]` whose each history is."""
    users = np.zeros(histories, np.int32)
    for table in _shards(tables / "histories", ["history_id", "user"]):
        users[table["history_id"].to_numpy()] = table["user"].to_numpy()
    return users


def seen_by_train(tables: Path, users: Int32, counts: Mapping[str, int]) -> Seen:
    """What train knows.

    Args:
        tables: where histories and interactions are.
        users: `[H]` whose each history is.
        counts: `items` and `users` as the manifest has them.
    """
    clicks = np.zeros(counts["items"] + 1, np.int64)
    end = np.full(len(users), -1, np.int32)  # [H] how much of each history lies in train
    for table in _shards(tables / "interactions/train", COLUMNS[1:]):
        column = {name: table[name].to_numpy() for name in COLUMNS[1:]}
        np.maximum.at(end, column["history_id"], column["history_end"])
        clicked = column["item_id"][column["label"] == 1]
        clicks += np.bincount(clicked, minlength=len(clicks))
    known = clicks > 0
    for table in _shards(tables / "histories", HISTORIES.names):
        offsets, items = flat(table["items"], np.int32)
        row = rows_of(offsets)
        place = np.arange(len(items)) - offsets[row]
        known[items[place < end[table["history_id"].to_numpy()][row]]] = True
    of_train = np.zeros(counts["users"], bool)
    of_train[users[end >= 0]] = True
    return Seen(of_train, known, head_items(clicks))


def _marked(
    tables: Path, split: str, users: Int32, seen: Seen, labeled: bool, found: dict[str, int]
) -> Iterator[pa.Table]:
    """The marks of each file of interactions; how many there are is added up in `found`."""
    for table in _shards(tables / "interactions" / split, COLUMNS):
        marks = _marks({name: table[name].to_numpy() for name in COLUMNS}, users, seen, labeled)
        for name in SLICES:
            found[f"{name}/{split}"] += int(marks[name].sum())
        yield pa.table(marks, schema=MARKS)


def _marks(
    column: dict[str, NDArray[Any]], users: Int32, seen: Seen, labeled: bool
) -> dict[str, NDArray[Any]]:
    """The slices of the impressions of one file; none of them is in two files."""
    identity = column["impression_id"]
    new = np.append(True, identity[1:] != identity[:-1])[: len(identity)]
    start = np.flatnonzero(new)
    impression = np.cumsum(new) - 1
    clicked = (column["label"] == 1) & labeled
    item, owner = column["item_id"][clicked], impression[clicked]

    def one_of(which: Mask) -> Mask:
        return np.bincount(owner[which[item]], minlength=len(start)) > 0

    length = column["history_end"][start]
    tail = one_of(~seen.head)
    return {
        "impression_id": identity[start],
        "cold-user": ~seen.users[users[column["history_id"][start]]],
        "cold-item": one_of(~seen.items),
        "short-history": length <= SHORT,
        "long-history": length >= LONG,
        "head-item": one_of(seen.head) & ~tail,
        "tail-item": tail,
    }


def _shards(folder: Path, columns: list[str]) -> Iterator[pa.Table]:
    """The files of a table, one after another, in order."""
    for path in sorted(folder.glob("*.parquet")):
        yield pq.ParquetFile(path).read(columns=columns)
