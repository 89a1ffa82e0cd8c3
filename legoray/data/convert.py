"""Columns of any type -> keys, texts, numbers, times; what cannot be converted becomes null."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from legoray.data.ragged import offsets_of

NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
WHOLE = r"^\s*[-+]?\d{1,18}\s*$"
NO_KEYS = ("", "NaN", "nan")
_TIMES = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d")


def is_plain(kind: pa.DataType) -> bool:
    """Whether values of this type are single texts, numbers or times."""
    if pt.is_dictionary(kind):
        kind = kind.value_type
    text = pt.is_string(kind) or pt.is_large_string(kind) or pt.is_null(kind)
    number = pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind)
    return text or number or pt.is_boolean(kind) or pt.is_temporal(kind)


def is_text_list(kind: pa.DataType) -> bool:
    """Whether values of this type are lists of texts."""
    return (pt.is_list(kind) or pt.is_large_list(kind)) and (
        pt.is_string(kind.value_type) or pt.is_large_string(kind.value_type)
    )


def is_key_list(kind: pa.DataType) -> bool:
    """Whether values of this type are lists of keys."""
    return (pt.is_list(kind) or pt.is_large_list(kind)) and is_plain(kind.value_type)


def to_key(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Identifiers as strings: 7, 7.0 and "7" are one key; NaN and empty ones are null.

    So is the text NaN, which some programs write for what they lack.
    """
    if pt.is_floating(column.type):
        whole = pc.equal(column, pc.floor(column))
        as_int = pc.if_else(whole, column, pa.scalar(None, column.type)).cast(pa.int64())
        column = pc.coalesce(as_int.cast(pa.string()), _not_nan(column).cast(pa.string()))
    text = column.cast(pa.string())
    missing = pc.is_in(pc.utf8_trim_whitespace(text), value_set=pa.array(NO_KEYS))
    return pc.if_else(missing, pa.scalar(None, pa.string()), text)


def no_key(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Where a text is no identifier: empty, or NaN, as `to_key` has it."""
    return pc.is_in(column, value_set=pa.array(NO_KEYS))


def to_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text of an attribute: no value is the empty string; lists are joined by commas."""
    if pt.is_list(column.type) or pt.is_large_list(column.type):
        strings = column.cast(pa.list_(pa.string()))
        column = pc.binary_join(strings, ", ")
    if pt.is_floating(column.type):
        return pc.fill_null(to_key(column), "")
    return pc.fill_null(column.cast(pa.string()), "")


def to_number(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers as float64; NaN, infinity and what is no number are null."""
    if pt.is_boolean(column.type):
        column = column.cast(pa.int8())
    if pt.is_string(column.type) or pt.is_large_string(column.type):
        fits = pc.match_substring_regex(column, NUMBER)
        column = pc.utf8_trim_whitespace(pc.if_else(fits, column, pa.scalar(None, pa.string())))
    if not _castable(column, pa.float64()):
        return pa.chunked_array([pa.nulls(len(column), pa.float64())])
    return _not_nan(column.cast(pa.float64()))


def to_time(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Seconds since 1970 from numbers, timestamps, dates or ISO 8601 text without a zone (or Z)."""
    if pt.is_temporal(column.type):
        return column.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
    number = to_number(column)
    if not (pt.is_string(column.type) or pt.is_large_string(column.type)):
        return pc.floor(number).cast(pa.int64())
    text = pc.replace_substring_regex(pc.utf8_trim_whitespace(column), r"(\.\d+)?Z?$", "")
    parsed = [pc.strptime(text, format=f, unit="s", error_is_null=True) for f in _TIMES]
    return pc.coalesce(
        pc.floor(number).cast(pa.int64()), *[time.cast(pa.int64()) for time in parsed]
    )


def to_list(column: pa.ChunkedArray, separator: str) -> pa.ChunkedArray:
    """Lists of keys, from lists or from text with a separator; no value is the empty list."""
    if pt.is_list(column.type) or pt.is_large_list(column.type):
        lists = column.combine_chunks().cast(pa.list_(column.type.value_type))
        lists = pc.if_else(pc.is_null(lists), pa.scalar([], lists.type), lists)
        keys = to_key(pa.chunked_array([lists.flatten()])).combine_chunks()
        sizes = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
        offsets = offsets_of(sizes).astype(np.int32)
        return pa.chunked_array([pa.ListArray.from_arrays(pa.array(offsets), keys)])
    text = pc.fill_null(column.cast(pa.string()), "")
    return pc.split_pattern(text, pattern=separator)


def by_distinct(
    column: pa.ChunkedArray, convert: Callable[[pa.ChunkedArray], pa.ChunkedArray]
) -> pa.ChunkedArray:
    """`convert` of each row, computed once per distinct value: for long columns of few values."""
    coded = pc.dictionary_encode(column).combine_chunks()
    if isinstance(coded, pa.ChunkedArray):  # without a row it has no dictionary
        return convert(column)
    distinct = convert(pa.chunked_array([coded.dictionary]))
    return pa.chunked_array([distinct.combine_chunks().take(coded.indices)])


def _not_nan(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))


def _castable(column: pa.ChunkedArray, kind: pa.DataType) -> bool:
    try:
        column.slice(0, 1).cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    return True
