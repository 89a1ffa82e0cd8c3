"""One driver per sweep: a lock file that a dead driver cannot keep.

The file names its holder: host, process, and when that process started. On the same machine the
holder is looked up; for another machine the file's time counts, which a live holder keeps fresh.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from legoray.errors import InputError, Problem

BEAT = 10.0  # seconds between two signs of life
DEAD = 60.0  # seconds without one after which a holder on another machine counts as dead


class SweepLock:
    """Held from `acquire` to `release`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end = threading.Event()
        self._mine = ""

    def acquire(self) -> SweepLock:
        """Take the lock, from a dead holder too.

        Raises:
            InputError: another driver holds it, or the folder cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for _ in range(3):
                if self._create():
                    threading.Thread(target=self._beat, daemon=True).start()
                    return self
                self._remove_if_dead()
        except OSError as error:
            message = f"cannot be written: {error.strerror}"
            raise InputError(Problem(str(self.path.parent), message)) from None
        raise self._held(self._read())

    def release(self) -> None:
        """Give the lock back; nothing happens where it is no longer ours."""
        self._end.set()
        with contextlib.suppress(OSError):
            if self.path.read_text() == self._mine:
                self.path.unlink()

    def _create(self) -> bool:
        """Whether the file did not exist; it appears whole or not at all."""
        self._mine = json.dumps(
            {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "started": process_start(os.getpid()),
                "token": os.urandom(8).hex(),
            }
        )
        with tempfile.NamedTemporaryFile("w", dir=self.path.parent, prefix=".lock.") as file:
            file.write(self._mine)
            file.flush()
            try:
                os.link(file.name, self.path)
            except FileExistsError:
                return False
        return True

    def _read(self) -> dict[str, Any]:
        try:
            holder = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        return holder if isinstance(holder, dict) else {}

    def _remove_if_dead(self) -> None:
        holder = self._read()
        if alive(holder, self._age()):
            raise self._held(holder)
        stale = self.path.with_name(f".stale-{os.urandom(4).hex()}")
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.path, stale)
            stale.unlink()

    def _age(self) -> float:
        try:
            return time.time() - self.path.stat().st_mtime
        except OSError:
            return DEAD + 1

    def _held(self, holder: dict[str, Any]) -> InputError:
        who = f"process {holder.get('pid')} on {holder.get('host')}"
        hint = "wait for it, stop it, or search in another folder (--folder)"
        if holder.get("host") != socket.gethostname():
            hint += f"; if it is dead, its lock ends after {DEAD:.0f} seconds"
        return InputError(
            Problem(str(self.path.parent), f"this sweep is already being run by {who}", hint)
        )

    def _beat(self) -> None:
        while not self._end.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self.path)


def alive(holder: dict[str, Any], age: float) -> bool:
    """Whether the process that a lock file names still runs, as far as can be told."""
    if holder.get("host") == socket.gethostname():
        pid = holder.get("pid")
        if not isinstance(pid, int):
            return False
        started = process_start(pid)
        return started is not None and started == holder.get("started")
    return age <= DEAD


def process_start(pid: int) -> str | None:
    """When a process of this machine started; None where there is none (zombies included)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return "unknown"
