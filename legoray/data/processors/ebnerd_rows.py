"""Rows of EB-NeRD's behaviors.parquet and history.parquet, parsed by whole-array operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from numpy.typing import NDArray

from legoray.data.badrows import repeated
from legoray.data.convert import to_key
from legoray.data.impressions import numbered
from legoray.data.keyindex import KeyIndex
from legoray.data.lines import PLACE, mark
from legoray.data.processors.base import as_array
from legoray.data.ragged import Int64, keep, list_array, offsets_of, rows_of
from legoray.data.rowgroups import Accept

UNKNOWN_TIME = -1


def is_id(kind: pa.DataType) -> bool:
    """Whether values of this type are numbers that can be ids (a column with gaps is floating)."""
    return bool(pt.is_integer(kind) or pt.is_floating(kind))


def is_id_list(kind: pa.DataType) -> bool:
    """Whether values of this type are lists of ids."""
    return _is_list(kind) and (is_id(kind.value_type) or pt.is_null(kind.value_type))


def is_time_list(kind: pa.DataType) -> bool:
    """Whether values of this type are lists of times."""
    return _is_list(kind) and (pt.is_timestamp(kind.value_type) or pt.is_null(kind.value_type))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pt.is_list(kind) or pt.is_large_list(kind))


_ID = (is_id, "whole numbers")
_IDS = (is_id_list, "lists of whole numbers")
LOG_COLUMNS: dict[str, tuple[Accept, str]] = {
    "impression_id": _ID,
    "user_id": _ID,
    "impression_time": (pt.is_timestamp, "times"),
    "article_ids_inview": _IDS,
}
LABELS: dict[str, tuple[Accept, str]] = {"article_ids_clicked": _IDS}
ASIDE: dict[str, tuple[Accept, str]] = {"is_beyond_accuracy": (pt.is_boolean, "true or false")}
HISTORY_COLUMNS: dict[str, tuple[Accept, str]] = {
    "user_id": _ID,
    "article_id_fixed": _IDS,
    "impression_time_fixed": (is_time_list, "lists of times"),
}
PROFILE = ("gender", "postcode", "age")


def parse_behaviors(rows: pa.Table, keys: KeyIndex, *, labeled: bool) -> pa.Table:
    """Impressions with items as numbers; articles that are not described are taken out.

    Args:
        rows: of behaviors.parquet.
        keys: of the items' ids `[N]` (int64).
        labeled: whether the file says what was clicked.
    """
    rows = _checked(rows, "impression_time")
    number = _whole(as_array(rows["impression_id"]))
    rows = mark(rows, number.is_null(), "the impression_id is missing", "user")
    rows, offsets, values = _filled(rows, "article_ids_inview")
    rows = mark(rows, pa.array(np.diff(offsets) == 0), "no article was in view", "user")
    items, unknown, known = numbered(offsets, values, keys)
    labels = np.zeros(len(values), np.int8)
    again = outside = np.zeros(len(rows), np.int64)
    if labeled:
        rows, of_clicks, clicks = _filled(rows, "article_ids_clicked")
        labels, again, outside = _labels(offsets, values, of_clicks, clicks)
    beyond = pa.array(np.zeros(len(rows), bool))
    if "is_beyond_accuracy" in rows.column_names:
        beyond = pc.fill_null(rows["is_beyond_accuracy"], False)
    columns = {
        "impression": number,
        "user": rows["user"],
        "time": rows["time"],
        "items": items,
        "labels": pa.ListArray.from_arrays(items.offsets, labels[known]),
        "unknown_history": pa.array(np.zeros(len(rows), np.int64)),
        "unknown_candidates": unknown,
        "again": pa.array(again),
        "outside": pa.array(outside),
        "beyond": beyond,
    }
    return pa.table({**columns, **_profile(rows), **{name: rows[name] for name in PLACE}})


def parse_history(rows: pa.Table, keys: KeyIndex) -> pa.Table:
    """Histories in order of time, with items as numbers; what has no id or time is taken out.

    Args:
        rows: of history.parquet.
        keys: of the items' ids `[N]` (int64).
    """
    rows = _checked(rows, "")
    offsets, ids = id_lists(rows["article_id_fixed"])
    others, times = _time_lists(rows["impression_time_fixed"])
    uneven = np.diff(offsets) != np.diff(others)
    message = "user '{value}' has another number of article_id_fixed than of impression_time_fixed"
    rows = mark(rows, pa.array(uneven), message, "user")
    rows = mark(rows, repeated(rows["user"]), "user '{value}' stands twice", "user")
    if uneven.any():  # such rows go; until then they are empty
        offsets, ids = _emptied(offsets, ids, uneven)
        others, times = _emptied(others, times, uneven)
    seconds = pc.fill_null(times, UNKNOWN_TIME).to_numpy(zero_copy_only=False)
    timed = ids.is_valid().to_numpy(zero_copy_only=False) & (seconds >= 0)
    kept = keep(offsets, timed)
    items, unknown, known = numbered(kept, ids.filter(pa.array(timed)), keys)
    ends = items.offsets.to_numpy().astype(np.int64)
    seconds = seconds[timed][known]
    order = np.lexsort((seconds, rows_of(ends)))
    columns = {
        "user": rows["user"],
        "items": list_array(ends, items.values.to_numpy()[order]),
        "times": list_array(ends, seconds[order]),
        "without": pa.array(np.diff(offsets) - np.diff(kept)),
        "unknown": unknown,
    }
    return pa.table({**columns, **{name: rows[name] for name in PLACE}})


def parse_ids(rows: pa.Table) -> pa.Table:
    """The distinct ids in the lists of some columns."""
    lists = [id_lists(rows[name])[1] for name in rows.column_names if name not in PLACE]
    return pa.table({"id": pc.drop_null(pa.concat_arrays(lists).unique())})


def id_lists(column: pa.ChunkedArray) -> tuple[Int64, pa.Array]:
    """Offsets and ids (int64, null where there is none) of lists; no list is an empty one."""
    offsets, values = _flat(column)
    return offsets, _whole(values)


def _whole(values: pa.Array) -> pa.Array:
    """Numbers as int64, null where one is not whole."""
    if pt.is_floating(values.type):
        whole = pc.fill_null(pc.equal(values, pc.floor(values)), False)
        finite = pc.and_(whole, pc.fill_null(pc.is_finite(values), False))
        values = pc.if_else(finite, values, pa.scalar(None, values.type))
    return values.cast(pa.int64())


def _filled(rows: pa.Table, name: str) -> tuple[pa.Table, Int64, pa.Array]:
    """The rows, those without this list or with a gap in it marked; its offsets and ids."""
    offsets, values = id_lists(rows[name])
    gaps = np.bincount(rows_of(offsets)[values.is_null().to_numpy(False)], minlength=len(rows)) > 0
    rows = mark(rows, pc.is_null(rows[name]), f"the {name} are missing", "user")
    return mark(rows, pa.array(gaps), f"{name} has an empty id", "user"), offsets, values


def _time_lists(column: pa.ChunkedArray) -> tuple[Int64, pa.Array]:
    offsets, values = _flat(column)
    return offsets, values.cast(pa.timestamp("s"), safe=False).cast(pa.int64())


def _flat(column: pa.ChunkedArray) -> tuple[Int64, pa.Array]:
    lists = as_array(column)
    sizes = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return offsets_of(sizes), lists.flatten()


def _emptied(offsets: Int64, values: pa.Array, bad: NDArray[np.bool_]) -> tuple[Int64, pa.Array]:
    fine = ~bad[rows_of(offsets)]
    return keep(offsets, fine), values.filter(pa.array(fine))


def _checked(rows: pa.Table, time: str) -> pa.Table:
    """The rows with `user` as a key, and with `time` in seconds where there is such a column."""
    rows = rows.append_column("user", to_key(rows["user_id"]))
    rows = mark(rows, pc.is_null(rows["user"]), "the user_id is missing", "user")
    rows = rows.set_column(
        rows.schema.get_field_index("user"), "user", pc.fill_null(rows["user"], "")
    )
    if not time:
        return rows
    seconds = rows[time].cast(pa.timestamp("s"), safe=False).cast(pa.int64())
    rows = mark(rows, pc.is_null(seconds), f"the {time} is missing", "user")
    rows = mark(rows, pc.less(seconds, 0), f"the {time} is '{{value}}', before 1970", time)
    return rows.append_column("time", pc.fill_null(seconds, UNKNOWN_TIME))


def _labels(
    offsets: Int64, shown: pa.Array, of_clicks: Int64, clicks: pa.Array
) -> tuple[NDArray[np.int8], NDArray[Any], NDArray[Any]]:
    """Which of the ids in view were clicked; per row how many clicks were repeated, or outside."""
    rows = len(offsets) - 1
    ids = pc.fill_null(pa.concat_arrays([shown, clicks]), -1).to_numpy(zero_copy_only=False)
    distinct, number = np.unique(ids, return_inverse=True)
    stride = max(len(distinct), 1)
    code = np.concatenate([rows_of(offsets), rows_of(of_clicks)]) * stride + number
    seen, clicked = code[: len(shown)], code[len(shown) :]
    once = np.unique(clicked)
    again = np.bincount(clicked // stride, minlength=rows) - np.bincount(
        once // stride, minlength=rows
    )
    outside = np.bincount(np.setdiff1d(once, seen) // stride, minlength=rows)
    return np.isin(seen, once).astype(np.int8), again, outside


def _profile(rows: pa.Table) -> dict[str, pa.ChunkedArray | pa.Array]:
    """What users told of themselves, where the file says it."""
    return {
        name: rows[name].cast(pa.int64())
        if name in rows.column_names
        else pa.nulls(len(rows), pa.int64())
        for name in PROFILE
    }
