"""Files of tensors that never change: written whole or not at all, checked, and mapped.

A file is plain safetensors. Its metadata holds a note (strings) and a CRC-32 over all of the file,
the checksum's own digits counted as zeros: it guards against damage, not against malice. Reading
rows of a mapped file touches only these rows, and holds no file descriptor.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import threading
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from legoray.errors import DamagedError, Problem

UNFINISHED = ".building-"  # how names begin while a file or folder is written
_TYPES = {
    "I64": torch.int64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "U8": torch.uint8,
}
_NAMES = {kind: name for name, kind in _TYPES.items()}
_ALIGNED = 64
_MOST_HEADER = 1 << 20
_ZEROS = b"00000000"
_BLOCK = 1 << 24


@dataclass(frozen=True)
class Header:
    """What a file says of itself."""

    note: Mapping[str, str]
    spans: Mapping[str, tuple[torch.dtype, tuple[int, ...], int, int]]  # type, shape, from, to
    size: int  # bytes of the whole file


def write_tensors(path: Path, tensors: Mapping[str, Tensor], note: Mapping[str, str]) -> None:
    """Write a file under a temporary name, sync it, and move it into place.

    Args:
        path: the file; one of this name is replaced.
        tensors: contiguous, on the CPU.
        note: strings to keep with them.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    # wide numbers first, so that each tensor begins at a multiple of its numbers' size
    ordered = sorted(tensors.items(), key=lambda pair: -pair[1].element_size())
    payload = [tensor.reshape(-1).view(torch.uint8).numpy() for _, tensor in ordered]
    blank = _header(dict(ordered), note, _ZEROS.decode())
    checksum = zlib.crc32(blank)
    for part in payload:
        checksum = zlib.crc32(part.data, checksum)
    header = _header(dict(ordered), note, f"{checksum:08x}")
    working = path.with_name(f"{UNFINISHED}{path.stem}-{os.getpid()}-{threading.get_ident()}")
    try:
        with working.open("wb") as file:
            file.write(header)
            for part in payload:
                file.write(part.data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(working, path)
        sync_folder(path.parent)
    finally:
        working.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Have the disk know the names in a folder, where its file system can."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def read_header(path: Path, what: str) -> Header:
    """The header of a file that is as long as it says.

    Args:
        path: the file.
        what: to call its content in an error, such as `hidden states`.

    Raises:
        DamagedError: the file is missing, cut short, or no such file.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= min(_MOST_HEADER, size):
                raise ValueError("it does not begin as such a file")
            header = _parsed(json.loads(file.read(length)), 8 + length)
    except OSError as error:
        raise damaged(path, what, (error.strerror or str(error)).lower()) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, what, f"its header cannot be read: {error}") from None
    if size != header.size:
        raise damaged(path, what, f"{size} bytes, expected {header.size}")
    return header


def check_file(path: Path, what: str) -> Header:
    """See that a file's checksum is right.

    A file that this process has checked is not read again while its size and time stay the same.

    Raises:
        DamagedError: as `read_header`, or the checksum is wrong.
    """
    header = read_header(path, what)
    state = path.stat()
    if _checksum(path, state.st_size, state.st_mtime_ns) != header.note.get("crc32"):
        raise damaged(path, what, "its checksum is wrong")
    return header


def map_tensors(path: Path, header: Header) -> dict[str, Tensor]:
    """The tensors of a file, mapped: writing into one changes this process's copy alone."""
    raw = torch.from_file(str(path), shared=False, size=header.size, dtype=torch.uint8)
    return {
        name: raw[start:end].view(kind).view(shape)
        for name, (kind, shape, start, end) in header.spans.items()
    }


def damaged(path: Path, what: str, why: str) -> DamagedError:
    """The error of a file that is not as it was written."""
    hint = f"delete {path}; what it held is made again when it is needed"
    return DamagedError(Problem(str(path), f"these stored {what} are damaged: {why}", hint))


def _header(tensors: Mapping[str, Tensor], note: Mapping[str, str], checksum: str) -> bytes:
    """8 bytes of length, then JSON, padded so that the tensors are aligned."""
    content: dict[str, object] = {"__metadata__": {**note, "crc32": checksum}}
    start = 0
    for name, tensor in tensors.items():
        end = start + tensor.numel() * tensor.element_size()
        span = [start, end]
        kind, shape = _NAMES[tensor.dtype], list(tensor.shape)
        content[name] = {"dtype": kind, "shape": shape, "data_offsets": span}
        start = end
    text = json.dumps(content, separators=(",", ":"), sort_keys=False).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNED)
    return len(text).to_bytes(8, "little") + text


def _parsed(content: dict[str, dict[str, object]], begin: int) -> Header:
    note = {str(key): str(value) for key, value in content.pop("__metadata__").items()}
    spans = {}
    size = begin
    for name, told in content.items():
        kind = _TYPES[str(told["dtype"])]
        shape = tuple(int(n) for n in told["shape"])  # type: ignore[attr-defined]
        first, last = (begin + int(n) for n in told["data_offsets"])  # type: ignore[attr-defined]
        if last - first != math.prod(shape) * kind.itemsize:
            raise ValueError(f"'{name}' is not of the size that it says")
        spans[name] = (kind, shape, first, last)
        size = max(size, last)
    return Header(note, spans, size)


@functools.lru_cache(maxsize=65_536)
def _checksum(path: Path, size: int, time: int) -> str:
    with path.open("rb") as file:
        start = file.read(8)
        header = file.read(int.from_bytes(start, "little"))
        known = json.loads(header)["__metadata__"].get("crc32", "")
        blank = header.replace(f'"crc32":"{known}"'.encode(), b'"crc32":"' + _ZEROS + b'"', 1)
        value = zlib.crc32(start + blank)
        while block := file.read(_BLOCK):
            value = zlib.crc32(block, value)
    return f"{value:08x}"
