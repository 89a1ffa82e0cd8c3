"""The texts of items, as families with long ones hand them on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from legoray.data.badrows import repeated
from legoray.data.cleaning import whole_column
from legoray.data.lines import PLACE
from legoray.data.processors.base import Run, as_array
from legoray.data.processors.feedback import Attributes
from legoray.data.stream import Parse, TextBlock


def place_of(rows: pa.Table) -> dict[str, pa.ChunkedArray]:
    """The columns that say where a row stood, to go with new ones."""
    return {name: rows[name] for name in PLACE}


def shortened(parse: Parse, names: Sequence[str], longest: int) -> Parse:
    """`parse` with its texts cut to their first characters; `cut/<name>` says which were.

    This is done block by block, so that whole books are never in memory together.
    """
    return partial(_shortened, parse=parse, names=names, longest=longest)


def _shortened(block: TextBlock, *, parse: Parse, names: Sequence[str], longest: int) -> pa.Table:
    rows = parse(block)
    for name in names:
        long = pc.greater(pc.utf8_length(rows[name]), longest)
        cut = pc.utf8_rtrim_whitespace(pc.utf8_slice_codeunits(rows[name], 0, longest))
        rows = rows.set_column(rows.schema.get_field_index(name), name, cut)
        rows = rows.append_column(f"cut/{name}", long)
    return rows


def left_out(run: Run, what: str, which: pa.Array | pa.ChunkedArray) -> None:
    """Count the rows where `which` is true, by what they lack."""
    count = pc.sum(which).as_py() or 0
    if count:
        run.bad_rows.add({what: count})


def without_repeats(run: Run, rows: pa.Table) -> pa.Table:
    """The first row of each `key`, where the owners' files are known to repeat some."""
    again = repeated(rows["key"])
    left_out(run, "items_given_again", again)
    return rows.filter(pc.invert(again))


def counted_texts(run: Run, rows: pa.Table, names: tuple[str, ...]) -> tuple[pa.Array, Attributes]:
    """Keys and attributes of items; what was left out of their texts is counted.

    Args:
        run: takes the counts: of each column of truth values, under its own name.
        rows: `key`, the attributes, and any columns of truth values.
        names: the attributes.

    Raises:
        InputError: all texts of an attribute together are longer than a column may be.
    """
    for name in rows.column_names:
        if pa.types.is_boolean(rows[name].type):
            left_out(run, name, rows[name])
    advice = "set a lower `longest` of the options"
    texts: Attributes = {name: whole_column(rows, name, advice) for name in names}
    return as_array(rows["key"]), texts
