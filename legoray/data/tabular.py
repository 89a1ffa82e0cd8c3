"""Tables with named columns (CSV, TSV, JSON lines, Parquet), read whole.

Whatever the format, a column comes out as strings, numbers, times or lists, and every row keeps the
number of its line, so that a bad one can be named.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq
import pyarrow.types as pt
from numpy.typing import NDArray

from legoray.config import FileForm
from legoray.data.lines import BLOCK, LINE, PLACE, PROBLEM, Layout
from legoray.errors import InputError, Problem, nearest

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
            ".parquet": "parquet"}  # fmt: skip
BY_ENDING = FileForm()
FORMATS = ".csv, .tsv, .jsonl, .ndjson or .parquet"


def read_table(
    path: Path, columns: dict[str, str] | None = None, form: FileForm = BY_ENDING
) -> pa.Table:
    """A file's columns under new names, and the columns of `lines.PLACE`.

    Args:
        path: the file.
        columns: new name -> name in the file; all columns under their own names if not given.
        form: what the file is, where its ending does not say so.

    Raises:
        InputError: a column is missing, or the file as a whole cannot be read.
    """
    table = _reader(path, form)(path)
    if columns is None:
        return table
    own = [name for name in table.column_names if name not in PLACE]
    missing = [name for name in columns.values() if name not in own]
    if missing:
        raise InputError(*[_missing(path, name, own) for name in missing])
    place = {name: table[name] for name in PLACE}
    return pa.table({**{new: table[old] for new, old in columns.items()}, **place})


def column_names(path: Path, form: FileForm = BY_ENDING) -> list[str]:
    """The names of a file's columns, without reading its rows where the format allows."""
    kind = _kind(path, form)
    if kind == "parquet":
        return _parquet(path, lambda: pq.read_schema(path).names)
    if kind == "csv":
        return csv_header(path, _separator(path, form))
    return [name for name in read_table(path, form=form).column_names if name not in PLACE]


def csv_header(path: Path, separator: str) -> list[str]:
    """The names in a file's first line.

    Raises:
        InputError: the line is not text, or holds a name twice or none.
    """
    with path.open("rb") as file:
        line = file.readline()
    try:
        names = next(csv.reader([line.decode("utf-8-sig")], delimiter=separator), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(Problem(f"{path}:1", f"is not a UTF-8 header line: {error}")) from None
    if not any(names) or len(set(names)) < len(names):
        raise InputError(
            Problem(f"{path}:1", f"the header names no columns, or one twice: {names}")
        )
    return names


def header_layout(path: Path, names: Mapping[str, str], separator: str, told: str) -> Layout:
    """How the lines of a file without quotes are cut, in the order that its header gives.

    Args:
        path: the file.
        names: name in the header -> name of the field; other columns keep their names.
        separator: between fields.
        told: what the separator is called.

    Raises:
        InputError: a column is missing, or the first line is no header.
    """
    own = csv_header(path, separator)
    missing = [name for name in names if name not in own]
    if missing:
        raise InputError(*[_missing(path, name, own) for name in missing])
    return Layout(tuple(names.get(name, name) for name in own), separator, told)


def _missing(path: Path, name: str, own: list[str]) -> Problem:
    close = nearest(name, own)
    between = [c for c in "\t;|," if len(own) == 1 and c in own[0]]
    hint = f"is it '{close}'?" if close else f"its columns: {', '.join(own)}"
    if between:
        told = json.dumps(between[0])
        hint = f"its only column is {own[0]!r}: if {told} separates them, say `separator: {told}`"
    return Problem(str(path), f"has no column '{name}'", hint)


def _reader(path: Path, form: FileForm) -> Callable[[Path], pa.Table]:
    kind = _kind(path, form)
    if kind == "csv":
        return lambda p: _read_csv(p, _separator(path, form))
    if kind == "jsonl":
        return _read_json
    if kind == "parquet":
        return lambda p: _placed(_parquet(p, lambda: pq.read_table(p)))
    message = f"has the ending '{path.suffix.lower()}'"
    raise InputError(Problem(str(path), message, f"expected {FORMATS}, or say its `format`"))


def _kind(path: Path, form: FileForm) -> str | None:
    return form.format or ("csv" if form.separator else _FORMATS.get(path.suffix.lower()))


def _separator(path: Path, form: FileForm) -> str:
    return form.separator or _SEPARATORS.get(path.suffix.lower(), ",")


def _placed(table: pa.Table, line: NDArray[Any] | None = None) -> pa.Table:
    """The table with `PLACE`: lines count from 0 in the file."""
    line = np.arange(len(table)) if line is None else line
    place = {
        BLOCK: pa.array(np.zeros(len(table), np.int64)),
        LINE: pa.array(line.astype(np.int64)),
        PROBLEM: pa.nulls(len(table), pa.string()),
    }
    for name, values in place.items():
        table = table.append_column(name, values)
    return table


def _parquet(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(Problem(str(path), f"is not a whole Parquet file: {reason}")) from None


def _read_csv(path: Path, separator: str) -> pa.Table:
    """Quoted fields may hold separators and line ends. Rows of a wrong length become problems."""
    names = csv_header(path, separator)
    wrong: list[Any] = []

    def note(row: Any) -> str:
        wrong.append(row)
        return "skip"

    try:
        table = pacsv.read_csv(
            path,
            # In parallel the reader does not know the numbers of invalid rows.
            read_options=pacsv.ReadOptions(use_threads=False, block_size=16 << 20),
            parse_options=pacsv.ParseOptions(
                delimiter=separator,
                newlines_in_values=True,
                ignore_empty_lines=False,
                invalid_row_handler=note,
            ),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.binary()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        raise InputError(Problem(str(path), f"is not CSV: {str(error).splitlines()[0]}")) from None
    return _csv_rows(table, names, wrong)


def _csv_rows(table: pa.Table, names: list[str], wrong: list[Any]) -> pa.Table:
    """Texts, true line numbers, and problems in place of the rows that could not be split."""
    broken = np.array([row.number for row in wrong], np.int64)  # 1 is the header
    rows = np.setdiff1d(np.arange(2, len(table) + len(wrong) + 2), broken)
    extra = np.zeros(len(table) + len(wrong) + 2, np.int64)
    extra[rows] = sum(pc.count_substring(table[n], "\n").to_numpy() for n in names)
    extra[broken] = [row.text.count("\n") for row in wrong]
    line = np.arange(len(extra)) - 1 + np.append(0, np.cumsum(extra)[:-1])
    texts, undecodable = _decoded(table, names)
    placed = _placed(pa.table(texts), line[rows])
    if undecodable.any():
        problem = pc.if_else(
            pa.array(undecodable), "is not UTF-8 text", pa.scalar(None, pa.string())
        )
        placed = placed.drop_columns([PROBLEM]).append_column(PROBLEM, problem)
    blank = np.logical_and.reduce([pc.equal(placed[n], "").to_numpy() for n in names])
    placed = placed.filter(pa.array(~blank | undecodable))
    return pa.concat_tables([placed, _broken_rows(placed.schema, wrong, line)])


def _broken_rows(schema: pa.Schema, wrong: list[Any], line: NDArray[np.int64]) -> pa.Table:
    rows = [
        {
            BLOCK: 0,
            LINE: int(line[row.number]),
            PROBLEM: f"has {row.actual_columns} fields, the header has {row.expected_columns}",
        }
        for row in wrong
    ]
    return pa.Table.from_pylist(rows, schema=schema)


def _decoded(table: pa.Table, names: list[str]) -> tuple[dict[str, Any], NDArray[np.bool_]]:
    texts, undecodable = {}, np.zeros(len(table), bool)
    for name in names:
        try:
            texts[name] = table[name].cast(pa.string())
        except pa.ArrowInvalid:
            values = table[name].to_pylist()
            fixed = [value.decode("utf-8", errors="replace") for value in values]
            undecodable |= np.array([b.encode() != a for a, b in zip(values, fixed, strict=True)])
            texts[name] = pa.chunked_array([pa.array(fixed)])
    return texts, undecodable


def _read_json(path: Path) -> pa.Table:
    """JSON lines: fast where all is well, line by line where something is not."""
    options = pajson.ParseOptions(newlines_in_values=False)
    try:
        table = pajson.read_json(path, parse_options=options)
        as_text = _times_as_text(table.schema)
        if as_text != table.schema:  # what looks like a time may be a title or a key
            options = pajson.ParseOptions(newlines_in_values=False, explicit_schema=as_text)
            table = pajson.read_json(path, parse_options=options)
        table.validate(full=True)  # what is not UTF-8 is read as if it were
    except pa.ArrowInvalid:
        return _read_json_slowly(path)
    data = np.frombuffer(path.read_bytes(), np.uint8)
    ends = np.append(np.flatnonzero(data == 10), len(data))
    lengths = np.diff(np.append(-1, ends)) - 1
    line = np.flatnonzero(lengths > 1)
    return _placed(table, line if len(line) == len(table) else None)


def _times_as_text(schema: pa.Schema) -> pa.Schema:
    """The schema with strings in place of the times that Arrow took them for."""

    def plain(kind: pa.DataType) -> pa.DataType:
        if pt.is_list(kind):
            return pa.list_(plain(kind.value_type))
        return pa.string() if pt.is_temporal(kind) else kind

    return pa.schema([(field.name, plain(field.type)) for field in schema])


def _read_json_slowly(path: Path) -> pa.Table:
    """Each line by itself: bad ones become problems, values that differ in type become text."""
    rows: list[dict[str, Any]] = []
    line: list[int] = []
    problems: list[str | None] = []
    with path.open("rb") as file:
        for number, raw in enumerate(file):
            if raw.strip():
                row, problem = _json_row(raw)
                rows.append(row)
                line.append(number)
                problems.append(problem)
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not names:
        raise InputError(Problem(f"{path}:1", (problems or [None])[0] or "holds no rows"))
    columns = {name: _json_column([row.get(name) for row in rows]) for name in names}
    placed = _placed(pa.table(columns), np.array(line))
    return placed.drop_columns([PROBLEM]).append_column(PROBLEM, pa.array(problems, pa.string()))


def _json_row(raw: bytes) -> tuple[dict[str, Any], str | None]:
    try:
        row = json.loads(raw, parse_constant=lambda name: None)  # NaN is no value
    except UnicodeDecodeError:
        return {}, "is not UTF-8 text"
    except json.JSONDecodeError as error:
        return {}, f"is not JSON: {error.msg} at column {error.colno}"
    return (row, None) if isinstance(row, dict) else ({}, "is not a JSON object {...}")


def _json_column(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        if any(isinstance(value, list) for value in values):
            lists = [[str(x) for x in v] if isinstance(v, list) else None for v in values]
            return pa.array(lists, pa.list_(pa.string()))
        return pa.array([None if v is None else str(v) for v in values], pa.string())
