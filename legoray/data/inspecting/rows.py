"""The interactions of a split, block by block; no block cuts an impression in two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from legoray.data.corpus import Int32, Int64
from legoray.data.load import read_files
from legoray.data.ragged import flat
from legoray.data.schema import Manifest

COLUMNS = ["impression_id", "history_id", "history_end", "item_id", "label", "time"]


@dataclass(frozen=True)
class Block:
    """Some impressions and their candidates."""

    id: Int64  # [I]
    history: Int32  # [I]
    end: Int32  # [I]
    time: Int64  # [I]
    offsets: Int64  # [I + 1]
    item: Int32  # [R]
    label: NDArray[np.int8]  # [R]

    @property
    def clicks(self) -> Int64:
        """`[I]` how many candidates of each were clicked."""
        running = np.zeros(len(self.label) + 1, np.int64)
        np.cumsum(self.label, out=running[1:])
        return np.diff(running[self.offsets])


def files_of(tables: Path, manifest: Manifest, folder: str) -> list[Path]:
    """The Parquet files of a table, in order."""
    return [tables / name for name in sorted(manifest.files) if name.startswith(f"{folder}/")]


def blocks_of(tables: Path, manifest: Manifest, split: str) -> Iterator[Block]:
    """All impressions of a split, a file at a time.

    Raises:
        DamagedError: a file is missing or damaged.
    """
    held: pa.Table | None = None
    for file in files_of(tables, manifest, f"interactions/{split}"):
        (table,) = read_files([file], COLUMNS)
        if not len(table):
            continue
        if held is not None and held["impression_id"][-1] == table["impression_id"][0]:
            held = pa.concat_tables([held, table])
            continue
        if held is not None:
            yield _block(held)
        held = table
    if held is not None:
        yield _block(held)


def histories_of(tables: Path, manifest: Manifest) -> Iterator[tuple[Int32, Int64, Int32]]:
    """All histories in order, a file at a time: whose each is, offsets of each list, items."""
    for file in files_of(tables, manifest, "histories"):
        (table,) = read_files([file], ["user", "items"])
        offsets, items = flat(table["items"], np.int32)
        yield table["user"].to_numpy(), offsets, items


def _block(table: pa.Table) -> Block:
    column: dict[str, Any] = {name: table[name].to_numpy() for name in COLUMNS}
    identity = column["impression_id"]
    starts = np.flatnonzero(np.append(True, identity[1:] != identity[:-1]))
    return Block(
        id=identity[starts],
        history=column["history_id"][starts],
        end=column["history_end"][starts],
        time=column["time"][starts],
        offsets=np.append(starts, len(identity)),
        item=column["item_id"],
        label=column["label"],
    )
