"""The Pareto front of a sweep, for the search: `legoray.pareto`, which the zoo reads as well."""

from __future__ import annotations

from legoray.pareto import comparable, front, knee, spread, value_matrix

__all__ = ["comparable", "front", "knee", "spread", "value_matrix"]
