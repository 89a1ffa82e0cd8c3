"""MovieLens' CSV release of a world."""

from __future__ import annotations

import csv
from pathlib import Path

from worlds import World

PROCESSOR = "movielens"
OPTIONS = {"negatives": 3}


def write_raw(folder: Path, world: World) -> None:
    """movies.csv and ratings.csv, with CRLF."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(e.user, e.item, f"{e.value}.0", e.time) for e in world.events]
    _write(folder / "ratings.csv", ("userId", "movieId", "rating", "timestamp"), sorted(rows))
    movies = [(i.key, f"{i.title} (1999)", "|".join(i.tags)) for i in world.items]
    _write(folder / "movies.csv", ("movieId", "title", "genres"), movies)


def _write(path: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\r\n").writerows([header, *rows])
