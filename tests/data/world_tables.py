"""What the tables of a world must hold, by plain Python, and what prepared tables do hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from worlds import World

from legoray.data.load import load_corpus, load_items, load_users

Click = tuple[str, str, int, tuple[str, ...]]  # user, item, time, the items clicked before


def expected_clicks(
    world: World,
    *,
    like: float = 4,
    user: Callable[[str], str] = str,
    time: Callable[[int], int] = int,
    day: int = 1,
) -> list[Click]:
    """Every click that has a history, in any split, where times are told in steps of `day`."""
    liked = [(user(e.user), e.item, time(e.time)) for e in world.events if e.value >= like]
    found = []
    for who, item, when in liked:
        past = sorted((t, i) for u, i, t in liked if u == who and t // day < when // day)
        if past:
            found.append((who, item, when - when % day, tuple(i for _, i in past)))
    return sorted(found)


def found_clicks(tables: Path) -> list[Click]:
    """The same from tables."""
    corpus = load_corpus(tables)
    items = load_items(tables, ["key"])["key"].to_pylist()
    users = load_users(tables, ["key"])["key"].to_pylist()
    found = []
    for split in corpus.splits.values():
        for i in range(len(split)):
            start = corpus.history_offsets[split.history[i]]
            past = corpus.history_items[start : start + split.history_end[i]]
            clicked = items[split.item[split.offsets[i]] - 1]
            keys = tuple(items[one - 1] for one in past)
            found.append((users[split.user[i]], clicked, int(split.time[i]), keys))
    return sorted(found)
