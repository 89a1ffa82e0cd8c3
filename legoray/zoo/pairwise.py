"""All pairs of some models, compared on the values of groups that they keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from legoray.train.groupvalues import GroupValues
from legoray.zoo.bootstrap import ALPHA, RESAMPLES, Gap, holm, resample
from legoray.zoo.comparison import Difference, Pair, Verdict


@dataclass(frozen=True)
class Side:
    """What is compared: a configuration with its trainings' values, one for each seed."""

    key: str
    label: str
    values: list[GroupValues]


def compare_pairs(
    sides: Sequence[Side], metric: str, mode: str, *, seed: int, resamples: int = RESAMPLES
) -> list[Pair]:
    """Every pair of sides on a metric; their other metrics beside it.

    Args:
        sides: on the same groups.
        metric: that is tested; there are no pairs where a side lacks it.
        mode: whether `max` or `min` of it is better.
        seed: of the resampling, which all metrics share.
        resamples: how many.
    """
    shared = set.intersection(*(set(v.metrics) for one in sides for v in one.values))
    if metric not in shared or len(sides) < 2:
        return []
    metrics = sorted(shared)
    models = [
        np.stack([values.metrics[name] for values in one.values])
        for name in metrics
        for one in sides
    ]
    drawn = resample(models, sides[0].values[0].user, seed=seed, resamples=resamples)
    places = list(combinations(range(len(sides)), 2))
    gaps = {
        name: [drawn.gap(start + a, start + b) for a, b in places]
        for name, start in zip(metrics, range(0, len(models), len(sides)), strict=True)
    }
    corrected = holm([gap.p for gap in gaps[metric]])
    return [
        _pair(sides[a], sides[b], {name: gaps[name][index] for name in metrics}, metric, mode, p)
        for index, ((a, b), p) in enumerate(zip(places, corrected, strict=True))
    ]


def _pair(a: Side, b: Side, gaps: dict[str, Gap], metric: str, mode: str, p: float) -> Pair:
    found = gaps[metric]
    return Pair(
        a=a.key,
        b=b.key,
        label_a=a.label,
        label_b=b.label,
        **difference_of(found).model_dump(),
        p=found.p,
        p_holm=p,
        verdict=verdict_of(found.difference, p, mode),
        others={name: difference_of(gap) for name, gap in gaps.items() if name != metric},
    )


def difference_of(gap: Gap) -> Difference:
    """A gap as it is recorded."""
    return Difference(difference=gap.difference, low=gap.low, high=gap.high)


def verdict_of(difference: float, p: float, mode: str) -> Verdict:
    """What the first is than the second."""
    if p >= ALPHA:
        return "tie"
    return "better" if (difference > 0) == (mode == "max") else "worse"
