"""One sequence of items per user of a world, with times and without."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import raw_own
from worlds import World

PROCESSOR = "sequences"
OPTIONS = {
    "items": {"file": "items.csv", "key": "item", "attributes": ["title", "text"]},
    "sequences": {"file": "users.csv", "times": "times"},
    "negatives": 3,
}


def write_raw(folder: Path, world: World) -> None:
    """items.csv; users.csv with the items and times of each user, oldest first."""
    folder.mkdir(parents=True, exist_ok=True)
    raw_own.write_csv(folder / "items.csv", raw_own.rows_of(world)["items"])
    events = sorted(world.events, key=lambda event: (event.user, event.time))
    rows = []
    for user, found in groupby(events, key=lambda event: event.user):
        had = list(found)
        items, times = (" ".join(str(getattr(e, n)) for e in had) for n in ("item", "time"))
        rows.append({"user": user, "items": items, "times": times})
    raw_own.write_csv(folder / "users.csv", rows)


RELEASES = {
    "timeless": (write_raw, {**OPTIONS, "sequences": {"file": "users.csv"}}),
}
