"""A sweep: its folder, what its trials share, and their records.

The records are the truth. A trial's record reaches its final status before Optuna or MLflow hear of
it, so whatever dies between the two is repaired from the record.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path
from typing import Any

from legoray.records import (
    Phase,
    SweepInfo,
    TrialRecord,
    digest,
    read_trials,
    write_json,
)
from legoray.search.lock import SweepLock
from legoray.search.sweepsync import SweepSync
from legoray.storage.folders import fetch, withdraw

ENDED = ("completed", "pruned", "infeasible", "failed")


def trial_key(config: dict[str, Any], info: SweepInfo, extra: str = "") -> str:
    """The key of a training: equal configuration, data, texts and protocol give equal keys."""
    content = {"config": config, "fingerprint": info.fingerprint, "protocol": info.protocol}
    reads = reads_in(config, info)
    content |= {"reads": reads} if reads else {}
    return digest({**content, "extra": extra} if extra else content)


def reads_in(config: dict[str, Any], info: SweepInfo) -> dict[str, str]:
    """The attributes that a configuration reads, and the fingerprints of those written later."""
    from legoray.model.reads import reads_of_config

    return reads_of_config(config, info.text, info.written)


class Sweep:
    """An open sweep: its folder, what its trials share, and their records."""

    LOCK = "lock.json"
    OWN = ("sweep.json", "space.yaml", "study.journal", "study.journal.lock", "tracking.json")

    def __init__(
        self,
        folder: Path,
        info: SweepInfo,
        lock: SweepLock | None = None,
        sync: SweepSync | None = None,
    ) -> None:
        self.folder, self.info = folder, info
        self._lock, self._sync = lock, sync
        self.records: dict[int, TrialRecord] = {r.number: r for r in read_trials(folder)}

    def of(self, *phases: Phase) -> list[TrialRecord]:
        """The records of some phases, in order of number."""
        return [r for _, r in sorted(self.records.items()) if r.phase in phases]

    def find(self, key: str, phase: Phase) -> TrialRecord | None:
        """The record of a training, if there is one."""
        return next((r for r in self.of(phase) if r.key == key), None)

    def done(self) -> int:
        """How many trials of the search have come to an end."""
        return sum(r.status in ENDED for r in self.of("search"))

    def begin(
        self, key: str, phase: Phase, label: str, config: dict[str, Any], params: dict[str, Any]
    ) -> TrialRecord:
        """The record of a training that is about to run: the one it had before, or a new one."""
        known = self.find(key, phase)
        if known is not None:
            return self.change(known.number, status="running", reason="", ended=None)
        number = max(self.records, default=-1) + 1
        record = TrialRecord(
            number=number,
            key=key,
            phase=phase,
            label=label,
            config=config,
            reads=reads_in(config, self.info),
            params=params,
            started=time.time(),
        )
        self._save(record)
        return record

    def change(self, number: int, **changes: Any) -> TrialRecord:
        """Rewrite a record with some fields changed."""
        record = self.records[number].model_copy(update=changes)
        self._save(record)
        if changes.get("status") in ENDED:
            self._drop_checkpoint(record.key)
        return record

    def _drop_checkpoint(self, key: str) -> None:
        """Delete a checkpoint, unless a training that is not over has it."""
        if all(r.status in ENDED for r in self.records.values() if r.key == key):
            shutil.rmtree(self.model_folder(key) / "last", ignore_errors=True)
            withdraw(self.model_folder(key) / "last", of_any_node=True)

    def _save(self, record: TrialRecord) -> None:
        write_json(self.folder / "trials" / f"{record.number}.json", record)
        if self._sync is not None:
            self._sync.saved(record)
        self.records[record.number] = record

    def set_state(self, state: str, **changes: Any) -> None:
        """Note how far the sweep is."""
        self.info = self.info.model_copy(update={"state": state, **changes})
        write_json(self.folder / "sweep.json", self.info)

    def model_folder(self, key: str) -> Path:
        """Where a training keeps its checkpoint and its best model."""
        return self.folder / "models" / key

    def interrupt(self) -> int:
        """Mark what still runs as interrupted; the number of such trials."""
        running = [r for r in self.records.values() if r.status == "running"]
        for record in running:
            self.change(record.number, status="interrupted", reason="the search was interrupted")
        return len(running)

    def tidy(self) -> None:
        """Delete the checkpoints of trials that have ended, and Ray's notes."""
        for key in {record.key for record in self.records.values()}:
            self._drop_checkpoint(key)
        shutil.rmtree(self.folder / "ray", ignore_errors=True)

    def gather(self, best: TrialRecord | None) -> None:
        """Have the models of the final trainings and of the best trial here, from wherever."""
        finals = [r for r in self.of("final") if r.status == "completed"]
        for record in [*finals, *([best] if best is not None else [])]:
            fetch(self.model_folder(record.key))

    def close(self) -> None:
        """Let another driver have the sweep. One without a single trial leaves nothing behind."""
        if not self.records:
            for name in self.OWN:
                (self.folder / name).unlink(missing_ok=True)
            shutil.rmtree(self.folder / "ray", ignore_errors=True)
        try:
            if self._sync is not None:
                self._sync.close()
        finally:
            if self._lock is not None:
                self._lock.release()
        if not self.records:
            with contextlib.suppress(OSError):
                self.folder.rmdir()


def data_title(info: SweepInfo) -> str:
    """What the data set is called, and that it is synthetic where it is."""
    title = info.data_title or info.data
    told = not info.synthetic or "synthetic" in title.lower()
    return title if told else f"{title} (synthetic data)"
