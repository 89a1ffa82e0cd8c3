"""TSV with a row of names on top: one row per line, whether or not its texts are quoted.

The owners of news data sets write it by hand or by a library: then a text that holds quotes stands
in quotes, and they are doubled. Either is read, as long as no text holds a tab or a line end.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from legoray.data.lines import Block, Layout, read_fields
from legoray.errors import InputError, Problem, nearest

# A field in quotes, of whose inner quotes each is doubled, and which has at least one of them.
QUOTED = r'^"(?:[^"]|"")*""(?:[^"]|"")*"$'
_BOM = "\ufeff"


def headed_layout(path: Path, names: Mapping[str, str]) -> tuple[Layout, bool]:
    """How a file's lines are cut into fields, and whether its first line names them.

    Args:
        path: the file.
        names: column of the file -> name of the field, in the order in which the owners write
            them; where the first line does not name them, the fields stand in this order.

    Raises:
        InputError: the first line names some of the columns and lacks another.
    """
    with path.open("rb") as file:
        line = file.readline(1 << 20).decode("utf-8", errors="replace")
    found = [name.strip() for name in line.strip("\r\n").removeprefix(_BOM).split("\t")]
    header = sum(name in names for name in found) > 1
    if not header:
        return Layout(tuple(names.values()), "\t", "tabs"), False
    problems = [_missing(path, name, found) for name in names if name not in found]
    if problems:
        raise InputError(*problems)
    fields = tuple(names.get(name, f"column {place}") for place, name in enumerate(found))
    return Layout(fields, "\t", "tabs"), True


def read_headed(block: Block, layout: Layout, *, header: bool) -> pa.Table:
    """A block's rows with the quotes around fields taken off; see `lines.read_fields`."""
    rows = read_fields(block, layout)
    if header and block.start == 0:
        rows = rows.slice(1)
    for place, name in enumerate(layout.fields):
        rows = rows.set_column(place, name, unquoted(rows[name]))
    return rows


def unquoted(column: pa.ChunkedArray) -> pa.ChunkedArray:
    r"""Texts without the quotes that were put around those that hold quotes.

    >>> unquoted(pa.chunked_array([['"A ""quote"" here"', '"bare" quotes', "none"]])).to_pylist()
    ['A "quote" here', '"bare" quotes', 'none']
    """
    quoted = pc.match_substring_regex(column, QUOTED)
    if not pc.any(quoted).as_py():
        return column
    inner = pc.replace_substring(pc.utf8_slice_codeunits(column, 1, -1), '""', '"')
    return pc.if_else(quoted, inner, column)


def _missing(path: Path, name: str, found: list[str]) -> Problem:
    close = nearest(name, found)
    hint = f"is it '{close}'?" if close else f"its columns: {', '.join(found)[:200]}"
    return Problem(f"{path}:1", f"has no column '{name}'", hint)
