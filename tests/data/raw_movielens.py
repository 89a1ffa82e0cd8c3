"""MovieLens' releases of a world: CSV (latest to 32M), and the older forms of 1M and 100K."""

from __future__ import annotations

import csv
from pathlib import Path

from worlds import World

PROCESSOR = "movielens"
OPTIONS = {"negatives": 3}
GENRES = 19


def write_raw(folder: Path, world: World) -> None:
    """movies.csv and ratings.csv, with CRLF."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(e.user, e.item, f"{e.value}.0", e.time) for e in world.events]
    _write(folder / "ratings.csv", ("userId", "movieId", "rating", "timestamp"), sorted(rows))
    movies = [(i.key, f"{i.title} (1999)", "|".join(i.tags)) for i in world.items]
    _write(folder / "movies.csv", ("movieId", "title", "genres"), movies)


def write_1m(folder: Path, world: World) -> None:
    """movies.dat, ratings.dat and users.dat: '::', Latin-1; ages and occupations as codes."""
    ratings = [(e.user, e.item, str(e.value), str(e.time)) for e in world.events]
    movies = [(i.key, f"{i.title} (1999)", "|".join(i.tags)) for i in world.items]
    users = [(user, "F", "25", "12", "55455") for user in _users(world)]
    tables = {"ratings.dat": ratings, "movies.dat": movies, "users.dat": users}
    _write_plain(folder, tables, "::")


def write_100k(folder: Path, world: World) -> None:
    """u.data, u.item and u.user: tabs or '|', Latin-1; 19 flags for genres."""
    ratings = [(e.user, e.item, str(e.value), str(e.time)) for e in world.events]
    _write_plain(folder, {"u.data": ratings}, "\t")
    flags = ["0"] * (GENRES - 1)
    movies = [(i.key, f"{i.title} (1999)", "01-Jan-1999", "", "http://x", "0", *flags)
              for i in world.items]  # fmt: skip
    users = [(user, "24", "F", "writer", "85711") for user in _users(world)]
    _write_plain(folder, {"u.item": movies, "u.user": users}, "|")


def _users(world: World) -> list[str]:
    return sorted({event.user for event in world.events})


def _write_plain(folder: Path, tables: dict[str, list[tuple[str, ...]]], separator: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        text = "".join(separator.join(row) + "\n" for row in rows)
        (folder / name).write_bytes(text.encode("latin-1", errors="replace"))


def _write(path: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\r\n").writerows([header, *rows])


RELEASES = {"1m": (write_1m, OPTIONS), "100k": (write_100k, OPTIONS)}
