"""Ages in the groups of MovieLens 1M, so that users of different data sets can be compared."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

GROUPS = {1: "under 18", 18: "18-24", 25: "25-34", 35: "35-44", 45: "45-49", 50: "50-55", 56: "56+"}
PLAUSIBLE = (5, 100)  # where people wrote their age as they liked


def age_groups(age: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The group of each age in years; what is below a year is under 18, null is null's place."""
    years = pc.fill_null(age, 0).to_numpy()
    group = np.searchsorted(np.array(list(GROUPS)), years, side="right") - 1
    return pa.array(GROUPS.values()).take(pa.array(group.clip(min=0)))


def plausible_groups(age: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """The same; empty where the age is null or outside `PLAUSIBLE`."""
    low, high = PLAUSIBLE
    fine = pc.and_(pc.greater_equal(age, low), pc.less_equal(age, high))
    return pc.if_else(pc.fill_null(fine, False), age_groups(age), "")
