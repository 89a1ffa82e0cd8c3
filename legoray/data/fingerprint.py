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
    hashed = ColumnsHash()
    hashed.add(columns)
    return hashed.hexdigest()


def hash_parts(parts: Mapping[str, Any]) -> str:
    """SHA-256 of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class ColumnsHash:
    """The hash of columns that come in pieces; it is that of the whole columns."""

    def __init__(self) -> None:
        self._columns: dict[str, _Numbers | _Strings] = {}

    def add(self, columns: Mapping[str, Column]) -> None:
        """The next piece of some columns; a column keeps the type of its first piece."""
        for name, column in columns.items():
            if name not in self._columns:
                self._columns[name] = (
                    _Numbers(column.dtype) if isinstance(column, np.ndarray) else _Strings()
                )
            self._columns[name].add(column)

    def hexdigest(self) -> str:
        """The hash of all that was added."""
        return hash_parts({name: column.digest() for name, column in self._columns.items()})


class _Numbers:
    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._code = f"<{dtype.kind}{dtype.itemsize}"
        self._count = 0
        self._content = hashlib.sha256()

    def add(self, values: NDArray[Any]) -> None:
        if f"<{values.dtype.kind}{values.dtype.itemsize}" != self._code:
            raise TypeError(f"a piece is of {values.dtype}, the first was {self._code}")
        self._count += len(values)
        for start in range(0, len(values), _NUMBERS):
            piece = np.ascontiguousarray(values[start : start + _NUMBERS], dtype=self._code)
            self._content.update(piece.data)

    def digest(self) -> str:
        return f"{self._code}:{self._count}:{self._content.hexdigest()}"


class _Strings:
    def __init__(self) -> None:
        self._count = 0
        self._lengths, self._content = hashlib.sha256(), hashlib.sha256()

    def add(self, column: Any) -> None:
        self._count += len(column)
        for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
            sizes = pc.binary_length(chunk).to_numpy(zero_copy_only=False)
            self._lengths.update(sizes.astype("<i8").tobytes())
            for start in range(0, len(chunk), _STRINGS):
                self._content.update(_string_bytes(chunk.slice(start, _STRINGS)))

    def digest(self) -> str:
        return f"text:{self._count}:{self._lengths.hexdigest()}:{self._content.hexdigest()}"


def _string_bytes(chunk: pa.Array) -> bytes:
    """The bytes of all strings of an array without nulls, one after another."""
    joined = pc.binary_join(pa.ListArray.from_arrays([0, len(chunk)], chunk), "")
    return bytes(joined[0].as_buffer())
