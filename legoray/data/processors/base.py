"""What a processor is: the reader of one family of raw files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from legoray.config import Strict
from legoray.data.badrows import BadRows, repeated
from legoray.data.engine import Engine
from legoray.data.files import RawFolder
from legoray.data.lines import mark
from legoray.data.schema import SPLITS
from legoray.data.stages import Facts, Stages
from legoray.data.stream import Parse, mapped, text_blocks

Sources = dict[str, Path]  # what a file is for -> the file


@dataclass(frozen=True)
class Run:
    """What a processor works with."""

    sources: Sources
    stages: Stages
    engine: Engine
    bad_rows: BadRows
    say: Callable[[str], None]

    def parsed(self, parse: Any, blocks: list[Any], path: Path) -> Iterator[pa.Table]:
        """The blocks of a file parsed, one after another, bad rows refused or left out."""
        for table in self.engine.map(parse, blocks):
            yield self.bad_rows.good(table, path)

    def parse(self, parse: Any, blocks: list[Any], path: Path) -> pa.Table:
        """All of them as one table."""
        return pa.concat_tables(self.parsed(parse, blocks, path)).combine_chunks()

    def streamed(self, parse: Parse, path: Path) -> Iterator[pa.Table]:
        """A file of lines (plain or `.gz`) block by block, bad rows refused or left out."""
        for table in mapped(self.engine, parse, text_blocks(path)):
            yield self.bad_rows.good(table, path)

    def whole(self, parse: Parse, path: Path, key: str) -> pa.Table:
        """The same as one table, where a `key` that stands twice is a bad row."""
        rows = pa.concat_tables(mapped(self.engine, parse, text_blocks(path)))
        rows = mark(rows, repeated(rows[key]), f"{key} '{{value}}' stands twice", key)
        return self.bad_rows.good(rows, path)

    def each_split(self, write: Callable[[str, Path], Facts]) -> None:
        """Run a stage for the interactions of each split: `write(split, folder)`."""
        for split in SPLITS:
            name = f"interactions/{split}"
            self.stages.run(name, [name], partial(write, split))


class Processor(ABC):
    """Raw files -> tables. One file per family; the explicit table is in `__init__`."""

    Options: ClassVar[type[Strict]]
    version: ClassVar[int] = 1  # goes up when the same files would give other tables
    attributes: tuple[str, ...] = ()  # empty: known only once items are read
    default_text: ClassVar[tuple[str, ...]] = ()  # empty: all attributes

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def sources(self, raw: RawFolder) -> Sources:
        """The raw files; problems are noted in `raw`."""

    @abstractmethod
    def process(self, run: Run) -> None:
        """Run the stages: items, users, histories and interactions of each split."""


def number_keys(keys: pa.ChunkedArray | pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Distinct keys in order of their first appearance, and for each row its key's number."""
    if isinstance(keys, pa.ChunkedArray):
        keys = keys.combine_chunks()
    coded = keys.dictionary_encode()
    return coded.dictionary, coded.indices.to_numpy(zero_copy_only=False).astype(np.int32)


def user_columns(
    keys: pa.Array, rows: pa.Table, names: Sequence[str]
) -> tuple[dict[str, pa.Array], int]:
    """Attributes of users by their keys, empty where `rows` lack one, and how many rows are left.

    Args:
        keys: of all users, in the order of their numbers.
        rows: `user` and the attributes; no user stands twice.
        names: the attributes.
    """
    place = pc.index_in(keys, value_set=as_array(rows["user"]))
    columns = {
        name: pc.fill_null(as_array(rows[name].cast(pa.string())).take(place), "") for name in names
    }
    return columns, len(rows) - (len(place) - place.null_count)


def as_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column in one piece."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    combined = column.combine_chunks()
    return combined.chunk(0) if isinstance(combined, pa.ChunkedArray) else combined
