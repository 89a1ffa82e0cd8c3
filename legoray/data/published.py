"""Counts as a data set's owners publish them, compared with what was read.

published: {items: 9742, events: 100836, users: 610}

`<what>` is compared with the count `raw/<what>`, which is of the files before any rule is applied,
or with the count `<what>` of the tables where there is no such. A deviation is no error: it is told
with its likely cause, and kept in the manifest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from legoray.config import DatasetConfig, read_dataset
from legoray.data.schema import Deviation, Manifest
from legoray.errors import InputError, unknown
from legoray.yamlfile import Document

RAW = "raw/"
BAD = "bad_rows/"
SHOWN = 3  # files that are named at once

TRUNCATED = "likely a truncated download"
EDITED = "likely another release, or an edited copy"


def comparable(counts: Mapping[str, int]) -> dict[str, int]:
    """What published counts may be compared with, by name.

    >>> comparable({"items": 3, "raw/items": 5, "rows/test": 7})
    {'items': 5, 'rows/test': 7}
    """
    raw = {n.removeprefix(RAW): count for n, count in counts.items() if n.startswith(RAW)}
    return {n: count for n, count in counts.items() if not n.startswith(RAW)} | raw


def deviations(config: DatasetConfig, document: Document, manifest: Manifest) -> list[Deviation]:
    """The published counts that were not met, each with its likely cause.

    Args:
        config: what the YAML says.
        document: the YAML itself; what other releases publish stands in the files beside it.
        manifest: what was counted.

    Raises:
        InputError: something is published that is not counted.
    """
    found = comparable(manifest.counts)
    wrong = [
        unknown("count", what, sorted(found), document.where(("published", what)))
        for what in config.published
        if what not in found
    ]
    if wrong:
        raise InputError(*wrong)
    off = {what: n for what, n in config.published.items() if found[what] != n}
    release = _other_release(config, document.path, found, list(off)) if off else ""
    return [
        Deviation(
            what=what,
            published=count,
            found=found[what],
            cause=release or _cause(count - found[what], manifest.dropped),
        )
        for what, count in off.items()
    ]


def told(manifest: Manifest) -> list[str]:
    """Lines that say how far the published counts were met; none where nothing is published."""
    if not manifest.deviations:
        met = ", ".join(f"{count:,} {what}" for what, count in manifest.published.items())
        return [f"as published: {met}"] if met else []
    lines = [f"not as published: {line}" for line in map(sentence, manifest.deviations)]
    files = [f"{source.path} {source.size:,} bytes" for source in manifest.sources]
    more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
    return [*lines, f"what was read: {', '.join(files[:SHOWN])}{more}; compare with the source's"]


def sentence(one: Deviation) -> str:
    """A deviation in words."""
    word = "fewer" if one.found < one.published else "more"
    by = f"{abs(one.found - one.published):,} {word}"
    return f"{one.found:,} {one.what}, published {one.published:,} ({by}): {one.cause}"


def _cause(lacking: int, dropped: Mapping[str, int]) -> str:
    """Why so many are lacking; below zero, why there are more."""
    if lacking < 0:
        return EDITED
    bad = {n.removeprefix(BAD): count for n, count in dropped.items() if n.startswith(BAD)}
    if not bad:
        return TRUNCATED
    files = ", ".join(f"{count:,} of {name}" for name, count in list(bad.items())[:SHOWN])
    left_out = f"bad rows were left out ({files})"
    return left_out if lacking <= sum(bad.values()) else f"{TRUNCATED}; {left_out}"


def _other_release(
    config: DatasetConfig, path: Path, found: Mapping[str, int], off: Sequence[str]
) -> str:
    """The data set beside this one whose published counts these are, or nothing."""
    for other in sorted(path.absolute().parent.glob("*.yaml")):
        try:
            known, _ = read_dataset(other)
        except InputError:
            continue  # it is not what was asked for, and is refused where it is
        same = known.processor == config.processor and known.published != config.published
        if same and set(off) & set(known.published) and _met(known.published, found):
            return f"these are the counts of {known.name} ({other.name})"
    return ""


def _met(published: Mapping[str, int], found: Mapping[str, int]) -> bool:
    return all(found.get(what) == count for what, count in published.items())
