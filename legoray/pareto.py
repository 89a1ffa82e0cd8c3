"""The Pareto front of a sweep: trials than which no other is better in everything.

All of it is computed from the sweep's records, which are the truth; Optuna's study is not asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from legoray.objectives import Objective, missing, on_front, values_of
from legoray.records import TrialRecord

Matrix = NDArray[np.float64]


def comparable(
    records: Iterable[TrialRecord], objectives: Sequence[Objective]
) -> list[TrialRecord]:
    """The search's trials that may stand on a front: run to their end, with every objective.

    What a scheduler stopped was never measured to its end, and is left out.
    """
    return [
        record
        for record in records
        if record.phase == "search"
        and record.status == "completed"
        and not missing(objectives, record.best, record.costs)
    ]


def value_matrix(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> Matrix:
    """The values `[N, M]` of comparable trials, a row per trial, a column per objective."""
    rows = [values_of(objectives, record.best, record.costs) for record in records]
    matrix = [[row[one.name] for one in objectives] for row in rows]
    return np.array(matrix, dtype=np.float64).reshape(len(rows), len(objectives))


def front(records: Iterable[TrialRecord], objectives: Sequence[Objective]) -> list[TrialRecord]:
    """The trials that no other dominates, the best of the first objective first.

    Trials with equal values are all on it or none; one that breaks an objective's limit is not,
    though it may be all that there is. Equal first values stand in the trials' order.

    Args:
        records: of a sweep, of any phase and status.
        objectives: what counts, in order.
    """
    whole = comparable(records, objectives)
    values = [values_of(objectives, record.best, record.costs) for record in whole]
    marks = on_front(values, objectives)
    sign, first = (-1.0 if objectives[0].mode == "max" else 1.0), objectives[0].name
    found = [(v, r) for v, r, mark in zip(values, whole, marks, strict=True) if mark]
    found.sort(key=lambda pair: (sign * pair[0][first], pair[1].number))
    return [record for _, record in found]


def knee(members: Sequence[TrialRecord], objectives: Sequence[Objective]) -> TrialRecord | None:
    """The compromise of a front: the member nearest to the ideal point; None of an empty front.

    Each objective is scaled to [0, 1] over the front, 0 being its best value there; the ideal point
    is 0 in all of them, and distances are Euclidean (compromise programming: Zeleny, Multiple
    Criteria Decision Making, 1982). Of equally near ones the first.
    """
    if not members:
        return None
    scaled = _scaled(value_matrix(members, objectives), objectives)
    return members[int(np.argmin(np.linalg.norm(scaled, axis=1)))]


def spread(
    members: Sequence[TrialRecord], objectives: Sequence[Objective], most: int
) -> list[TrialRecord]:
    """So many members of a front that lie far apart, the best of the first objective first.

    Each next one is the member farthest from those chosen (farthest-first traversal: Gonzalez,
    1985) over objectives scaled to [0, 1]; a member with the values of a chosen one comes last.

    Args:
        members: a front, as `front` gives it.
        objectives: what counts.
        most: how many, at most.
    """
    if not members or most < 1:
        return []
    scaled = _scaled(value_matrix(members, objectives), objectives)
    chosen, distance = [0], np.linalg.norm(scaled - scaled[0], axis=1)
    while len(chosen) < min(most, len(members)):
        distance[chosen] = -1.0
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(scaled - scaled[chosen[-1]], axis=1))
    return [members[index] for index in chosen]


def _scaled(values: Matrix, objectives: Sequence[Objective]) -> Matrix:
    """Values as [0, 1], 0 being the best of its column; a column of equal values is 0."""
    losses = values * np.where([one.mode == "max" for one in objectives], -1.0, 1.0)
    low, high = losses.min(axis=0), losses.max(axis=0)
    scaled: Matrix = (losses - low) / np.where(high > low, high - low, 1.0)
    return scaled
