"""The Netflix Prize of a world, in both forms: Kaggle's four files, or one file per movie."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

from worlds import World

PROCESSOR = "netflix"
OPTIONS = {"negatives": 3}
RESOLUTION = 86_400  # seconds: a rating has a date


def write_raw(folder: Path, world: World) -> None:
    """movie_titles.csv (Latin-1, no quotes) and combined_data_1.txt to _4.txt."""
    blocks = list(_blocks(folder, world).values())
    quarter = -(-len(blocks) // 4)
    for number in range(4):
        part = blocks[number * quarter : (number + 1) * quarter]
        (folder / f"combined_data_{number + 1}.txt").write_text("".join(part))


def write_movies_apart(folder: Path, world: World) -> None:
    """movie_titles.csv and training_set/mv_0000123.txt, a file per movie."""
    (folder / "training_set").mkdir(parents=True, exist_ok=True)
    for key, block in _blocks(folder, world).items():
        (folder / "training_set" / f"mv_{int(key):07d}.txt").write_text(block)


RELEASES = {"one file per movie": (write_movies_apart, OPTIONS)}


def title_of(title: str) -> str:
    """What Latin-1 leaves of a title."""
    return title.encode("latin-1", errors="replace").decode("latin-1")


def _blocks(folder: Path, world: World) -> dict[str, str]:
    """Writes the titles; what stands about each movie: `123:` and its ratings."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{item.key},{'NULL' if n % 5 == 0 else 1990 + n},{title_of(item.title)}\n"
        for n, item in enumerate(world.items)
    ]
    (folder / "movie_titles.csv").write_bytes("".join(lines).encode("latin-1"))
    ratings = defaultdict(list)
    for event in world.events:
        day = datetime.fromtimestamp(event.time, UTC).strftime("%Y-%m-%d")
        ratings[event.item].append(f"{event.user},{event.value},{day}\n")
    keys = sorted({item.key for item in world.items} | set(ratings))
    return {key: f"{key}:\n" + "".join(ratings[key]) for key in keys}
