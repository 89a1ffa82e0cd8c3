"""Distributions in few enough parts to be drawn; the numbers in the tables are exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from legoray.data.inspecting.result import Distribution

BARS = 30
POINTS = 40
_STEPS = (1, 2, 5)


@dataclass(frozen=True)
class Bars:
    """Equal parts, and a last one of everything beyond."""

    names: list[str]  # such as `4` or `10-14` or `300+`
    shares: list[list[float]]  # of each distribution, per part; percent


def bars_of(several: Sequence[Distribution]) -> Bars:
    """Distributions side by side, in equal parts up to where the longest tail begins.

    Args:
        several: none of them empty.
    """
    low = min(one.values[0] for one in several)
    most = max(one.values[-1] for one in several)
    tail = max(one.quantile(0.99) for one in several)
    width = _width(tail - low + 1)
    start = low - low % width
    size = (tail - start) // width + 1
    names = [_name(start + i * width, width) for i in range(size)]
    beyond = start + size * width
    if most >= beyond:
        names.append(f"{beyond}+")
    shares = []
    for one in several:
        place = np.minimum((np.array(one.values) - start) // width, len(names) - 1)
        counts = np.bincount(place, one.counts, minlength=len(names))
        shares.append((100 * counts / one.count).round(3).tolist())
    return Bars(names, shares)


def curve_of(one: Distribution) -> tuple[list[float], list[float]]:
    """A distribution in parts that grow with the numbers: their middles, and percent in each."""
    edges = np.unique(np.geomspace(1, one.values[-1] + 1, POINTS).round().astype(int))
    edges = np.append(edges, edges[-1] + 1) if len(edges) == 1 else edges
    place = np.clip(np.searchsorted(edges, one.values, side="right") - 1, 0, len(edges) - 2)
    counts = np.bincount(place, one.counts, minlength=len(edges) - 1)
    middles = (edges[:-1] + edges[1:] - 1) / 2
    some = np.flatnonzero(counts)
    return middles[some].tolist(), (100 * counts[some] / one.count).round(3).tolist()


def _width(span: int) -> int:
    """The least of 1, 2, 5, 10, 20, ... by which a span is not too many parts."""
    power = 1
    while True:
        for step in _STEPS:
            if ceil(span / (step * power)) <= BARS:
                return step * power
        power *= 10


def _name(start: int, width: int) -> str:
    return str(start) if width == 1 else f"{start}-{start + width - 1}"
