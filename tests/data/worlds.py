"""A small world of users and items, from which each family's raw files are written.

A module `raw_<family>.py` beside this one says how: `PROCESSOR` (its name), `OPTIONS` (of the data
set's YAML) and `write_raw(folder, world)`, which writes the files in the owners' exact format, with
their quirks, and with the world's keys, so that the tables can be compared with the world itself.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

START = 1_600_000_000  # September 2020
DAY = 86_400


@dataclass(frozen=True)
class Item:
    """An item: a key, and texts with what real files hold (quotes, commas, other scripts)."""

    key: str
    title: str
    text: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Event:
    """A user's feedback on an item: a value from 1 to 5, at a second that no other event has."""

    user: str
    item: str
    value: int
    time: int


@dataclass(frozen=True)
class World:
    """Items, and events in order of time."""

    items: list[Item]
    events: list[Event]

    def with_shuffled_future(self, now: int, seed: int = 0) -> World:
        """The same world until `now`; afterwards other items were met, by the same users."""
        past = [event for event in self.events if event.time < now]
        future = [event for event in self.events if event.time >= now]
        items = [event.item for event in future]
        random.Random(seed).shuffle(items)
        changed = [replace(event, item=item) for event, item in zip(future, items, strict=True)]
        return replace(self, events=past + changed)


def world(*, users: int = 24, items: int = 30, events: int = 400, seed: int = 1) -> World:
    """Users with numbers from 101, items with numbers from 1001; no user meets an item twice."""
    draw = random.Random(seed)
    words = ["storm", '"Harbour"', "cup,", "final", "Müller", "東京", "&", "café", "score;", "vote"]
    made = [
        Item(
            key=str(1001 + n),
            title=f"{draw.choice(words)} {draw.choice(words)} {n}",
            text=" ".join(draw.choice(words) for _ in range(8)),
            tags=tuple(draw.sample(["rock", "jazz", "news", "sports"], 2)),
        )
        for n in range(items)
    ]
    pairs = [(u, i) for u in range(users) for i in range(items)]
    found = []
    for place, (user, item) in enumerate(draw.sample(pairs, events)):
        time = START + place * DAY // 8 + draw.randrange(3600)
        value = draw.choice((2, 3, 4, 4, 5, 5))
        found.append(Event(str(101 + user), made[item].key, value, time))
    return World(made, found)
