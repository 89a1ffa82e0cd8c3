"""A world's events as impressions: each is a click among other items, after what was read before.

The other candidates depend on the event alone, so that another future leaves the past as it is.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from worlds import Event, World

TRAIN_SHARE = 0.7  # of the events; the later ones are the next official part


@dataclass(frozen=True)
class Shown:
    """One impression: the event, its other candidates, and the user's events before it."""

    number: int
    event: Event
    others: list[str]
    past: list[Event]


def impressions(world: World, *, others: int = 4) -> tuple[list[Shown], list[Shown]]:
    """The impressions of the first and of the second official part, in order of time."""
    keys = [item.key for item in world.items]
    found = []
    for number, event in enumerate(world.events):
        draw = random.Random(f"{event.user} {event.time}")
        free = [key for key in draw.sample(keys, others + 1) if key != event.item][:others]
        past = [e for e in world.events[:number] if e.user == event.user]
        found.append(Shown(number + 1, event, free, past))
    cut = round(len(found) * TRAIN_SHARE)
    return found[:cut], found[cut:]


def american(seconds: int) -> str:
    """A time as Microsoft News writes it: 9/5/2020 8:36:57 AM, without leading zeros."""
    t = time.gmtime(seconds)
    half = "AM" if t.tm_hour < 12 else "PM"
    clock = f"{t.tm_hour % 12 or 12}:{t.tm_min:02d}:{t.tm_sec:02d} {half}"
    return f"{t.tm_mon}/{t.tm_mday}/{t.tm_year} {clock}"
