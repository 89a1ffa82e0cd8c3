"""Compares a sweep's final models and baselines pairwise, by what their tests left behind."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from legoray.config import EvaluateConfig
from legoray.data.corpus import Corpus
from legoray.records import TrialRecord
from legoray.search.finals import final_groups, valid_of
from legoray.search.phases import Goal
from legoray.search.sweep import Sweep
from legoray.train.groupvalues import FILE, GroupValues, read_values, write_values
from legoray.zoo.bootstrap import LEVEL, RESAMPLES, tie_letters
from legoray.zoo.comparison import (
    Compared,
    Comparison,
    read_comparison,
    write_comparison,
)
from legoray.zoo.fields import config_key
from legoray.zoo.pairwise import Side, compare_pairs


@dataclass(frozen=True)
class Rival:
    """What is compared: a configuration's trainings with their values, or a baseline's."""

    key: str
    label: str
    phase: Literal["final", "baseline"]
    records: list[TrialRecord]
    values: list[GroupValues]


def compare_sweep(sweep: Sweep, goal: Goal) -> None:
    """Write a sweep's comparison into its folder; what is known of the champion stays.

    Raises:
        InputError: a file is damaged, or the folder cannot be written.
    """
    comparison = compare_finals(sweep, goal)
    if comparison is not None:
        before = read_comparison(sweep.folder)
        champion = None if before is None else before.champion
        write_comparison(sweep.folder, comparison.model_copy(update={"champion": champion}))


def keep_baseline(
    folder: Path, name: str, corpus: Callable[[], Corpus], config: EvaluateConfig, seed: int
) -> None:
    """Keep what a baseline's test left in a folder, unless it is there.

    Raises:
        InputError: the folder cannot be written.
    """
    from legoray.train.baselines import baseline_groups

    if not (folder / FILE).exists():
        values = baseline_groups(name, corpus(), "test", config, seed)
        if values is not None:
            write_values(folder, values)


def compare_finals(sweep: Sweep, goal: Goal, *, resamples: int = RESAMPLES) -> Comparison | None:
    """Compare all final models and baselines pairwise; None where nothing was tested.

    Nothing is measured: the values of groups that each test kept are read.

    Raises:
        InputError: a file is damaged.
    """
    rivals, missing = _rivals(sweep, goal)
    if not rivals:
        return None
    alike = [one for one in rivals if all(v.matches(rivals[0].values[0]) for v in one.values)]
    notes = [_left_out([r.label for r in rivals if r not in alike], "was tested on other groups")]
    notes.append(_left_out(missing, "was tested before values of groups were kept"))
    shared = set.intersection(*(set(v.metrics) for one in alike for v in one.values))
    if goal.select not in shared:
        notes.append(f"{goal.select} is of all rows together: differences in it are not tested")
    first = alike[0].values[0]
    labels = _labels(alike)
    sides = [Side(r.key, label, r.values) for r, label in zip(alike, labels, strict=True)]
    pairs = compare_pairs(sides, goal.select, goal.mode, seed=sweep.info.seed, resamples=resamples)
    differ = [(_place(alike, p.a), _place(alike, p.b)) for p in pairs if p.verdict != "tie"]
    letters = tie_letters(len(alike), differ) if pairs else [""] * len(alike)
    finals = [one.key for one in alike if one.phase == "final"]
    comparison = Comparison(
        sweep=sweep.info.id,
        metric=goal.select,
        mode="min" if goal.mode == "min" else "max",
        group="user" if first.origin.kind == "user" else "impression",
        groups=len(first.group),
        users=len(np.unique(first.user)),
        level=LEVEL,
        resamples=resamples,
        bootstrap_seed=sweep.info.seed,
        compared=[_compared(*row) for row in zip(alike, labels, letters, strict=True)],
        pairs=pairs,
        winner=finals[0] if finals else None,
        second=finals[1] if len(finals) > 1 else None,
        note="; ".join(note for note in notes if note),
    )
    if len(finals) < 2:
        return comparison
    found = comparison.pair(finals[0], finals[1])
    return comparison.model_copy(update={"against_second": found.verdict if found else None})


def _place(rivals: Sequence[Rival], key: str) -> int:
    return next(i for i, one in enumerate(rivals) if one.key == key)


def _rivals(sweep: Sweep, goal: Goal) -> tuple[list[Rival], list[str]]:
    """What was tested, the best on validation first, and what of it kept no values."""
    groups = final_groups(sweep)
    sign = -1.0 if goal.mode == "max" else 1.0
    order = sorted(groups, key=lambda key: sign * valid_of(groups[key], goal.select))
    found, missing = [], []
    for key in order:
        kept = [read_values(sweep.model_folder(r.key) / "best") for r in groups[key]]
        values = [one for one in kept if one is not None]
        if len(values) < len(kept):
            missing.append(groups[key][0].label)
        else:
            found.append(Rival(key, groups[key][0].label, "final", groups[key], values))
    for record in sweep.of("baseline"):
        own = read_values(sweep.model_folder(record.key))
        if record.status == "completed" and own is not None:
            found.append(Rival(config_key(record), record.label, "baseline", [record], [own]))
    return found, missing


def _left_out(labels: Sequence[str], why: str) -> str:
    return f"{', '.join(labels)} {why}" if labels else ""


def _labels(rivals: Sequence[Rival]) -> list[str]:
    """Labels that tell the rivals apart: those that repeat with what was chosen differently."""
    from legoray.zoo.board import settings_text

    told = []
    for one in rivals:
        alike = [r.records[0].params for r in rivals if r.label == one.label]
        mine = one.records[0].params
        own = {k: v for k, v in mine.items() if any(other.get(k) != v for other in alike)}
        told.append(f"{one.label} {settings_text(own)}" if own else one.label)
    return told


def _compared(one: Rival, label: str, letters: str) -> Compared:
    metrics = set.intersection(*(set(values.metrics) for values in one.values))
    return Compared(
        key=one.key,
        label=label,
        phase=one.phase,
        seeds=[int(r.config["seed"]) for r in one.records if "seed" in r.config],
        trials=[r.number for r in one.records],
        mean={
            metric: statistics.fmean(
                float(np.mean(v.metrics[metric], dtype=np.float64)) for v in one.values
            )
            for metric in sorted(metrics)
        },
        letters=letters,
    )
