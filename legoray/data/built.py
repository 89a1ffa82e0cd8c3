"""Folders that are made once and shared by all processes: whole or not at all, and checked.

<store>/<key>/...          what its maker wrote
<store>/<key>/whole.json   size and checksum of each of these files

Work goes on in a folder whose name begins with `.building-`; what a killed maker left is swept away
by the next one. A folder that was damaged later is an error that says so, not a silent repair.
"""

from __future__ import annotations

import functools
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from legoray.config import Strict
from legoray.errors import DamagedError, InputError, Problem
from legoray.records import read_json, write_json
from legoray.storage.address import address_of
from legoray.storage.folders import fetch, share

WHOLE = "whole.json"
Say = Callable[[str], None]
_BLOCK = 1 << 24


class Whole(Strict):
    """The files of a folder."""

    sizes: dict[str, int]  # bytes
    checksums: dict[str, str]  # CRC-32: against damage, not against malice


def quietly(message: str) -> None:
    """Say nothing."""


def ensure_folder(
    folder: Path,
    make: Callable[[Path], None],
    what: str,
    say: Say = quietly,
    *,
    setting: str = "LEGORAY_HOME",
) -> None:
    """See that a folder is there and whole; one process makes it, the others wait.

    Args:
        folder: its name is a hash of everything that decides its content.
        make: writes the content into an empty folder; called only where there is none yet.
        what: to call the content in messages, such as `stored codes`.
        say: told who is waited for.
        setting: the environment's variable that moves the folder elsewhere.

    Raises:
        InputError: the folder cannot be written, or is damaged; or what `make` raises.
    """
    if not _there(folder):
        waiting = f"another process makes these {what}; waiting for it"
        with locked(folder, waiting, say, setting=setting):
            if not _there(folder) and not _fetched(folder):
                try:
                    _make(folder, make)
                except OSError as error:
                    raise _unwritable(folder.parent, error, setting) from None
                share(folder)
    check_folder(folder, what)


def _there(folder: Path) -> bool:
    """Whether a folder is there; one that is fetched has its last file last."""
    return folder.exists() if address_of(folder) is None else (folder / WHOLE).exists()


def _fetched(folder: Path) -> bool:
    """Whether another node has made it, where the folder mirrors an address."""
    return address_of(folder) is not None and fetch(folder)


def check_folder(folder: Path, what: str) -> None:
    """See that a folder's files are those that were made.

    A file that this process has checked is not read again while its size and time stay the same.

    Raises:
        DamagedError: they are not.
    """
    try:
        whole = read_json(folder / WHOLE, Whole)
    except InputError as error:
        raise _damaged(folder, what, str(error)) from None
    for name, size in whole.sizes.items():
        path = folder / name
        try:
            state = path.stat()
        except OSError:
            raise _damaged(folder, what, f"{name} is missing") from None
        if state.st_size != size:
            raise _damaged(folder, what, f"{name} has {state.st_size} bytes, expected {size}")
        if _checksum(path, state.st_size, state.st_mtime_ns) != whole.checksums[name]:
            raise _damaged(folder, what, f"the checksum of {name} is wrong")


def working_folder(folder: Path) -> Path:
    """An empty folder to make another's content in; what dead makers of it left is removed."""
    for left in folder.parent.glob(f".building-{folder.name}-*"):
        shutil.rmtree(left, ignore_errors=True)
    working = folder.parent / f".building-{folder.name}-{os.getpid()}"
    working.mkdir(parents=True)
    return working


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    working = working_folder(folder)
    try:
        make(working)
        files = sorted(working.iterdir())
        for file in files:
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        sizes = {file.name: file.stat().st_size for file in files}
        checksums = {file.name: _file_checksum(file) for file in files}
        write_json(working / WHOLE, Whole(sizes=sizes, checksums=checksums))
        os.replace(working, folder)
    finally:
        shutil.rmtree(working, ignore_errors=True)


@contextmanager
def locked(
    folder: Path, waiting: str, say: Say, *, setting: str = "LEGORAY_HOME"
) -> Iterator[None]:
    """Hold the folder's lock; it is freed if its holder dies.

    Args:
        folder: which need not be there.
        waiting: said where another process holds it.
        say: told so.
        setting: the environment's variable that moves the folder elsewhere.

    Raises:
        InputError: the folder above cannot be written.
    """
    locks = folder.parent / ".locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / folder.name)
        try:
            lock.acquire(timeout=0.2)
        except Timeout:
            say(waiting)
            lock.acquire()
    except OSError as error:
        raise _unwritable(folder.parent, error, setting) from None
    try:
        yield
    finally:
        lock.release()


@functools.lru_cache(maxsize=256)
def _checksum(path: Path, size: int, time: int) -> str:
    return _file_checksum(path)


def _file_checksum(path: Path) -> str:
    value = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            value = zlib.crc32(block, value)
    return f"{value:08x}"


def _unwritable(store: Path, error: OSError, setting: str) -> InputError:
    hint = f"free some space, or set {setting} to another disk"
    return InputError(Problem(str(store), f"cannot be written: {error.strerror}", hint))


def _damaged(folder: Path, what: str, why: str) -> DamagedError:
    hint = f"delete the folder {folder}; it is made again when it is needed"
    return DamagedError(Problem(str(folder), f"these {what} are damaged: {why}", hint))
