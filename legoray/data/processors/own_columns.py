"""Columns of own tables, checked and converted; what is wrong becomes a row's problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from legoray.data.convert import is_key_list, is_plain, is_text_list, to_key, to_number, to_time
from legoray.data.lines import mark
from legoray.data.processors.base import number_keys
from legoray.data.ragged import offsets_of
from legoray.data.tables import Impressions
from legoray.errors import InputError, Problem

LATEST = 32_503_680_000  # seconds at the year 3000: what lies beyond is in milliseconds


def check_names(attributes: list[str], path: Path, taken: Sequence[str]) -> None:
    """Refuse attributes that would stand beside a column of the same name in the tables.

    Args:
        attributes: the columns to keep.
        path: their file.
        taken: names of the tables' own columns.

    Raises:
        InputError: an attribute has such a name, or stands twice.
    """
    for name in attributes:
        if name in taken or attributes.count(name) > 1:
            raise InputError(
                Problem(
                    str(path),
                    f"'{name}' cannot be an attribute: it is the table's own name, or stands twice",
                    "rename the column, or list others in `attributes`",
                )
            )


Fits = Callable[[pa.DataType], bool]


def check_types(rows: pa.Table, path: Path, names: Mapping[str, str], *fits: Fits) -> None:
    """Refuse columns whose type is none of those that fit.

    Args:
        rows: the table.
        path: its file.
        names: column of `rows` -> its name in the file.
        fits: tests of types, one of which must hold.

    Raises:
        InputError: a column holds something else, such as lists where keys are expected.
    """
    wrong = [name for name in names if not any(fit(rows[name].type) for fit in fits)]
    if wrong:
        expected = " or ".join(_NAMES[fit] for fit in fits)
        raise InputError(
            *[
                Problem(
                    str(path),
                    f"the column '{names[name]}' holds {rows[name].type}, expected {expected}",
                )
                for name in wrong
            ]
        )


_NAMES: dict[Fits, str] = {
    is_plain: "texts or numbers",
    is_text_list: "lists of texts",
    is_key_list: "lists of keys",
}


def replace_column(rows: pa.Table, name: str, values: Any) -> pa.Table:
    at = rows.schema.get_field_index(name)
    return rows.append_column(name, values) if at < 0 else rows.set_column(at, name, values)


def keyed(rows: pa.Table, names: dict[str, str]) -> pa.Table:
    for name, original in names.items():
        key = to_key(rows[name])
        rows = mark(
            replace_column(rows, name, key), pc.is_null(key), f"the {original} is empty", name
        )
    return rows


def timed(rows: pa.Table, original: str) -> pa.Table:
    time = to_time(rows["time"])
    expected = "expected seconds since 1970 or ISO 8601 such as 2019-11-13 08:36:57"
    rows = mark(rows, pc.is_null(time), f"the {original} is '{{value}}', {expected}", "time")
    rows = mark(rows, pc.less(time, 0), f"the {original} is '{{value}}', which lies before 1970",
                "time")  # fmt: skip
    rows = mark(rows, pc.greater(time, LATEST), f"the {original} is '{{value}}', which lies beyond "
                "the year 3000: is it in milliseconds? seconds are expected", "time")  # fmt: skip
    return replace_column(rows, "time", time)


def labelled(rows: pa.Table, original: str) -> pa.Table:
    number = to_number(rows["label"])
    fine = pc.fill_null(pc.or_(pc.equal(number, 0), pc.equal(number, 1)), False)
    rows = mark(rows, pc.invert(fine), f"the {original} is '{{value}}', expected 0 or 1", "label")
    label = pc.if_else(fine, number, 0).cast(pa.int8())
    return replace_column(rows, "label", label)


def numbered(rows: pa.Table, keys: pa.Array) -> tuple[pa.Table, int]:
    """The rows of known items with `item` as number, and how many were unknown."""
    index = pc.index_in(rows["item"], value_set=keys)
    known = pc.is_valid(index)
    rows = replace_column(rows, "item", pc.add(index, 1)).filter(known)
    return rows, len(index) - len(rows)


def distinct(rows: pa.Table, names: list[str], *, first: str = "") -> tuple[pa.Table, int]:
    """The rows without those that say the same again, and how many these were.

    Args:
        rows: in any order, which stays.
        names: columns that are the same where rows are.
        first: a column; of the same rows the one with its greatest value is kept, else the first.
    """
    codes = [number_keys(rows[name].cast(pa.string()))[1] for name in names]
    rank = [-pc.fill_null(rows[first], 0).to_numpy().astype(np.int64)] if first else []
    order = np.lexsort((*rank, *codes))
    new = np.zeros(len(rows), bool)
    new[:1] = True
    for code in codes:
        new[1:] |= np.diff(code[order]) != 0
    kept = np.zeros(len(rows), bool)
    kept[order[new]] = True
    return rows.filter(pa.array(kept)), int((~kept).sum())


def changes(group: pa.ChunkedArray, value: pa.ChunkedArray) -> pa.Array:
    """True for each row whose value differs from that of its group's first row."""
    _, code = number_keys(pc.fill_null(group, ""))
    _, content = number_keys(pc.fill_null(value.cast(pa.string()), ""))
    _, first = np.unique(code, return_index=True)
    return pa.array(content != content[first[code]])


def lengths_of(lists: pa.Array) -> np.ndarray:
    return pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)


def impressions_of(rows: pa.Table, ends: Any, *, labeled: bool) -> Impressions:
    names, code = number_keys(rows["impression"])
    order = np.argsort(code, kind="stable")
    counts = np.bincount(code, minlength=len(names))
    offsets = offsets_of(counts)
    first = order[offsets[:-1]]
    user = rows["user"].to_numpy()[first]
    time = (
        rows["time"].to_numpy()[first] if "time" in rows.column_names else np.full(len(first), -1)
    )
    integers = pc.all(pc.match_substring_regex(names, r"^\d{1,18}$")).as_py()
    numbers = names.cast(pa.int64()).to_numpy() if integers else np.arange(len(names))
    label = pc.fill_null(rows["label"], 0).to_numpy().astype(np.int8)
    return Impressions(
        id=numbers.astype(np.int64),
        history=user.astype(np.int32),
        end=ends(user, time).astype(np.int32),
        time=time.astype(np.int64),
        offsets=offsets,
        item=rows["item"].to_numpy()[order].astype(np.int32),
        label=label[order],
        labeled=labeled,
    )
