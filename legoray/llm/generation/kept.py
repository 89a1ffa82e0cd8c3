"""What was written before, and whether more of the same may be added to it.

An attribute holds the texts of one recipe: prompt, model, seed and settings. Another recipe is
refused, or sets what was written aside, so that two prompts never mix under one name.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from legoray.data.evidence import Evidence
from legoray.data.written import (
    COLUMNS,
    Provenance,
    WrittenMeta,
    part_files,
    read_meta,
    read_written,
    write_meta,
    write_part,
)
from legoray.errors import InputError, Problem
from legoray.llm.generation.questions import Questions
from legoray.records import digest

_ADVICE = "--as writes under another name; --overwrite sets what is there aside"


@dataclass(frozen=True)
class Known:
    """Which rows are written already, and of which the text has changed since."""

    fresh: list[bool]
    changed: list[bool]
    cut: int = 0  # answers so far that ended at the token limit


def sources_of(questions: Questions, recipe: Mapping[str, Any]) -> list[str]:
    """The digest of all that decides each row's text."""
    shared = digest(recipe, 64)
    pairs = zip(questions.system, questions.user, strict=True)
    return [digest([shared, system, user], 24) for system, user in pairs]


def look(folder: Path, recipe: Mapping[str, Any], keys: Sequence[str], sources: list[str]) -> Known:
    """What is written of these rows.

    Raises:
        InputError: it was written by another recipe, or is damaged.
    """
    if not part_files(folder):
        return Known([False] * len(keys), [False] * len(keys))
    if not (folder / "meta.json").exists():
        message = "holds texts, but no meta.json that says what wrote them"
        raise InputError(Problem(str(folder), message, _ADVICE))
    meta = read_meta(folder)
    before = meta.provenance.settings.get("recipe")
    if before != recipe:
        unlike = _unlike(before if isinstance(before, dict) else {}, recipe)
        message = f"'{meta.attribute}' was written with another {unlike}"
        raise InputError(Problem(str(folder), message, _ADVICE))
    table = read_written(folder)
    known = dict(zip(table["key"].to_pylist(), table["source"].to_pylist(), strict=True))
    pairs = list(zip(keys, sources, strict=True))
    return Known(
        [known.get(key) == source for key, source in pairs],
        [key in known and known[key] != source for key, source in pairs],
        meta.counts.get("cut", 0),
    )


def refuse_changed(folder: Path, keys: Sequence[str], changed: Sequence[bool], of: str) -> None:
    """Texts of changed items are replaced on request only.

    Raises:
        InputError: there are some.
    """
    found = [key for key, one in zip(keys, changed, strict=True) if one]
    if found:
        some = ", ".join(found[:3])
        message = f"what {len(found):,} {of} were written from has changed since, such as {some}"
        raise InputError(Problem(str(folder), message, _ADVICE))


def _unlike(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The names of what differs, such as `prompt and seed`."""
    flat = [{**one, **one.get("by", {})} for one in (dict(before), dict(now))]
    names = [n for n in {**flat[0], **flat[1]} if n != "by" and flat[0].get(n) != flat[1].get(n)]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names) or "recipe"


def set_aside(folder: Path, keep: Sequence[str] = ()) -> Path | None:
    """Move an attribute's folder away; texts with the sources in `keep` stay.

    Returns:
        Where it lies now, None where there was nothing.
    """
    if not folder.exists():
        return None
    place = folder.parent / ".replaced"
    place.mkdir(exist_ok=True)
    number = 1
    while (place / f"{folder.name}-{number}").exists():
        number += 1
    working = place / f".new-{folder.name}"
    shutil.rmtree(working, ignore_errors=True)
    if keep:
        table = read_written(folder)
        table = table.filter(pc.is_in(table["source"], value_set=pa.array(keep, pa.string())))
        if len(table):
            working.mkdir()
            write_part(working, table)
            shutil.copy(folder / "meta.json", working / "meta.json")
    away = place / f"{folder.name}-{number}"
    os.replace(folder, away)
    if working.exists():
        os.replace(working, folder)
    return away


def part(keys: list[str], sources: list[str], texts: list[str], statuses: list[str]) -> pa.Table:
    """The rows of one part."""
    columns = {"key": keys, "source": sources, "text": texts, "status": statuses}
    return pa.table(columns, schema=COLUMNS)


def recount(folder: Path, cut: int) -> Counter[str]:
    """Texts by status, counted in the parts, and how many answers were cut off."""
    if not part_files(folder):
        return Counter(cut=cut)
    found = pc.value_counts(read_written(folder)["status"]).to_pylist()
    return Counter({row["values"]: row["counts"] for row in found}) + Counter(cut=cut)


def note(
    folder: Path,
    *,
    of: Any,
    provenance: Provenance,
    counts: Mapping[str, int],
    evidence: Evidence,
) -> None:
    """Write `meta.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    meta = WrittenMeta(
        attribute=folder.name,
        of=of,
        made="generated",
        provenance=provenance,
        counts=dict(counts),
        evidence=evidence,
    )
    write_meta(folder, meta)


def compact(folder: Path, most: int = 64) -> None:
    """Many small parts -> one; killed in between, both are there and say the same."""
    before = part_files(folder)
    if len(before) > most:
        whole = write_part(folder, read_written(folder))
        for path in before:
            if path != whole:
                path.unlink()
