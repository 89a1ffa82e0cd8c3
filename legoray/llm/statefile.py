"""One file of hidden states: ragged, memory-mapped, checked.

    <states>/<key>/states.safetensors   h [total, H] in bfloat16 or float32, offsets [n + 1] int64
    <states>/<key>/meta.json            StateMeta

The file is plain safetensors, written as a stream because it can be larger than the memory, and
mapped by its byte offset: reading rows of it touches only these rows.
"""

from __future__ import annotations

import functools
import json
import os
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from legoray.config import Strict
from legoray.errors import DamagedError, InputError, Problem
from legoray.records import read_json

STATES = "states.safetensors"
META = "meta.json"
_TYPES = {
    "bfloat16": ("BF16", torch.bfloat16, np.int16),
    "float32": ("F32", torch.float32, np.float32),
}
_BLOCK = 1 << 24


class StateMeta(Strict):
    """What a folder of hidden states holds; everything that its key was made of is said here."""

    key: str
    model: str
    revision: str
    weights: str  # checksum
    tokenizer: str  # checksum
    texts: str  # fingerprint
    template: str
    length: int
    split: int
    precision: str
    dtype: str
    items: int
    tokens: int
    hidden_size: int
    size: int  # bytes of the file
    checksum: str  # CRC-32 of the file


def file_size(items: int, tokens: int, hidden_size: int, dtype: str) -> int:
    """Bytes of a file of states, its header aside."""
    return tokens * hidden_size * np.dtype(_TYPES[dtype][2]).itemsize + (items + 1) * 8


class StateWriter:
    """A file of states of known size that is filled in any order."""

    def __init__(
        self, path: Path, offsets: NDArray[np.int64], hidden_size: int, dtype: str
    ) -> None:
        """Reserve the file's whole size on the disk.

        Raises:
            OSError: the disk is full or cannot be written.
        """
        self.path = path
        self.dtype = dtype
        name, self._torch, kind = _TYPES[dtype]
        total = int(offsets[-1])
        end = offsets.nbytes
        last = end + total * hidden_size * np.dtype(kind).itemsize
        header = _header(
            {
                "offsets": ("I64", [len(offsets)], [0, end]),
                "h": (name, [total, hidden_size], [end, last]),
            }
        )
        with open(path, "wb") as file:
            file.write(header)
            file.write(offsets.tobytes())
            # a full disk must be an error here, not a bus error in the middle of a mapped write
            os.posix_fallocate(file.fileno(), 0, len(header) + last)
        self._map = np.memmap(path, kind, "r+", len(header) + end, (total, hidden_size))

    def write(self, positions: NDArray[np.int64], hidden: Tensor) -> None:
        """Put `hidden [M, H]` into the rows `positions [M]`."""
        values = hidden.to(self._torch).cpu().contiguous()
        raw = values.view(torch.int16) if self._torch is torch.bfloat16 else values
        self._map[positions] = raw.numpy()

    def close(self) -> tuple[int, str]:
        """Finish the file; its size in bytes and its checksum."""
        self._map.flush()
        del self._map
        with open(self.path, "rb+") as file:
            os.fsync(file.fileno())
        return self.path.stat().st_size, file_checksum(self.path)


def _header(tensors: dict[str, tuple[str, list[int], list[int]]]) -> bytes:
    """Safetensors: 8 bytes of length, then JSON, padded so that the data is aligned."""
    content = {
        name: {"dtype": kind, "shape": shape, "data_offsets": span}
        for name, (kind, shape, span) in tensors.items()
    }
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * ((56 - len(text)) % 64)
    return len(text).to_bytes(8, "little") + text


def file_checksum(path: Path) -> str:
    """CRC-32 of a file: it guards against damage, not against malice."""
    value = 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            value = zlib.crc32(block, value)
    return f"{value:08x}"


def verify(folder: Path) -> StateMeta:
    """Check a folder of states: complete, of the right size, with the right checksum.

    A file that this process has checked is not read again while its size and time stay the same.

    Raises:
        InputError: it is damaged.
    """
    try:
        meta = read_json(folder / META, StateMeta)
    except InputError as error:
        raise DamagedError(*(_damaged(folder, p.message) for p in error.problems)) from None
    path = folder / STATES
    try:
        state = path.stat()
    except OSError:
        raise DamagedError(_damaged(path, "no such file")) from None
    if meta.key != folder.name:
        raise DamagedError(_damaged(folder, f"it holds the states of key {meta.key}"))
    if state.st_size != meta.size:
        raise DamagedError(_damaged(path, f"{state.st_size} bytes, expected {meta.size}"))
    if _checked(path, state.st_size, state.st_mtime_ns) != meta.checksum:
        raise DamagedError(_damaged(path, "its checksum is wrong"))
    return meta


@functools.lru_cache(maxsize=256)
def _checked(path: Path, size: int, time: int) -> str:
    return file_checksum(path)


def _damaged(path: Path, message: str) -> Problem:
    folder = path if path.suffix == "" else path.parent
    hint = f"delete the folder {folder}; it is computed again when it is needed"
    return Problem(str(path), f"these stored hidden states are damaged: {message}", hint)


def map_states(folder: Path, meta: StateMeta) -> tuple[Tensor, Tensor]:
    """The states `[total, H]`, mapped from the disk, and `offsets [n + 1]`, in memory."""
    path = folder / STATES
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    start = 8 + length
    first, last = header["offsets"]["data_offsets"]
    offsets = np.fromfile(path, np.int64, (last - first) // 8, offset=start + first)
    _, kind, raw = _TYPES[meta.dtype]
    # copy-on-write: torch wants writable memory, and the file must never change
    shape = tuple(header["h"]["shape"])
    mapped = np.memmap(path, raw, "c", start + header["h"]["data_offsets"][0], shape)
    return torch.from_numpy(mapped).view(kind), torch.from_numpy(offsets)
