"""Stages of a preparation: each is done wholly or not at all, and a done one is never redone.

A stage writes its folders under a temporary name; they are moved into place, and only then is its
marker written. What has no marker is thrown away when the preparation is run again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from pydantic import Field

from legoray.config import Strict
from legoray.records import read_json, write_json

SLOW = 5.0  # seconds from which on a stage is worth a line


class Facts(Strict):
    """What a stage reports for the manifest."""

    counts: dict[str, int] = Field(default_factory=dict)
    dropped: dict[str, int] = Field(default_factory=dict)
    protocol: dict[str, str | int | float | bool] = Field(default_factory=dict)
    labeled: dict[str, bool] = Field(default_factory=dict)
    attributes: list[str] = Field(default_factory=list)  # of items
    user_attributes: list[str] = Field(default_factory=list)
    full_ranking: list[str] = Field(default_factory=list)  # splits ranked against all items
    hashes: dict[str, str] = Field(default_factory=dict)  # of the content, by table


class Stamp(Strict):
    """What the work folder's stages were made from."""

    content: str


class Stages:
    """The work folder of one preparation."""

    def __init__(self, work: Path, stamp: str, say: Callable[[str], None]) -> None:
        self.work = work
        self.say = say
        self.facts: dict[str, Facts] = {}
        self._open(stamp)

    def run(self, name: str, outputs: list[str], make: Callable[[Path], Facts]) -> Facts:
        """Do a stage unless it is done. `make` writes the folders `outputs` below its argument."""
        marker = self.work / "stages" / f"{name.replace('/', '-')}.json"
        if marker.exists():
            self.say(f"{name}: done before")
        else:
            started = time.monotonic()
            self._make(outputs, make, marker)
            pa.default_memory_pool().release_unused()  # Arrow keeps what it let go of
            seconds = time.monotonic() - started
            if seconds > SLOW:
                self.say(f"{name}: {seconds:.0f} s")
        self.facts[name] = read_json(marker, Facts)
        return self.facts[name]

    def done(self) -> bool:
        """Whether an earlier run left finished stages here."""
        return any((self.work / "stages").glob("*.json"))

    def total(self) -> Facts:
        """The facts of all stages together."""
        merged: dict[str, dict[str, object]] = {}
        lists: dict[str, list[str]] = {"attributes": [], "user_attributes": [], "full_ranking": []}
        for facts in self.facts.values():
            content = facts.model_dump()
            for field in lists:
                lists[field] += content.pop(field)
            for field, values in content.items():
                merged.setdefault(field, {}).update(values)
        return Facts.model_validate({**merged, **lists})

    def _open(self, stamp: str) -> None:
        """Keep what an earlier run left if it was made from the same files, else start afresh."""
        path = self.work / "stamp.json"
        if path.exists() and read_json(path, Stamp).content == stamp:
            return
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        write_json(path, Stamp(content=stamp))

    def _make(self, outputs: list[str], make: Callable[[Path], Facts], marker: Path) -> None:
        temporary = self.work / "unfinished"
        shutil.rmtree(temporary, ignore_errors=True)
        for output in outputs:
            shutil.rmtree(self.work / output, ignore_errors=True)
            (temporary / output).mkdir(parents=True)
        facts = make(temporary)
        for output in outputs:
            (self.work / output).parent.mkdir(parents=True, exist_ok=True)
            (temporary / output).rename(self.work / output)
        write_json(marker, facts)
