"""A sweep whose folder is an address: its records are kept there as they are written.

    <address>/sweep.json, space.yaml, study.journal, trials/*.json, ...   as in a sweep's folder
    <address>/models/<key>/   a training's best model and checkpoint (`legoray.search.carried`)
    <address>/lock.json       who runs it, with a sign of life every ten seconds
    <address>/driver.json     which driver's mirror was the last to be in step with the address

A trial's record is at the address before anybody hears that it began or ended, and the study's
journal with it; the rest follows within seconds. A driver on another machine needs nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Any

from legoray.errors import InputError, Problem
from legoray.records import TrialRecord, write_json
from legoray.search.lock import BEAT, DEAD, alive, process_start
from legoray.storage import remote
from legoray.storage.address import Address, address_of

PERIOD = 2.0  # seconds between two looks at what has changed
SETTLE = 1.0  # seconds after which a lock that was written must still be ours
LOCK, DRIVER = "lock.json", "driver.json"
FIRST = ("space.yaml", "sweep.json", "study.journal")  # without which a record is worth nothing
_OWN = ("ray", "models", LOCK, DRIVER)  # what is not carried as single files
_State = tuple[int, int]


class SweepSync:
    """Keeps the address of an open sweep in step with this node's mirror of it."""

    def __init__(self, folder: Path, address: Address) -> None:
        self.folder, self.address = folder, address
        self._sent: dict[str, _State] = {}
        self._sending = threading.RLock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="legoray-sync", daemon=True)
        self._token = os.urandom(8).hex()
        self._lost = ""  # who has taken the sweep over

    # --- opening and closing

    def open(self) -> SweepSync:
        """Take the lock at the address and bring the mirror into step with it.

        Raises:
            InputError: another driver runs the sweep, or the service refuses.
        """
        self._take()
        try:
            self._bring()
        except BaseException:
            self._leave()
            raise
        self._thread.start()
        return self

    def close(self) -> None:
        """Send the rest and give the lock back; a sweep without records goes altogether.

        Raises:
            InputError: the rest cannot be sent; it lies in the mirror.
        """
        self._end.set()
        self._thread.join()
        try:
            if (self.folder / "sweep.json").exists():
                self.send_all()
            elif not self._lost:
                for name in (*self._sent, DRIVER):
                    remote.remove(self.address / name)
        except InputError as error:
            hint = f"the rest lies in {self.folder}; going on from this machine sends it"
            missing = Problem(str(self.address), "not all of the sweep is there", hint)
            raise InputError(*error.problems, missing) from None
        finally:
            self._leave()

    def set_aside(self, stamp: str) -> None:
        """Move all that is at the address to one of the same name with a stamp.

        Raises:
            InputError: the service refuses.
        """
        away = Address(self.address.scheme, self.address.bucket, f"{self.address.key}-{stamp}")
        names = [name for name in remote.listing(self.address) if name not in (LOCK, DRIVER)]
        for name in names:
            remote.copy(self.address / name, away / name)
        for name in names:
            remote.remove(self.address / name)
        with self._sending:
            self._sent.clear()

    def mark(self) -> None:
        """Note on both sides that this mirror is the one in step."""
        own = self.folder / DRIVER
        write_json(own, {"token": self._token})
        remote.write(self.address / DRIVER, own.read_bytes())

    # --- sending

    def saved(self, record: TrialRecord) -> None:
        """A record was written. Its begin and its end are at the address when this returns.

        Raises:
            InputError: they cannot be sent, or another driver has taken the sweep.
        """
        if record.status != "running" or not record.epochs:
            for name in (*FIRST, f"trials/{record.number}.json"):
                self._send(name)

    def send_all(self) -> None:
        """Send every file that has changed.

        Raises:
            InputError: one cannot be sent, or another driver has taken the sweep.
        """
        for name in self._names():
            self._send(name)

    def _send(self, name: str) -> None:
        with self._sending:
            if self._lost:
                hint = "look at the sweep from there; nothing of it was lost"
                message = f"{self._lost} has taken this sweep over"
                raise InputError(Problem(str(self.address), message, hint))
            path = self.folder / name
            try:
                state = path.stat()
                now = (state.st_size, state.st_mtime_ns)
                if self._sent.get(name) != now:
                    remote.upload(path, self.address / name)
                    self._sent[name] = now
            except FileNotFoundError:
                return  # not written yet, or gone again

    def _names(self) -> list[str]:
        """The files of the sweep's folder but for models, temporary files and locks."""
        found = []
        for top in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            if top.name not in _OWN and not top.name.startswith("."):
                inside = sorted(top.rglob("*")) if top.is_dir() else [top]
                found += [p for p in inside if p.is_file() and not p.name.startswith(".")]
        found += sorted((self.folder / "models").glob("*/error.json"))
        names = [path.relative_to(self.folder).as_posix() for path in found]
        return [name for name in names if not name.endswith((".lock", ".tmp"))]

    def _run(self) -> None:
        """The thread: signs of life, and what changed since the last look."""
        beat = time.monotonic()
        while not self._end.wait(PERIOD):
            with contextlib.suppress(InputError):  # tried again, and told at the end
                if time.monotonic() - beat >= BEAT:
                    beat = time.monotonic()
                    self._beat()
                self.send_all()

    # --- the mirror

    def _bring(self) -> None:
        """Have what is at the address, unless this mirror was the last to be in step with it."""
        there, own = remote.read(self.address / DRIVER), self.folder / DRIVER
        if there is None or not own.exists() or own.read_bytes() != there:
            lock = self.folder / LOCK  # the mirror's own, which is held
            for path in self.folder.iterdir() if self.folder.is_dir() else ():
                if path != lock:
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            names = remote.listing(self.address)
            for name in names if "sweep.json" in names else ():
                if name.split("/")[0] not in _OWN:
                    remote.download(self.address / name, self.folder / name)
                    self._note(name)
        self.mark()

    def _note(self, name: str) -> None:
        state = (self.folder / name).stat()
        self._sent[name] = (state.st_size, state.st_mtime_ns)

    # --- the lock

    def _take(self) -> None:
        """Take the lock at the address, from a dead holder too.

        An object store has no lock: of two drivers that come at once the later one has it, and the
        other one finds that out after a moment.
        """
        holder = self._holder()
        if holder and alive(holder, self._age()):
            raise self._held(holder)
        self._beat()
        time.sleep(SETTLE)
        holder = self._holder()
        if holder.get("token") != self._token:
            raise self._held(holder)

    def _leave(self) -> None:
        with contextlib.suppress(InputError):
            if self._holder().get("token") == self._token:
                remote.remove(self.address / LOCK)

    def _beat(self) -> None:
        """A sign of life; whoever has taken the lock meanwhile keeps it."""
        holder = self._holder()
        if self._thread.is_alive() and holder.get("token") not in (None, self._token):
            self._lost = f"process {holder.get('pid')} on {holder.get('host')}"
            return
        content = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": process_start(os.getpid()),
            "token": self._token,
        }
        remote.write(self.address / LOCK, json.dumps(content).encode())

    def _holder(self) -> dict[str, Any]:
        try:
            found = json.loads(remote.read(self.address / LOCK) or b"{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _age(self) -> float:
        """Seconds since the last sign of life, by the service's own clock."""
        probe = self.address / f".clock-{self._token}"
        remote.write(probe, b"")
        now, then = remote.written_at(probe), remote.written_at(self.address / LOCK)
        remote.remove(probe)
        return (now - then).total_seconds() if now and then else DEAD + 1

    def _held(self, holder: dict[str, Any]) -> InputError:
        who = f"process {holder.get('pid')} on {holder.get('host')}"
        hint = "wait for it, stop it, or search in another folder (--folder)"
        if holder.get("host") != socket.gethostname():
            hint += f"; if it is dead, its lock ends after {DEAD:.0f} seconds"
        message = f"this sweep is already being run by {who}"
        return InputError(Problem(str(self.address), message, hint))


def sync_of(folder: Path) -> SweepSync | None:
    """The opened sync of a sweep's folder that mirrors an address; None for any other folder.

    Raises:
        InputError: as `SweepSync.open`.
    """
    address = address_of(folder)
    return None if address is None else SweepSync(folder, address).open()
