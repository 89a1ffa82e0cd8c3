"""Opening a sweep's folder: a new one, or the one that is there, if it is the same search."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from legoray.data.schema import Manifest
from legoray.errors import InputError, Problem
from legoray.records import SweepInfo, digest, read_json, read_trials, unwritten, write_json
from legoray.search.lock import SweepLock
from legoray.search.provenance import git_revision, machine, versions
from legoray.search.sweep import Sweep, reads_in
from legoray.search.sweepsync import SweepSync, sync_of
from legoray.spaceconfig import SpaceConfig
from legoray.yamlfile import Document, dotted, parse_yaml

MAY_DIFFER = ("search.trials", "search.epochs", "search.hours", "search.reuse", "final")


class SpaceLike(Protocol):
    """What a sweep wants to know of a search space."""

    @property
    def config(self) -> SpaceConfig: ...

    @property
    def document(self) -> Document: ...


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
