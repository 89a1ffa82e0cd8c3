"""How a search got on: the best so far by trial, by epochs and by hours; what was spent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from legoray.objectives import Mode
from legoray.records import TrialRecord
from legoray.search.display import taken


@dataclass(frozen=True)
class Step:
    """A trial that has ended, and the best value of a whole trial after it."""

    record: TrialRecord
    value: float  # its own best
    best: float  # NaN while none ran to its end
    epochs: int  # of all trials until then
    hours: float


def steps(records: Sequence[TrialRecord], select: str, mode: Mode) -> list[Step]:
    """The search's trials in the order in which they ended.

    What was stopped early, failed, or is infeasible has its costs, but is never the best: a trial
    that was stopped was not measured to its end. A trial that was reused cost nothing.

    Args:
        records: of the search.
        select: the selecting metric.
        mode: whether more of it is better.
    """
    better = max if mode == "max" else min
    best, epochs, seconds = math.nan, 0, 0.0
    found: list[Step] = []
    for record in sorted((r for r in records if r.ended), key=lambda r: (r.ended or 0, r.number)):
        value = record.best.get(select, math.nan)
        if not record.reused:
            epochs += len(record.epochs)
            seconds += taken(record) or 0.0
        if record.status == "completed" and math.isfinite(value):
            best = value if math.isnan(best) else better(best, value)
        found.append(Step(record, value, best, epochs, seconds / 3600))
    return found


def spent(records: Sequence[TrialRecord]) -> tuple[int, float]:
    """Epochs and hours of some trainings, added up; those that were reused cost nothing."""
    own = [record for record in records if not record.reused]
    return sum(len(r.epochs) for r in own), sum(taken(r) or 0.0 for r in own) / 3600


@dataclass(frozen=True)
class Matrix:
    """How well the operators of two kinds did together."""

    rows: list[str]
    columns: list[str]
    best: dict[tuple[str, str], TrialRecord]
    count: dict[tuple[str, str], int]  # trials that ended, in whatever way


def matrix(
    records: Sequence[TrialRecord], kinds: tuple[str, str], select: str, mode: Mode
) -> Matrix:
    """The best measured trial of each pair, and how many were tried.

    Operators stand in the order of the best value that each has; those without one come last.

    Args:
        records: of the search.
        kinds: two of content, behavior and predictor: of the rows, of the columns.
        select: the selecting metric.
        mode: whether more of it is better.
    """
    from legoray.zoo.fields import operators

    sign = -1.0 if mode == "max" else 1.0
    best: dict[tuple[str, str], TrialRecord] = {}
    count: dict[tuple[str, str], int] = {}
    tops: tuple[dict[str, float], dict[str, float]] = ({}, {})
    for record in records:
        parts = operators(record)
        if not record.ended or not set(kinds) <= set(parts):
            continue
        pair = (parts[kinds[0]], parts[kinds[1]])
        count[pair] = count.get(pair, 0) + 1
        value = record.best.get(select, math.nan)
        value = sign * value if math.isfinite(value) and _measured(record) else math.inf
        for top, name in zip(tops, pair, strict=True):
            top[name] = min(top.get(name, math.inf), value)
        known = best.get(pair)
        if value < math.inf and (known is None or value < sign * known.best[select]):
            best[pair] = record
    rows, columns = (sorted(top, key=lambda name: (top[name], name)) for top in tops)
    return Matrix(rows, columns, best, count)


def _measured(record: TrialRecord) -> bool:
    return record.status in ("completed", "pruned")
