"""The sweep's folder: opening it, going on with it, and the records of its trials.

The records are the truth. A trial's record reaches its final status before Optuna or MLflow hear of
it, so whatever dies between the two is repaired from the record.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import legoray
from legoray.data.schema import Manifest
from legoray.errors import InputError, Problem
from legoray.records import (
    Phase,
    SweepInfo,
    TrialRecord,
    digest,
    read_json,
    read_trials,
    unwritten,
    write_json,
)
from legoray.search.lock import SweepLock
from legoray.search.sweepsync import SweepSync, sync_of
from legoray.spaceconfig import SpaceConfig
from legoray.storage.folders import fetch, withdraw
from legoray.train.version import training_version
from legoray.yamlfile import Document, dotted, parse_yaml

MAY_DIFFER = ("search.trials", "search.epochs", "search.hours", "search.reuse", "final")
ENDED = ("completed", "pruned", "infeasible", "failed")


class SpaceLike(Protocol):
    """What a sweep wants to know of a search space."""

    @property
    def config(self) -> SpaceConfig: ...

    @property
    def document(self) -> Document: ...


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
            withdraw(self.model_folder(key) / "last")

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


def open_sweep(
    space: SpaceLike,
    folder: Path,
    tables: Path,
    manifest: Manifest,
    *,
    fresh: bool = False,
    mixed: bool = False,
) -> Sweep:
    """Create the sweep's folder, or go on with the one that is there.

    Args:
        space: what is searched.
        folder: the sweep's.
        tables: of the prepared data.
        manifest: theirs.
        fresh: set an earlier sweep aside.
        mixed: trainings on other texts may stand in the same folder.

    Raises:
        InputError: another driver runs this sweep, its space or data have changed, its files are
            damaged, or the folder cannot be written.
    """
    lock = SweepLock(folder / Sweep.LOCK).acquire()
    sync = None
    try:
        sync = sync_of(folder)
        if fresh and (folder / "sweep.json").exists():
            lock.release()
            _set_aside(folder, sync)
            lock = SweepLock(folder / Sweep.LOCK).acquire()
        info = new_info(space, tables, manifest)
        if (folder / "sweep.json").exists():
            info = _same_sweep(space, folder, info, mixed=mixed)
        _clear_halves(folder)
        sweep = Sweep(folder, info, lock, sync)
        _copy_space(space, folder)
        write_json(folder / "sweep.json", info)
        return sweep
    except BaseException:
        if sync is not None:
            sync.close()
        lock.release()
        raise


def new_info(space: SpaceLike, tables: Path, manifest: Manifest) -> SweepInfo:
    """What the trials of a new sweep have in common."""
    from legoray.model.reads import prints_of

    config = space.config
    protocol = dict(manifest.protocol)
    protocol["metrics"] = ",".join(config.evaluate.metrics)
    protocol["metrics_group"] = config.evaluate.group or manifest.group
    return SweepInfo(
        id=uuid.uuid4().hex,
        name=config.name,
        space_file=str(space.document.path),
        space_hash=digest(_fixed(space.document.data)),
        data=manifest.name,
        data_title=manifest.title,
        synthetic=manifest.synthetic,
        tables=str(tables),
        fingerprint=manifest.fingerprint,
        text=manifest.text,
        written=prints_of(manifest),
        protocol=protocol,
        select=config.evaluate.select,
        objectives=config.search.objectives,
        seed=config.seed,
        git_revision=git_revision(),
        versions=versions(),
        machine=machine(),
        created=time.time(),
    )


def _same_sweep(space: SpaceLike, folder: Path, new: SweepInfo, *, mixed: bool) -> SweepInfo:
    """The info of a sweep that goes on, provided that it is the same search on the same data."""
    old = read_json(folder / "sweep.json", SweepInfo)
    again = "start anew with --fresh, or take another --folder"
    if old.space_hash != new.space_hash:
        raise InputError(*_change_problems(space, folder, again))
    if (old.fingerprint, old.protocol) != (new.fingerprint, new.protocol):
        what = "the data" if old.fingerprint != new.fingerprint else "the evaluation protocol"
        raise InputError(
            Problem(new.tables, f"{what} changed since the trials in {folder} began", again)
        )
    now = new.model_dump(include={"tables", "space_file", "text", "written"})
    info = old.model_copy(update=now)
    if not mixed:
        _check_texts(folder, info)
    return info


def _check_texts(folder: Path, info: SweepInfo) -> None:
    """Refuse to go on where a trial read other texts than it would read now.

    Raises:
        InputError: what it read has changed.
    """
    for record in read_trials(folder):
        if record.reads is None:
            continue
        now = reads_in(record.config, info)
        if now == record.reads or not now:
            continue
        changed = [name for name in now if name in record.reads and now[name] != record.reads[name]]
        what = f"the written attribute '{changed[0]}'" if changed else "the data set's `text`"
        message = f"{what} changed since the trials in {folder} began (trial {record.number})"
        hint = "start anew with --fresh, or take another --folder"
        raise InputError(Problem(info.tables, message, hint))


def _change_problems(space: SpaceLike, folder: Path, hint: str) -> Iterator[Problem]:
    """One problem per value of the space file that is not as the sweep began."""
    data = _fixed(space.document.data)
    old: Any = {}
    if (folder / "space.yaml").exists():
        text = (folder / "space.yaml").read_text(encoding="utf-8")
        old = _fixed(parse_yaml(text, folder / "space.yaml").data)
    if isinstance(old.get("data"), list) and data.get("data") in old["data"]:
        old["data"] = data["data"]  # one of several, each with a sweep of its own
    changed = sorted(_differences(old, data, ()), key=str) or [()]
    for keys in changed:
        message = f"has changed since the trials in {folder} began"
        yield Problem(space.document.where(keys), message, hint)


def _differences(old: Any, new: Any, at: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            if key not in old or key not in new:
                yield (*at, key)
            else:
                yield from _differences(old[key], new[key], (*at, key))
    elif old != new:
        yield at


def _fixed(data: dict[str, Any], at: tuple[str, ...] = ()) -> dict[str, Any]:
    """The space file's content without what may differ when a sweep goes on."""
    kept = {k: v for k, v in data.items() if dotted((*at, k)) not in MAY_DIFFER}
    if not at and isinstance(kept.get("search"), dict):
        kept["search"] = _fixed(kept["search"], ("search",))
    if not at and not kept.get("search", True):
        del kept["search"]
    return kept


def _set_aside(folder: Path, sync: SweepSync | None) -> None:
    """Rename an earlier sweep's folder after the time at which it is set aside."""
    stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(2).hex()}"
    try:
        if sync is not None:
            sync.set_aside(stamp)
        os.rename(folder, folder.with_name(f"{folder.name}-{stamp}"))
        if sync is not None:
            sync.mark()
    except OSError as error:
        raise InputError(Problem(str(folder), f"cannot be set aside: {error.strerror}")) from None


HALVES = (".lock.*", ".stale-*", "space.tmp", ".*.json.*", "trials/.*.json.*",
          "models/*/.*.json.*", "models/*/.*.new-*", "models/*/last/.*")  # fmt: skip


def _clear_halves(folder: Path) -> None:
    """Delete what killed processes left of files and models that they were writing."""
    from legoray.model.io import recover

    for model in folder.glob("models/*"):
        recover(model / "best")
    for path in (path for pattern in HALVES for path in folder.glob(pattern)):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _copy_space(space: SpaceLike, folder: Path) -> None:
    source = space.document.path
    target = folder / "space.yaml"
    try:
        temporary = target.with_suffix(".tmp")
        temporary.write_bytes(source.read_bytes())
        os.replace(temporary, target)
    except OSError as error:
        raise InputError(unwritten(target, error)) from None


def data_title(info: SweepInfo) -> str:
    """What the data set is called, and that it is synthetic where it is."""
    title = info.data_title or info.data
    told = not info.synthetic or "synthetic" in title.lower()
    return title if told else f"{title} (synthetic data)"


def git_revision() -> str:
    """The revision of the code that runs; empty where it is no git checkout."""
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(legoray.__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"legoray": legoray.__version__, "training": training_version()}
    for name in ("torch", "transformers", "peft", "ray", "optuna"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """What this machine is: system, processors, memory, Python."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, {memory:.0f} GB, "
        f"Python {platform.python_version()}"
    )
