"""MIND's two parts of a world: each click is an impression with two other news beside it."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path

from worlds import Event, World

PROCESSOR = "mind"
OPTIONS: dict[str, object] = {}
TRAIN = 0.8  # of the events; they come in order of time


def write_raw(folder: Path, world: World) -> None:
    """train and dev, each with news.tsv and behaviors.tsv."""
    cut = int(TRAIN * len(world.events))
    past: dict[str, list[str]] = {}
    for part, events in (("train", world.events[:cut]), ("dev", world.events[cut:])):
        (folder / part).mkdir(parents=True, exist_ok=True)
        rows = [_impression(n + 1, event, past, world) for n, event in enumerate(events)]
        (folder / part / "behaviors.tsv").write_text("".join(rows), encoding="utf-8")
        text = "".join(
            f"N{item.key}\tnews\t{item.tags[0]}\t{item.title}\t{item.text}\thttps://x/{item.key}"
            "\t[]\t[]\n"
            for item in world.items
        )
        (folder / part / "news.tsv").write_text(text, encoding="utf-8")


def _impression(number: int, event: Event, past: dict[str, list[str]], world: World) -> str:
    draw = random.Random(f"{event.user} {event.item} {event.time}")
    others = draw.sample([item.key for item in world.items if item.key != event.item], 2)
    shown = [f"N{event.item}-1", *(f"N{key}-0" for key in others)]
    draw.shuffle(shown)
    when = datetime.fromtimestamp(event.time, UTC)
    told = f"{when.month}/{when.day}/{when.year} {when.hour % 12 or 12}:{when:%M:%S %p}"
    history = past.setdefault(event.user, [])
    row = f"{number}\tU{event.user}\t{told}\t{' '.join(history)}\t{' '.join(shown)}\n"
    history.append(f"N{event.item}")
    return row
