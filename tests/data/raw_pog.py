"""POG's files of a world: a user's line for each outfit clicked, with all clicked before it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from worlds import World

PROCESSOR = "pog"
OPTIONS = {"negatives": 3}
LONGEST = 4  # of what a line tells, though users clicked more


def write_raw(folder: Path, world: World) -> None:
    """item_data.txt, user_data.txt and outfit_data.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    items = [f"{i.key},{i.tags[0]},http://img/{i.key}.jpg,{i.title}" for i in world.items]
    _write(folder / "item_data.txt", items)
    clicks: dict[str, list[str]] = defaultdict(list)
    lines = []
    for event in world.events:
        clicks[event.user].append(event.item)
        lines.append(f"{event.user},{';'.join(clicks[event.user][-LONGEST:])},o{event.item}")
    _write(folder / "user_data.txt", lines)
    keys = [item.key for item in world.items]
    outfits = [f"o{a},{a};{b};{c}" for a, b, c in zip(keys, keys[1:], keys[2:], strict=False)]
    last = [f"o{key},{key};{keys[0]};{keys[1]}" for key in keys[-2:]]
    _write(folder / "outfit_data.txt", [*outfits, *last])


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


RELEASES = {"outfits": (write_raw, {**OPTIONS, "of": "outfits"})}
