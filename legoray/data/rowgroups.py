"""Big Parquet files, read in blocks: by row groups, or by batches where the row groups are huge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from legoray.data.engine import Engine
from legoray.data.lines import BLOCK, LINE, PROBLEM, Block
from legoray.errors import InputError, Problem, nearest

HUGE = 1 << 20  # rows of a row group from which on it is read in batches, one after another
BATCH = 1 << 17  # rows

Accept = Callable[[pa.DataType], bool]
Parse = Callable[[pa.Table], pa.Table]


def open_parquet(path: Path) -> pq.ParquetFile:
    """A Parquet file's metadata.

    Raises:
        InputError: it is none, or not whole.
    """
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(Problem(str(path), f"is not a whole Parquet file: {reason}")) from None


def check_columns(path: Path, wanted: Mapping[str, tuple[Accept, str]]) -> None:
    """Refuse a file that lacks a column, or has one of another type.

    Args:
        path: the file.
        wanted: column -> whether a type will do, and what it should be, in words.

    Raises:
        InputError: all that is wrong with the columns, or the file cannot be read.
    """
    schema = open_parquet(path).schema_arrow
    problems = []
    for name, (accept, told) in wanted.items():
        if name not in schema.names:
            close = nearest(name, schema.names)
            hint = f"is it '{close}'?" if close else f"its columns: {', '.join(schema.names)}"
            problems.append(Problem(str(path), f"has no column '{name}'", hint))
        elif not accept(schema.field(name).type):
            message = f"its column '{name}' is {schema.field(name).type}, expected {told}"
            problems.append(Problem(str(path), message))
    if problems:
        raise InputError(*problems)


def read_rows(
    engine: Engine, path: Path, columns: list[str], parse: Parse, *, batch: int = BATCH
) -> Iterator[pa.Table]:
    """`parse` of some columns of a file, piece by piece, in order.

    Each piece has the columns of `lines.PLACE` too. Row groups are spread by the engine; where one
    is huge, the file is read here in batches, so that no more than a batch is in memory.

    Args:
        engine: where.
        path: the file.
        columns: which are read; those that the file lacks are left out.
        parse: must pickle.
        batch: rows at a time, where row groups are huge.

    Raises:
        InputError: the file is damaged.
    """
    file = open_parquet(path)
    groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    present = [name for name in columns if name in file.schema_arrow.names]
    if max(groups, default=0) > min(HUGE, 8 * batch):
        yield from _batches(file, path, present, parse, batch)
        return
    starts = np.cumsum([0, *groups]).tolist()
    blocks = [Block(str(path), group, starts[group]) for group in range(len(groups))]
    yield from engine.map(partial(_row_group, columns=present, parse=parse), blocks)


def _row_group(block: Block, columns: list[str], parse: Parse) -> pa.Table:
    """Row group number `start` of a file, whose first row is number `end`."""
    path = Path(block.path)
    try:
        table = open_parquet(path).read_row_group(block.start, columns=columns, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None
    return parse(_placed(table, block.end))


def _batches(
    file: pq.ParquetFile, path: Path, columns: list[str], parse: Parse, size: int
) -> Iterator[pa.Table]:
    batches, row = file.iter_batches(size, columns=columns), 0
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from None
        if batch is None:
            return
        yield parse(_placed(pa.Table.from_batches([batch]), row))
        row += len(batch)


def _damaged(path: Path, error: Exception) -> InputError:
    reason = str(error).splitlines()[0]
    return InputError(Problem(str(path), f"is a damaged Parquet file: {reason}"))


def _placed(table: pa.Table, row: int) -> pa.Table:
    """The table with `PLACE`; `row` is its first row's number in the file, from 0."""
    place: dict[str, Any] = {
        BLOCK: pa.array(np.zeros(len(table), np.int64)),
        LINE: pa.array(np.arange(row, row + len(table), dtype=np.int64)),
        PROBLEM: pa.nulls(len(table), pa.string()),
    }
    for name, values in place.items():
        table = table.append_column(name, values)
    return table
