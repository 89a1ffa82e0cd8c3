"""The study's file: Optuna's journal, made to survive a process that is killed while it writes.

Optuna's own lock is a link that outlives a killed process and holds the next one up for half a
minute, and a line that was written by half spoils every later one. Here the kernel holds the lock,
and a last line without its end is cut off whenever the lock is taken: a full disk ends a line as
well as a kill does.
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

    def __init__(self, journal: Path) -> None:
        self.journal, self.path = journal, journal.with_name(f"{journal.name}.lock")
        self._file: int | None = None

    def acquire(self) -> bool:
        """Wait for the lock; the journal then ends with a whole line."""
        self._file = os.open(self.path, os.O_CREAT | os.O_RDWR, 0o644)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        _cut_half_line(self.journal)
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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = KernelLock(path)
        lock.acquire()
        lock.release()
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except OSError as error:
        raise InputError(Problem(str(path), f"cannot be written: {error.strerror}")) from None
    except (ValueError, KeyError, TypeError) as error:
        hint = "restore the file, or start the search with --fresh"
        raise InputError(Problem(str(path), f"is damaged: {error}", hint)) from None


def _cut_half_line(path: Path) -> None:
    """Drop a last line that was not written to its end."""
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
