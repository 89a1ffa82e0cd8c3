"""Lines of JSON (or of Python literals) as columns of a given schema.

A block goes through Arrow's JSON reader as a whole. Where that refuses it, the block is read line
by line, and only the lines that are at fault become problems.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pajson
import pyarrow.types as pt
from numpy.typing import NDArray

from legoray.data.convert import NUMBER
from legoray.data.lines import BLOCK, LINE, PROBLEM, mark
from legoray.data.stream import Parse, TextBlock, text_blocks
from legoray.errors import InputError, Problem, nearest

Form = Literal["json", "python", "either"]  # `either`: JSON where it is, else a Python literal
Row = dict[str, Any]

LOOKED_AT = 100  # lines, to find out whether the file is another than it should be
_OPTIONS: dict[str, Any] = {"newlines_in_values": False, "unexpected_field_behavior": "ignore"}
_ENDS_OF_OBJECTS = np.frombuffer(b"{}", np.uint8)


class _UnfitError(Exception):
    """A value that is not of its column's type."""


def read_records(
    block: TextBlock, *, schema: pa.Schema, required: Sequence[str] = (), form: Form = "json"
) -> pa.Table:
    """The block's objects, one per line, and the columns of `lines.PLACE`.

    Keys that are not in the schema are passed over; one that is absent or null gives null. Whole
    numbers may stand for others and numbers for texts; a text may stand for a number that it
    writes, or for a list of one text. Blank lines are no rows.

    Python literals take a loop over lines: 36 thousand of 280 bytes a second on one core, where
    JSON makes 900 thousand on two.

    Args:
        block: whole lines.
        schema: names and types; texts, numbers, truth values, and lists and structs of them.
        required: the keys of which a row must have a value: an empty text is none.
        form: how a line is written.
    """
    rows = _fast(block, schema) if form != "python" else None
    if rows is None:
        rows = _slow(block, schema, form)
    for name in required:
        rows = mark(rows, _absent(rows[name]), f"has no value of '{name}'", name)
    return rows


def records(path: Path, schema: pa.Schema, required: Sequence[str], form: Form = "json") -> Parse:
    """`read_records` for the blocks of a file of which the first lines have been looked at.

    Raises:
        InputError: none of them has a key of `required`: the file is another than it should be.
    """
    check_keys(path, required, form)
    return partial(read_records, schema=schema, required=tuple(required), form=form)


def _absent(column: pa.ChunkedArray) -> pa.ChunkedArray:
    missing = pc.is_null(column, nan_is_null=True)
    if pt.is_string(column.type):
        return pc.or_(missing, pc.equal(pc.fill_null(column, ""), ""))
    return missing


def check_keys(path: Path, required: Sequence[str], form: Form = "json") -> None:
    """See whether the first lines of a file have these keys at all.

    Raises:
        InputError: none of the lines that can be read has one of them.
    """
    first = next(text_blocks(path, 1 << 20))
    lines = islice((line for line in first.data.split(b"\n") if line.strip()), LOOKED_AT)
    rows = [row for row, problem in (_PARSERS[form](line) for line in lines) if not problem]
    keys = list(dict.fromkeys(str(key) for row in rows for key in row))
    missing = [name for name in required if name not in keys] if rows else []
    if missing:
        raise InputError(*[_no_key(path, name, keys) for name in missing])


def _no_key(path: Path, name: str, keys: list[str]) -> Problem:
    close = nearest(name, keys)
    hint = f"is it '{close}'?" if close else f"its keys: {', '.join(keys)}"
    return Problem(str(path), f"has no key '{name}'", hint)


def _fast(block: TextBlock, schema: pa.Schema) -> pa.Table | None:
    """The rows if all of the block is as it should be."""
    lines = _lines_of_objects(block.data)
    if lines is None or not _is_utf8(block.data):
        return None
    if not len(lines):
        return _placed(schema.empty_table(), block, lines)
    try:
        table = pajson.read_json(
            pa.BufferReader(block.data),
            read_options=pajson.ReadOptions(use_threads=False, block_size=len(block.data) + 1),
            parse_options=pajson.ParseOptions(explicit_schema=schema, **_OPTIONS),
        )
    except pa.ArrowInvalid:
        return None
    if len(table) != len(lines):
        return None
    columns = [_without_nan(table[name]) for name in schema.names]
    return _placed(pa.table(columns, schema=schema), block, lines)


def _without_nan(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pt.is_floating(column.type):
        return column
    return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)


def _lines_of_objects(data: bytes) -> NDArray[np.int64] | None:
    """The numbers of the lines that are not blank, if each begins with `{` and ends with `}`.

    Arrow takes two objects on a line, or one on two lines, for what they are: with this, the number
    of its rows tells whether there were such.
    """
    text = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(text == 10)
    if not data.endswith(b"\n"):
        ends = np.append(ends, len(data))
    starts = np.append(0, ends + 1)[: len(ends)]
    ends = ends - (text[np.maximum(ends - 1, 0)] == 13)
    filled = np.flatnonzero(ends > starts)
    if not len(filled):
        return filled
    edges = text[np.stack([starts[filled], ends[filled] - 1])]
    return filled if (edges == _ENDS_OF_OBJECTS[:, None]).all() else None


def _is_utf8(data: bytes) -> bool:
    try:
        pa.array([data], pa.large_binary()).cast(pa.large_string())
    except pa.ArrowInvalid:
        return False
    return True


def _placed(
    table: pa.Table,
    block: TextBlock,
    lines: NDArray[np.int64],
    problems: list[str | None] | None = None,
) -> pa.Table:
    if problems is None:
        problem = pa.nulls(len(lines), pa.string())
    else:
        problem = pa.array(problems, pa.string())
    place = (pa.array(np.zeros(len(lines), np.int64)), pa.array(lines + block.line), problem)
    for name, values in zip((BLOCK, LINE, PROBLEM), place, strict=True):
        table = table.append_column(name, values)
    return table


def _slow(block: TextBlock, schema: pa.Schema, form: Form) -> pa.Table:
    """Each line by itself."""
    rows: list[Row] = []
    lines: list[int] = []
    problems: list[str | None] = []
    for number, raw in enumerate(block.data.split(b"\n")):
        if raw.strip():
            row, problem = _PARSERS[form](raw)
            rows.append(row)
            lines.append(number)
            problems.append(problem or None)
    columns = [_column(rows, field, problems) for field in schema]
    return _placed(pa.table(columns, schema=schema), block, np.array(lines, np.int64), problems)


def _column(rows: list[Row], field: pa.Field, problems: list[str | None]) -> pa.Array:
    """One key of all rows; notes a problem where a value does not fit."""
    values: list[Any] = [None] * len(rows)
    for at, row in enumerate(rows):
        try:
            values[at] = _fitted(row.get(field.name), field.type)
        except _UnfitError:
            told = f"its '{field.name}' is {row[field.name]!r:.60}, expected {_name(field.type)}"
            problems[at] = problems[at] or told
    return pa.array(values, field.type)


def _json(raw: bytes) -> tuple[Row, str]:
    try:
        return _object(json.loads(raw.decode("utf-8")))
    except UnicodeDecodeError:
        return {}, "is not UTF-8 text"
    except json.JSONDecodeError as error:
        return {}, f"is not JSON: {error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:  # digits without end, brackets without end
        return {}, f"is not JSON that can be read: {str(error).splitlines()[0]}"


def _python(raw: bytes) -> tuple[Row, str]:
    """Steam and Amazon 2014 wrote `str` of Python's dictionaries. Nothing is ever evaluated."""
    try:
        return _object(ast.literal_eval(raw.decode("utf-8").strip()))
    except UnicodeDecodeError:
        return {}, "is not UTF-8 text"
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return {}, f"is not a Python literal: {reason}"


def _either(raw: bytes) -> tuple[Row, str]:
    row, problem = _json(raw)
    if not problem or not problem.startswith("is not JSON"):
        return row, problem
    row, unread = _python(raw)
    return row, problem if unread else ""


_PARSERS: dict[Form, Callable[[bytes], tuple[Row, str]]] = {
    "json": _json, "python": _python, "either": _either,
}  # fmt: skip


def _object(value: Any) -> tuple[Row, str]:
    return (value, "") if isinstance(value, dict) else ({}, "is not an object {...}")


def _fitted(value: Any, kind: pa.DataType) -> Any:
    """A value as one of the column's type; None and NaN are no value."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if pt.is_string(kind):
        return _text(value)
    if pt.is_list(kind):
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list | tuple):
            raise _UnfitError
        return [_fitted(one, kind.value_type) for one in value]
    if pt.is_struct(kind):
        if not isinstance(value, dict):
            raise _UnfitError
        return {field.name: _fitted(value.get(field.name), field.type) for field in kind}
    if pt.is_boolean(kind):
        if not isinstance(value, bool):
            raise _UnfitError
        return value
    return _number(value, whole=pt.is_integer(kind))


def _text(value: Any) -> str:
    if isinstance(value, str):
        # Half of a surrogate pair, which JSON may escape, is no character.
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _UnfitError
    return str(value)


def _number(value: Any, *, whole: bool) -> float | int:
    if isinstance(value, str) and re.fullmatch(NUMBER, value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _UnfitError
    if not whole:
        return float(value) if abs(value) < 1e300 else math.inf
    if value != value // 1 or abs(value) >= 1 << 63:
        raise _UnfitError
    return int(value)


def _name(kind: pa.DataType) -> str:
    if pt.is_list(kind):
        return f"a list, each {_name(kind.value_type)}"
    if pt.is_struct(kind):
        return "an object {...}"
    if pt.is_boolean(kind):
        return "true or false"
    if pt.is_string(kind):
        return "a text"
    return "a whole number" if pt.is_integer(kind) else "a number"
