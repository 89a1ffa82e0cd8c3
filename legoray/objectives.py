"""What a search optimizes: the selecting metric, and costs beside it.

| objective | read from | unit | better |
| --- | --- | --- | --- |
| a metric of `evaluate.metrics` | the epoch that validation selected | | as the metric says |
| `latency` | `costs.latency_ms` | milliseconds for one user and 1,000 candidates | less |
| `parameters` | `costs.parameters` | numbers, the frozen ones among them | less |
| `trainable` | `costs.trainable` | numbers that training changes | less |
| `train_seconds` | `costs.train_seconds` | seconds of all epochs, evaluation not counted | less |
| `memory` | `costs.memory_mb` | MiB of the training at its peak | less |
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from legoray.spaceconfig import ObjectiveConfig

Mode = Literal["max", "min"]
COSTS: Mapping[str, str] = {
    "latency": "latency_ms",
    "parameters": "parameters",
    "trainable": "trainable",
    "train_seconds": "train_seconds",
    "memory": "memory_mb",
}
MEASURED = ("latency", "train_seconds", "memory")  # they depend on the machine and what runs on it
UNITS: Mapping[str, str] = {
    "latency": "ms per 1,000 candidates",
    "train_seconds": "s",
    "memory": "MiB",
}


@dataclass(frozen=True)
class Objective:
    """One thing that a search makes as good as it can."""

    name: str
    mode: Mode
    limit: float | None = None  # what is worse stays out of the front

    @property
    def title(self) -> str:
        """Its name and unit, as tables and axes show it."""
        return f"{self.name} ({UNITS[self.name]})" if self.name in UNITS else self.name

    def value(self, best: Mapping[str, float], costs: Mapping[str, float]) -> float | None:
        """A trial's value; None where it was not measured or is not finite.

        Args:
            best: metrics of the trial's best epoch.
            costs: what the trial cost.
        """
        found = costs.get(COSTS[self.name]) if self.name in COSTS else best.get(self.name)
        return float(found) if found is not None and math.isfinite(found) else None

    def within(self, value: float) -> bool:
        """Whether a value keeps the limit."""
        if self.limit is None:
            return True
        return value >= self.limit if self.mode == "max" else value <= self.limit


def objectives_of(configs: Sequence[ObjectiveConfig], select: str) -> tuple[Objective, ...]:
    """The objectives of a search in their order: the selecting metric where none are given."""
    from legoray.train.metrics import direction

    given = configs or [ObjectiveConfig(name=select)]
    return tuple(
        Objective(one.name, "min" if one.name in COSTS else direction(one.name), one.limit)
        for one in given
    )


def values_of(
    objectives: Sequence[Objective], best: Mapping[str, float], costs: Mapping[str, float]
) -> dict[str, float]:
    """The values that a trial has, by objective; one that is missing or not finite is left out."""
    found = {one.name: one.value(best, costs) for one in objectives}
    return {name: value for name, value in found.items() if value is not None}


def missing(
    objectives: Sequence[Objective], best: Mapping[str, float], costs: Mapping[str, float]
) -> str:
    """Why a trial cannot be compared; empty where all of its objectives are there."""
    known = values_of(objectives, best, costs)
    for one in objectives:
        if one.name not in known:
            found = costs.get(COSTS[one.name]) if one.name in COSTS else best.get(one.name)
            what = "was not measured" if found is None else f"is {found}"
            return f"its objective {one.name} {what}"
    return ""


def value_text(name: str, value: float | None) -> str:
    """An objective's value as tables show it, such as `0.6123` or `12.3M`; empty for None."""
    if value is None:
        return ""
    if name in ("parameters", "trainable"):
        for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
            if value >= 10 * size or (unit != "k" and value >= size):
                return f"{value / size:.1f}{unit}"
    digits = {"latency": 2, "train_seconds": 1, "memory": 0, "parameters": 0, "trainable": 0}
    return f"{value:,.{digits.get(name, 4)}f}"


def non_dominated(values: ArrayLike, modes: Sequence[Mode]) -> NDArray[np.bool_]:
    """Which points of `[N, M]` no other point dominates, as `[N]`.

    A point dominates another one if it is at least as good in every objective and better in one
    (Deb, Multi-Objective Optimization using Evolutionary Algorithms, 2001, definition 2.5). Equal
    points do not dominate each other: all of them are kept, or none. A point with a value that is
    NaN is never kept and dominates nothing.

    Args:
        values: one row per point, one column per objective.
        modes: whether more (`max`) or less (`min`) is better, per column.

    Raises:
        ValueError: the columns are not as many as the modes.
    """
    points = np.asarray(values, dtype=np.float64)
    if not points.size:
        return np.zeros(len(points), dtype=np.bool_)
    if points.ndim != 2 or points.shape[1] != len(modes):
        raise ValueError(f"values of shape {points.shape} do not have {len(modes)} columns")
    points = points * np.where(np.asarray(modes) == "max", -1.0, 1.0)  # less is better from here
    kept = np.array(~np.isnan(points).any(axis=1), dtype=np.bool_)
    for index in np.flatnonzero(kept):
        no_worse = (points <= points[index]).all(axis=1)
        better = (points < points[index]).any(axis=1)
        kept[index] = not (no_worse & better).any()
    return kept


def on_front(
    values: Sequence[Mapping[str, float]], objectives: Sequence[Objective]
) -> NDArray[np.bool_]:
    """Which of some trials no other one dominates, as `[N]`.

    Args:
        values: of each trial, by objective; one that lacks an objective or is worse than a limit is
            not on the front and beats nobody.
        objectives: what counts.
    """
    kept = [all(one.name in row and one.within(row[one.name]) for one in objectives)
            for row in values]  # fmt: skip
    rows = [
        [row[one.name] if whole else math.nan for one in objectives]
        for row, whole in zip(values, kept, strict=True)
    ]
    return non_dominated(rows, [one.mode for one in objectives])
