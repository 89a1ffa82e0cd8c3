"""Popularity of items, and impressions over time."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from legoray.data.corpus import Int64
from legoray.data.inspecting.result import Popularity, Timeline
from legoray.data.inspecting.splits import HOUR, SplitPass

HEADS = (0.01, 0.1, 0.2)
RANKS = 120  # points of the curve
PERIODS = 120  # at most
UNITS = {
    "hour": HOUR,
    "6 hours": 6 * HOUR,
    "day": 24 * HOUR,
    "week": 7 * 24 * HOUR,
    "4 weeks": 28 * 24 * HOUR,
    "13 weeks": 91 * 24 * HOUR,
}
YEAR = 364 * 24 * HOUR


def popularity_of(clicked: Int64, head_items: NDArray[np.bool_]) -> Popularity:
    """How unevenly clicks are spread.

    Args:
        clicked: `[N]` clicks of each item, those without a click among them.
        head_items: `[N]` which of them are the head.
    """
    rising = np.sort(clicked)
    falling, total = rising[::-1], int(rising.sum())
    running = np.cumsum(falling)
    head = {
        f"{share:.0%}": float(running[math.ceil(share * len(rising)) - 1] / total) if total else 0.0
        for share in HEADS
    }
    some = int((falling > 0).sum())
    ranks = np.unique(np.geomspace(1, max(some, 1), RANKS).round().astype(np.int64))
    return Popularity(
        clicks=total,
        items=len(rising),
        never=len(rising) - some,
        head_items=int(head_items.sum()),
        gini=gini(rising),
        head=head,
        ranks=ranks.tolist() if some else [],
        at_rank=falling[ranks - 1].tolist() if some else [],
    )


def gini(rising: Int64) -> float:
    """Gini's coefficient of numbers that rise: mean difference of two by twice their mean.

    G = 2 sum(i x_i) / (n sum(x_i)) - (n + 1) / n, with i from 1.
    """
    size, total = len(rising), int(rising.sum())
    if not total:
        return 0.0
    weighted = float((np.arange(1, size + 1, dtype=np.float64) * rising).sum())
    return 2 * weighted / (size * total) - (size + 1) / size


def timeline_of(passes: list[SplitPass]) -> Timeline | None:
    """Impressions of each split over time, in periods of the shortest unit that is not too many."""
    timed = [one for one in passes if len(one.hours.numbers)]
    if not timed:
        return None
    first = min(int(one.hours.numbers[0]) for one in timed) * HOUR
    span = max(int(one.hours.numbers[-1]) for one in timed) * HOUR - first
    unit, seconds = _unit(span)
    start = first - first % min(seconds, UNITS["day"])
    size = (first + span - start) // seconds + 1
    counts = {}
    for one in timed:
        period = (one.hours.numbers * HOUR - start) // seconds
        counts[one.name] = np.bincount(period, one.hours.counts, minlength=size).astype(int)
    return Timeline(
        unit=unit,
        seconds=seconds,
        start=start,
        counts={name: found.tolist() for name, found in counts.items()},
    )


def _unit(span: int) -> tuple[str, int]:
    """The shortest period of which not too many make `span` seconds."""
    for name, seconds in UNITS.items():
        if span // seconds < PERIODS:
            return name, seconds
    years = 1 + span // (YEAR * PERIODS)
    return f"{52 * years} weeks", YEAR * years
