"""A table of keys and texts, as users have them: one row per item or user, in any common format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from legoray.config import FileForm
from legoray.data.badrows import BadRows, repeated
from legoray.data.convert import is_plain, is_text_list, to_key, to_text
from legoray.data.lines import mark
from legoray.data.processors.base import Run
from legoray.data.processors.own_columns import check_names, check_types
from legoray.data.processors.own_options import ItemsTable, UsersTable
from legoray.data.stages import Facts
from legoray.data.tables import write_items
from legoray.data.tabular import BY_ENDING, column_names, read_table
from legoray.errors import InputError, Problem

KEY = "key of the row"  # beside columns with any names


def read_keyed(
    path: Path, key: str, columns: Mapping[str, str], form: FileForm, bad_rows: BadRows
) -> tuple[pa.Array, dict[str, pa.Array]]:
    """The keys of a file's rows, each once, and some columns as texts.

    Args:
        path: the file.
        key: its column with the keys.
        columns: name of the result -> column of the file.
        form: how the file is written.
        bad_rows: what becomes of rows without a key, or with one that stood before.

    Raises:
        InputError: a column is missing or of another type, or rows are bad and not skipped.
    """
    rows = read_table(path, {KEY: key, **columns}, form)
    check_types(rows, path, {KEY: key}, is_plain)
    check_types(rows, path, dict(columns), is_plain, is_text_list)
    rows = rows.set_column(0, KEY, to_key(rows[KEY]))
    rows = mark(rows, pc.is_null(rows[KEY]), f"the {key} is empty", KEY)
    rows = mark(rows, repeated(rows[KEY]), f"{key} '{{value}}' stands twice", KEY)
    rows = bad_rows.good(rows, path)
    return _strings(rows[KEY]), {name: _strings(to_text(rows[name])) for name in columns}


def read_attributes(
    run: Run,
    path: Path,
    table: ItemsTable | UsersTable,
    taken: tuple[str, ...],
    form: FileForm = BY_ENDING,
) -> tuple[pa.Array, dict[str, pa.Array]]:
    """The keys of a table of items or users, and its attributes as texts.

    Raises:
        InputError: a column is missing or has a name of `taken`, or rows are bad and not skipped.
    """
    names = table.attributes
    if names is None:
        names = [name for name in column_names(path, form) if name != table.key]
    check_names(names, path, (*taken, KEY))
    return read_keyed(path, table.key, {name: name for name in names}, form, run.bad_rows)


def write_items_of(run: Run, folder: Path, table: ItemsTable, form: FileForm = BY_ENDING) -> Facts:
    """The stage that writes `items` from the source of this name.

    Raises:
        InputError: as `read_attributes`; or there are no items.
    """
    path = run.sources["items"]
    keys, columns = read_attributes(run, path, table, ("item_id", "key"), form)
    if not len(keys):
        raise InputError(Problem(str(path), "holds no items"))
    facts = write_items(folder, run.engine, keys, columns)
    return facts.model_copy(update={"dropped": run.bad_rows.drain()})


def _strings(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column in one piece, even where it has no chunk."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return pa.concat_arrays(
        [chunk.cast(pa.string()) for chunk in chunks] or [pa.array([], pa.string())]
    )
