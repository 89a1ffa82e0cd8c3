"""The record of a sweep and of its trials: plain JSON files in the sweep's folder.

These files are the truth that resuming, tracking and reports read; MLflow is written from them, so
that a tracking server that is down loses nothing.

    <sweep>/sweep.json                 SweepInfo
    <sweep>/space.yaml                 the search space as it was started
    <sweep>/study.journal              Optuna's journal
    <sweep>/trials/<number>.json       TrialRecord, rewritten atomically at every report
    <sweep>/models/<key>/last/         checkpoint of the newest epoch, deleted when a trial ends
    <sweep>/models/<key>/best/         model folder of the best epoch (`legoray.model.io`)
    <sweep>/comparison.json            what is better than what (`legoray.zoo.comparison`)
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from legoray.config import Strict
from legoray.errors import InputError, Problem
from legoray.spaceconfig import ObjectiveConfig

SHARED = 0o644  # others may read what is written: folders are shared among people and nodes
Status = Literal["running", "completed", "pruned", "infeasible", "failed", "interrupted"]
Phase = Literal["search", "final", "baseline"]
Metrics = dict[str, float]


class TrialRecord(Strict):
    """One training and what came of it."""

    number: int  # in the sweep, from 0; the name of its file
    key: str  # of config, data, protocol and texts read: equal keys have equal results
    phase: Phase = "search"
    label: str  # cnn+attention+dot
    config: dict[str, Any]  # a TrialConfig; empty for baselines
    reads: dict[str, str] | None = None  # attribute -> fingerprint of texts written later, or empty
    params: dict[str, Any] = Field(default_factory=dict)  # what the search chose, by path
    status: Status = "running"
    reason: str = ""  # why it failed, was stopped, or is infeasible
    epochs: list[Metrics] = Field(default_factory=list)  # one per epoch, with `epoch` from 1
    best: Metrics = Field(default_factory=dict)  # the epoch that validation selected
    test: Metrics = Field(default_factory=dict)  # only in phases final and baseline
    costs: Metrics = Field(default_factory=dict)  # seconds, parameters, trainable, memory_mb, ...
    started: float = 0.0
    ended: float | None = None
    node: str = ""
    resumed: int = 0  # how often it went on from a checkpoint
    reused: bool = False  # its result was taken from an earlier measurement
    source: dict[str, str] = Field(default_factory=dict)  # of which sweep, trial and MLflow run


class SweepInfo(Strict):
    """What all trials of a sweep have in common: two numbers compare where these are equal."""

    id: str
    name: str
    space_file: str
    space_hash: str
    data: str
    data_title: str = ""
    synthetic: bool = False
    tables: str
    fingerprint: str
    text: list[str] = Field(default_factory=list)  # attributes that are read by default
    written: dict[str, str] = Field(default_factory=dict)  # attribute written later -> fingerprint
    protocol: dict[str, str | int | float | bool]
    select: str
    objectives: list[ObjectiveConfig] = Field(default_factory=list)  # of several, `select` first
    seed: int
    git_revision: str = ""
    versions: dict[str, str] = Field(default_factory=dict)
    machine: str = ""  # that it was started on
    cluster: str = ""  # Ray's, when trials last ran
    created: float = 0.0
    state: Literal["searching", "finals", "finished", "interrupted"] = "searching"
    ended: str = ""  # why the search (not its finals) ended: trials, epochs, hours, exhausted
    spent: float = 0.0  # seconds of searching so far, over all processes
    command: str = ""  # that started it, where it was no search


R = TypeVar("R", bound=Strict)


def write_json(path: Path, content: Strict | dict[str, Any]) -> None:
    """Write JSON under a temporary name and move it into place.

    Raises:
        InputError: the folder cannot be written or the disk is full.
    """
    data = content.model_dump() if isinstance(content, Strict) else content
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=f".{path.name}.", delete=False, encoding="utf-8"
        ) as file:
            temporary = file.name
            json.dump(data, file, indent=1, sort_keys=True, allow_nan=True)
        os.chmod(temporary, SHARED)
        os.replace(temporary, path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True) if temporary else None
        raise InputError(unwritten(path, error)) from None


def unwritten(path: Path, error: OSError) -> Problem:
    """The problem with a file that cannot be written."""
    hint = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return Problem(str(path), f"cannot be written: {error.strerror}", hint)


def read_json(path: Path, cls: type[R]) -> R:
    """Read a record; a missing or damaged one is an InputError that names the file."""
    try:
        return cls.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(Problem(str(path), "no such file")) from None
    except (ValidationError, UnicodeDecodeError, OSError) as error:
        first = str(error).splitlines()[0]
        raise InputError(Problem(str(path), f"is damaged: {first}")) from None


def read_trials(sweep: Path) -> list[TrialRecord]:
    """All trial records of a sweep's folder, in order of number."""
    files = sorted((sweep / "trials").glob("[0-9]*.json"), key=lambda path: int(path.stem))
    return [read_json(path, TrialRecord) for path in files]


def digest(content: Any, length: int = 16) -> str:
    """A short hash of plain data, independent of the order of keys."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]
