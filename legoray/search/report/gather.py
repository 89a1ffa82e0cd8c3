"""What a report tells of: all that a sweep's folder holds, read once."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from optuna.distributions import BaseDistribution

from legoray.errors import InputError
from legoray.objectives import Mode, Objective, objectives_of
from legoray.records import SweepInfo, TrialRecord, read_json, read_trials
from legoray.search.finals import Summary, ranked, summaries, winner
from legoray.search.journal import open_journal
from legoray.search.sweep import Sweep
from legoray.train.metrics import direction
from legoray.yamlfile import parse_yaml
from legoray.zoo.board import Board, entry_of_record, make_boards
from legoray.zoo.comparison import Comparison, read_comparison
from legoray.zoo.state import FILE as TRACKING
from legoray.zoo.state import TrackingState


@dataclass(frozen=True)
class Facts:
    """A sweep as it stands."""

    folder: Path
    info: SweepInfo
    records: list[TrialRecord]
    space: str = ""  # the YAML, as the sweep began
    comparison: Comparison | None = None
    tracking: TrackingState | None = None
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)  # by path
    problems: tuple[str, ...] = ()  # what could not be read

    @cached_property
    def sweep(self) -> Sweep:
        """The same for functions that ask for an open sweep; it is never written to."""
        return Sweep(self.folder, self.info)

    @property
    def select(self) -> str:
        return self.info.select

    @property
    def mode(self) -> Mode:
        return cast(Mode, direction(self.info.select))

    @cached_property
    def search(self) -> list[TrialRecord]:
        """The search's trials, in order of number."""
        return [record for record in self.records if record.phase == "search"]

    @cached_property
    def ranked(self) -> list[TrialRecord]:
        """Its measured trials, the best first."""
        return ranked(self.search, self.select, self.mode)

    @cached_property
    def finals(self) -> list[TrialRecord]:
        return [record for record in self.records if record.phase == "final"]

    @cached_property
    def winner(self) -> TrialRecord | None:
        return winner(self.sweep, self.select, self.mode)

    @cached_property
    def summaries(self) -> list[Summary]:
        """The configurations that were trained anew, the best of validation first."""
        sign = -1.0 if self.mode == "max" else 1.0
        return sorted(summaries(self.sweep, self.select), key=lambda one: sign * one.valid)

    @cached_property
    def board(self) -> Board | None:
        """The leaderboard; None where nothing was begun."""
        boards = make_boards(entry_of_record(record, self.info) for record in self.records)
        return boards[0] if boards else None

    @cached_property
    def counts(self) -> Counter[str]:
        """How many of the search's trials have each status."""
        return Counter(record.status for record in self.search)

    @cached_property
    def objectives(self) -> tuple[Objective, ...]:
        return objectives_of(self.info.objectives, self.info.select)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The space's file as plain data; empty where it cannot be read."""
        try:
            return parse_yaml(self.space, self.folder / "space.yaml").data if self.space else {}
        except InputError:
            return {}


def gather(folder: Path) -> Facts:
    """Read a sweep's folder. Only its `sweep.json` and its trials must be there.

    Raises:
        InputError: they are missing or damaged.
    """
    info = read_json(folder / "sweep.json", SweepInfo)
    records = read_trials(folder)
    problems: list[str] = []
    found: dict[str, Any] = {}
    for name, read in (
        ("comparison", lambda: read_comparison(folder)),
        ("tracking", lambda: _tracking(folder)),
        ("distributions", lambda: _distributions(folder, info)),
        ("space", lambda: _space(folder)),
    ):
        try:
            found[name] = read()
        except InputError as error:
            problems.append(str(error))
    return Facts(folder, info, records, problems=tuple(problems), **found)


def _tracking(folder: Path) -> TrackingState | None:
    return read_json(folder / TRACKING, TrackingState) if (folder / TRACKING).exists() else None


def _space(folder: Path) -> str:
    path = folder / "space.yaml"
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _distributions(folder: Path, info: SweepInfo) -> dict[str, BaseDistribution]:
    """What each parameter was drawn from; a choice that was narrowed counts with all its options.

    Raises:
        InputError: the study's journal is damaged.
    """
    import optuna
    from optuna.distributions import CategoricalDistribution

    if not (folder / "study.journal").exists():
        return {}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.load_study(
            study_name=info.id, storage=open_journal(folder / "study.journal")
        )
    except KeyError:  # it was never begun
        return {}
    found: dict[str, BaseDistribution] = {}
    for trial in study.get_trials(deepcopy=False):
        for name, one in trial.distributions.items():
            path = name.partition("@")[0]
            known = found.get(path)
            if isinstance(known, CategoricalDistribution) and isinstance(
                one, CategoricalDistribution
            ):
                every = dict.fromkeys([*known.choices, *one.choices])
                one = CategoricalDistribution(sorted(every, key=json.dumps))
            found[path] = one
    return found
