"""The processes of one run: started with a mark in their environment, found and killed by it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

MARK = "LEGORAY_SURVIVAL_MARK"


def family(mark: str) -> dict[int, str]:
    """Every living process that inherited a mark, and what it is called."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            if state not in "ZX" and mark in (entry / "environ").read_text(errors="ignore"):
                command = (entry / "cmdline").read_text(errors="ignore")
                found[int(entry.name)] = command.replace("\0", " ").strip()[:200]
    return found


def kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_family(mark: str) -> int:
    """Kill all of it, and what it started meanwhile."""
    count = 0
    while pids := list(family(mark)):
        kill(pids)
        count += len(pids)
        time.sleep(0.2)
    return count


def wait_for(condition: Callable[[], object], what: str, seconds: float) -> None:
    """Wait until something holds.

    Raises:
        AssertionError: it did not within so many seconds.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)


class MlflowServer:
    """`mlflow server` on the loopback with a SQLite store."""

    def __init__(self, folder: Path, port: int, env: Mapping[str, str]) -> None:
        self.uri, self.port = f"http://127.0.0.1:{port}", port
        self.store = f"sqlite:///{folder}/mlflow.db"
        self._folder, self._env = folder, dict(env)
        self._env["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self.store]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._env, stdout=log, stderr=log, start_new_session=True
            )

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        """The server and its workers at once."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class Driver:
    """A search as a process in a session of its own."""

    def __init__(self, command: list[str], *, log: Path, env: Mapping[str, str]) -> None:
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                command, env=dict(env), cwd=log.parent, start_new_session=True,
                stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def told(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def kill(self) -> None:
        kill([self.process.pid])
        self.process.wait()
