"""Hashes of content: equal tables have equal fingerprints, whatever their shards and machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Column: TypeAlias = NDArray[Any] | Any  # numbers, or an Arrow array of strings

_NUMBERS = 1 << 22  # hashed at once
_STRINGS = 1 << 16


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_columns(columns: Mapping[str, Column]) -> str:
    """SHA-256 of named columns: integers by value, strings by length and UTF-8 bytes."""
    digests = {name: _hash_column(column) for name, column in columns.items()}
    return hash_parts(digests)


def hash_parts(parts: Mapping[str, Any]) -> str:
    """SHA-256 of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _hash_column(column: Column) -> str:
    if isinstance(column, np.ndarray):
        return _hash_numbers(column)
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    lengths, content = hashlib.sha256(), hashlib.sha256()
    for chunk in chunks:
        sizes = pc.binary_length(chunk).to_numpy(zero_copy_only=False)
        lengths.update(sizes.astype("<i8").tobytes())
        for start in range(0, len(chunk), _STRINGS):
            content.update(_string_bytes(chunk.slice(start, _STRINGS)))
    return f"text:{len(column)}:{lengths.hexdigest()}:{content.hexdigest()}"


def _hash_numbers(values: NDArray[Any]) -> str:
    code = f"<{values.dtype.kind}{values.dtype.itemsize}"
    digest = hashlib.sha256()
    for start in range(0, len(values), _NUMBERS):
        digest.update(np.ascontiguousarray(values[start : start + _NUMBERS], dtype=code).data)
    return f"{code}:{len(values)}:{digest.hexdigest()}"


def _string_bytes(chunk: pa.Array) -> bytes:
    """The bytes of all strings of an array without nulls, one after another."""
    joined = pc.binary_join(pa.ListArray.from_arrays([0, len(chunk)], chunk), "")
    return bytes(joined[0].as_buffer())
