"""Raw files -> prepared tables, wholly or not at all.

    <home>/tables/<name>-<hash>/            the tables, moved into place when they are whole
    <home>/tables/<name>-<hash>-<raw>/      those of another data set of the same name and options
    <home>/tables/.<name>-<hash>.partial/   the work of a preparation that was not finished
    <home>/tables/.<name>-<hash>.lock       held by the process that prepares

Called again, it compares the raw files' sizes and times with the manifest and does nothing else.
Neither torch nor Ray is imported on that way.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from legoray.config import home
from legoray.data.attributes import attach, same_files, source_file, unchanged
from legoray.data.fingerprint import hash_parts
from legoray.data.load import check_files, table_files
from legoray.data.plan import Plan, check_text, place_of, plan_of
from legoray.data.published import deviations, told
from legoray.data.schema import (
    CLEANED,
    COMPLETED,
    SCHEMA_VERSION,
    SPLITS,
    Manifest,
    SourceFile,
    WrittenTable,
)
from legoray.errors import InputError, Problem
from legoray.records import read_json, write_json
from legoray.storage.address import address_of
from legoray.storage.folders import share
from legoray.storage.remote import ensure

if TYPE_CHECKING:
    from legoray.data.stages import Facts

Say = Callable[[str], None]
_OWN = ("tokens", "scratch", "stages", "unfinished", "stamp.json")  # no part of the tables


@dataclass(frozen=True)
class Prepared:
    """Where the tables lie, what they hold, and whether this call made them."""

    tables: Path
    manifest: Manifest
    fresh: bool


def prepare(dataset: Path, *, say: Say, coming: str = "") -> Prepared:
    """Make the tables of a `datasets/*.yaml`, unless they are there and the raw files unchanged.

    Args:
        dataset: the YAML file.
        say: takes one line at a time of what is going on.
        coming: an attribute that is about to be written: the YAML may name it although nothing of
            it is there yet.

    Raises:
        InputError: the YAML, the raw files or the folder for the tables are not as they must be.
    """
    far = address_of(home())
    if far is not None:
        ensure(far)
    plan = plan_of(Path(dataset), coming, say)
    found = _existing(plan)
    if found and not _rests(plan.tables):
        return _ready(plan, found, fresh=False, say=say)
    try:
        plan.tables.parent.mkdir(parents=True, exist_ok=True)
        with _lock(plan, say):
            if place_of(plan.config, plan.config_hash, plan.raw, plan.sources) == plan.tables:
                found = _existing(plan)
                _clear(plan.tables)
                found = found or _renewed(plan, say)
                manifest = found or _make(plan, say)
                return _ready(plan, manifest, fresh=found is None, say=say)
    except OSError as error:
        raise InputError(_unusable(plan, error)) from error
    return prepare(dataset, say=say, coming=coming)  # meanwhile another one of this name was made


def _ready(plan: Plan, manifest: Manifest, *, fresh: bool, say: Say) -> Prepared:
    """The tables as they are; deviations from what is published are told each time."""
    share(plan.tables, leave=_OWN)
    for line in told(manifest) if fresh or manifest.deviations else ():
        say(line)
    return Prepared(plan.tables, manifest, fresh=fresh)


def _unusable(plan: Plan, error: OSError) -> Problem:
    """What the system refused: a raw file, or the folder of the tables."""
    reason = error.strerror or str(error)
    if error.filename and Path(error.filename).is_relative_to(plan.raw):
        return Problem(str(error.filename), f"cannot be read: {reason}")
    where = str(error.filename or plan.tables.parent)
    if " requested and " in reason:  # numpy wrote less than it was given, and says no more
        reason = f"No space left on device ({reason})"
    return Problem(where, f"cannot be written: {reason}", "LEGORAY_HOME names the folder")


def _existing(plan: Plan) -> Manifest | None:
    """The manifest of tables that were made from these very files, with what the YAML adds."""
    manifest = _core(plan)
    if manifest is None or manifest.schema_version != SCHEMA_VERSION:
        return None
    written = unchanged(plan.written, manifest)
    return None if written is None else _settled(plan, manifest, written)


def _renewed(plan: Plan, say: Say) -> Manifest | None:
    """The same where attributes were written since, or are attached otherwise.

    Tables of an earlier version get what it did not write, without a look at the raw files.
    """
    manifest = _core(plan)
    if manifest is None:
        return None
    if manifest.schema_version != SCHEMA_VERSION:
        from legoray.data.slices import completed

        manifest = completed(plan.tables, manifest, say)
    written = attach(plan.written, manifest, plan.tables, plan.config.on_bad_row, say)
    return _settled(plan, manifest, written)


def _core(plan: Plan) -> Manifest | None:
    """The manifest as it stands, if the raw files and their reading are as they were."""
    path = plan.tables / "manifest.json"
    if not path.exists():
        return None
    try:
        manifest = read_json(path, Manifest)
    except InputError as error:
        hint = f"delete {plan.tables} and prepare again"
        raise InputError(*[Problem(p.where, p.message, hint) for p in error.problems]) from None
    known = (SCHEMA_VERSION, *COMPLETED)
    if manifest.schema_version not in known or manifest.config_hash != plan.config_hash:
        return None
    check_files(plan.tables, manifest)
    sources = same_files(manifest.sources, list(plan.sources.values()), plan.raw)
    return None if sources is None else manifest.model_copy(update={"sources": sources})


def _settled(plan: Plan, manifest: Manifest, written: dict[str, WrittenTable]) -> Manifest:
    """The manifest with these written attributes and what the YAML says, on disk where it differs.

    It differs from what is on disk at most by what the YAML says, by times, and by these.
    """
    described = _described(plan, manifest, written)
    if described != read_json(plan.tables / "manifest.json", Manifest):
        write_json(plan.tables / "manifest.json", described)
    return described


def _described(plan: Plan, manifest: Manifest, written: dict[str, WrittenTable]) -> Manifest:
    """What the YAML says of tables without changing their content."""
    config = plan.config
    raw = [name for name in manifest.attributes if name not in manifest.written]
    of_users = [name for name in manifest.user_attributes if name not in manifest.written]
    attributes = raw + [name for name, table in written.items() if table.of == "items"]
    text = config.text or list(plan.processor.default_text) or raw
    check_text(text, attributes, plan.document, plan.coming)
    changes: dict[str, Any] = {
        "title": config.title,
        "synthetic": config.synthetic,
        "raw": str(plan.raw),
        "attributes": attributes,
        "user_attributes": of_users + [n for n, table in written.items() if table.of == "users"],
        "written": written,
        "text": text,
        "group": config.group,
        "max_history": config.max_history,
        "published": config.published,
        "deviations": deviations(config, plan.document, manifest),
        "protocol": {**manifest.protocol, "group": config.group},
    }
    return manifest.model_copy(update=changes)


def _make(plan: Plan, say: Say) -> Manifest:
    from legoray.data.badrows import BadRows
    from legoray.data.engine import Engine, pick_engine
    from legoray.data.processors.base import Run
    from legoray.data.slices import write_slices
    from legoray.data.stages import Stages

    sources = [source_file(path, plan.raw) for path in dict.fromkeys(plan.sources.values())]
    total = sum(source.size for source in sources)
    stamp = hash_parts({"config": plan.config_hash, "files": [[s.path, s.sha256] for s in sources]})
    work = plan.tables.with_name(f".{plan.tables.name}.partial")
    # where LEGORAY_HOME is an address, other nodes do not see what this one makes
    engine = pick_engine(total) if address_of(work) is None else Engine()
    stages = Stages(work, stamp, say)
    again = "going on with" if stages.done() else "preparing"
    say(f"{again} {plan.config.name}: {total / 1e6:.1f} MB of raw files in {plan.raw}")
    bad_rows = BadRows(plan.config.on_bad_row, say)
    plan.processor.process(Run(plan.sources, stages, engine, bad_rows, say))
    facts = stages.total()
    told: dict[str, Any] = {"counts": facts.counts, "labeled": _labeled(facts), "engine": engine}
    stages.run("slices", ["slices"], partial(write_slices, work, **told))
    core = _manifest(plan, sources, stages.total(), work)
    written = attach(plan.written, core, work, plan.config.on_bad_row, say)
    manifest = _described(plan, core, written)
    write_json(work / "manifest.json", manifest)
    _move(work, plan.tables)
    _tell(manifest, say)
    return manifest


def _manifest(plan: Plan, sources: list[SourceFile], facts: Facts, work: Path) -> Manifest:
    tables = ("items", "users", "histories", "interactions", "slices")
    labeled = _labeled(facts)
    content = {"hashes": facts.hashes, "labeled": labeled, "attributes": facts.attributes}
    if facts.full_ranking:
        content["full_ranking"] = facts.full_ranking
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=plan.config.name,
        title="",
        synthetic=False,
        processor=plan.config.processor,
        config_hash=plan.config_hash,
        fingerprint=hash_parts(content),
        attributes=facts.attributes,
        user_attributes=facts.user_attributes,
        text=[],
        group="impression",
        max_history=1,
        labeled=labeled,
        full_ranking=facts.full_ranking,
        counts=facts.counts,
        dropped=facts.dropped,
        protocol=facts.protocol,
        sources=sources,
        files=[name for table in tables for name in table_files(work, table)],
    )


def _labeled(facts: Facts) -> dict[str, bool]:
    """Whether its labels are known, for each split that there is."""
    return {name: facts.labeled[name] for name in SPLITS if f"rows/{name}" in facts.counts}


def _move(work: Path, tables: Path) -> None:
    """Put whole tables in their place. Killed in between, the next run finds all stages done."""
    old = tables.with_name(f".{tables.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if tables.exists():
        tables.rename(old)
    work.rename(tables)
    _clear(tables)


def _rests(tables: Path) -> list[Path]:
    """What a preparation needed on its way; beside whole tables only where it was killed there."""
    names = ("scratch", "stages", "unfinished", "stamp.json")
    rests = [tables.with_name(f".{tables.name}.old"), *(tables / name for name in names)]
    return [path for path in rests if path.exists()]


def _clear(tables: Path) -> None:
    for path in _rests(tables):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _tell(manifest: Manifest, say: Say) -> None:
    counts = manifest.counts
    say(f"{counts['items']} items, {counts['users']} users, {counts['histories']} histories")
    for split, labeled in manifest.labeled.items():
        clicks = f"{counts[f'clicks/{split}']} clicks" if labeled else "unlabeled"
        rows = f"{counts[f'rows/{split}']} candidates, {clicks}"
        say(f"{split}: {counts[f'impressions/{split}']} impressions, {rows}")
    for reason, count in sorted(manifest.dropped.items()):
        word = "cleaned" if reason.split("/")[0] in CLEANED else "left out"
        say(f"{word}: {count} {reason.replace('_', ' ').replace('/', ' in ', 1)}")


@contextmanager
def _lock(plan: Plan, say: Say) -> Iterator[None]:
    """One process at a time prepares these tables; the kernel lets go when it dies."""
    with plan.tables.with_name(f".{plan.tables.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is preparing {plan.config.name}: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
