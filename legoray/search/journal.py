"""The study's file: Optuna's journal, made to survive a process that is killed while it writes.

Optuna's own lock is a link that outlives a killed process and holds the next one up for half a
minute, and a line that was written by half spoils every later one. Here the kernel holds the lock,
and a last line without its end is cut off when the file is opened.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock

from legoray.errors import InputError, Problem


class KernelLock(BaseJournalFileLock):
    """An advisory lock on a file beside the journal; it ends with the process that holds it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._file = os.open(self.path, os.O_CREAT | os.O_RDWR, 0o644)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        """Give it back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def open_journal(path: Path) -> JournalStorage:
    """Open or create a journal.

    Raises:
        InputError: the file cannot be written, or is damaged elsewhere than in its last line.
    """
    lock = KernelLock(path.with_name(f"{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        try:
            _cut_half_line(path)
        finally:
            lock.release()
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except OSError as error:
        raise InputError(Problem(str(path), f"cannot be written: {error.strerror}")) from None
    except (ValueError, KeyError, TypeError) as error:
        hint = "restore the file, or start the search with --fresh"
        raise InputError(Problem(str(path), f"is damaged: {error}", hint)) from None


def _cut_half_line(path: Path) -> None:
    """Drop what a killed process wrote of its last line."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
