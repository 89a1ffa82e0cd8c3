"""The texts of items, as families with long ones hand them on."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from legoray.data.cleaning import whole_column
from legoray.data.lines import PLACE
from legoray.data.processors.base import Run, as_array
from legoray.data.processors.feedback import Attributes


def place_of(rows: pa.Table) -> dict[str, pa.ChunkedArray]:
    """The columns that say where a row stood, to go with new ones."""
    return {name: rows[name] for name in PLACE}


def kept_texts(
    run: Run, rows: pa.Table, names: tuple[str, ...], longest: int
) -> tuple[pa.Array, Attributes]:
    """Keys and attributes of items, each text cut to its first characters.

    What was left out is counted: `cut/<attribute>` texts that were longer, items without their main
    text, and each column of truth values that stands beside the attributes, under its own name.

    Args:
        run: takes the counts.
        rows: `key`, the attributes, and any columns of truth values.
        names: the attributes, the main text first.
        longest: characters of a text that are kept.

    Raises:
        InputError: all texts of an attribute together are longer than a column may be.
    """
    for name in rows.column_names:
        if pa.types.is_boolean(rows[name].type):
            run.bad_rows.note(name, pc.sum(rows[name]).as_py() or 0)
    texts: Attributes = {}
    for name in names:
        long = pc.greater(pc.utf8_length(rows[name]), longest)
        run.bad_rows.note(f"cut/{name}", pc.sum(long).as_py() or 0)
        cut = pc.utf8_rtrim_whitespace(pc.utf8_slice_codeunits(rows[name], 0, longest))
        rows = rows.set_column(rows.schema.get_field_index(name), name, cut)
        texts[name] = whole_column(rows, name, "set a lower `longest` of the options")
    without = pc.sum(pc.equal(texts[names[0]], "")).as_py() or 0
    run.bad_rows.note(f"items_without_a_{names[0]}", without)
    return as_array(rows["key"]), texts
