"""How long the texts of items and users are, how many are empty, how many stand twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from legoray.data.attributescmd import origin
from legoray.data.inspecting.result import TextFacts
from legoray.data.inspecting.rows import files_of
from legoray.data.inspecting.tally import Tally
from legoray.data.inspecting.tokenized import tokens_of
from legoray.data.load import read_files
from legoray.data.schema import Manifest

WORD = r"[^\s\x0b\x1c-\x1f\x{85}\p{Z}]+"  # what Python's str.split() leaves


def texts_of(tables: Path, manifest: Manifest) -> list[TextFacts]:
    """Facts of all attributes; one attribute is in memory at a time.

    Raises:
        DamagedError: a file is missing or damaged.
    """
    of = {"items": manifest.attributes, "users": manifest.user_attributes}
    return [
        _facts(tables, manifest, name, kind)
        for kind, names in of.items()
        for name in names
        if kind == "items" or manifest.counts["users"]
    ]


def column_of(tables: Path, manifest: Manifest, name: str, of: str) -> pa.ChunkedArray:
    """An attribute of all items or users; null where nobody wrote a text."""
    written = manifest.written.get(name)
    if written is not None:
        files, column = [tables / file for file in written.files], "text"
    else:
        files, column = files_of(tables, manifest, of), name
    return pa.concat_tables(read_files(files, [column]))[column]


def _facts(tables: Path, manifest: Manifest, name: str, of: str) -> TextFacts:
    column = column_of(tables, manifest, name, of)
    words, characters = Tally(), Tally()
    empty = 0
    for chunk in column.chunks:
        some = chunk.filter(pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(chunk), ""), False))
        empty += len(chunk) - chunk.null_count - len(some)
        words.add(_numbers(pc.count_substring_regex(some, WORD)))
        characters.add(_numbers(pc.utf8_length(some)))
    return TextFacts(
        name=name,
        of=of,
        default=of == "items" and name in manifest.text,
        origin=origin(manifest.written.get(name)),
        count=len(column),
        empty=empty,
        missing=column.null_count,
        distinct=_distinct(column),
        words=words.distribution(),
        characters=characters.distribution(),
        tokens=tokens_of(tables, manifest, name) if of == "items" else [],
    )


def _numbers(column: pa.Array) -> Any:
    return column.to_numpy(zero_copy_only=False)


def _distinct(column: pa.ChunkedArray) -> int:
    """How many different texts there are, blank ones aside."""
    found = pc.unique(column.cast(pa.large_string()))  # texts may be over 2 GB together
    blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(found), ""), True)
    return len(found) - (pc.sum(blank).as_py() or 0)
