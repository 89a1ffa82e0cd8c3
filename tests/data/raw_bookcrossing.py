"""Book-Crossing of a world: the owners' three files, or the copies with commas."""

from __future__ import annotations

import csv
import html
from pathlib import Path

from worlds import World

PROCESSOR = "bookcrossing"
OPTIONS = {"negatives": 3}
BOOKS = (
    "ISBN", "Book-Title", "Book-Author", "Year-Of-Publication", "Publisher", "Image-URL-S",
    "Image-URL-M", "Image-URL-L",
)  # fmt: skip
USERS = ("User-ID", "Location", "Age")
RATINGS = ("User-ID", "ISBN", "Book-Rating")
PLACES = ("nyc, new york, usa", "porto, v.n.gaia, portugal", "köln, nrw, germany", "x, y, n/a")
IMAGE = "http://images.amazon.com/images/P/0.01.THUMBZZZ.jpg"

Rows = list[tuple[str | None, ...]]


def write_raw(folder: Path, world: World) -> None:
    """BX-Books.csv, BX-Users.csv, BX-Book-Ratings.csv: Latin-1, `;`, backslashes, entities."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, header, rows in _tables(world):
        text = "".join(";".join(map(_quoted, row)) + "\n" for row in [header, *rows])
        (folder / f"BX-{name}.csv").write_bytes(text.encode("latin-1"))


def write_copies(folder: Path, world: World) -> None:
    """Books.csv, Users.csv, Ratings.csv: UTF-8, commas, no entities lost."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, header, rows in _tables(world):
        path = folder / f"{name.removeprefix('Book-')}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])


RELEASES = {"copies with commas": (write_copies, OPTIONS)}


def title_of(title: str) -> str:
    """What Latin-1 leaves of a title."""
    return title.encode("latin-1", errors="replace").decode("latin-1")


def age_of(user: str) -> str | None:
    """Ages as people wrote them: some are missing, some no ages."""
    return None if int(user) % 4 == 0 else str(int(user) * 2 - 190)


def _tables(world: World) -> list[tuple[str, tuple[str, ...], Rows]]:
    books: Rows = [
        (i.key, html.escape(title_of(i.title), quote=False), "Carlo D'Este",
         "0" if n % 6 == 0 else str(1970 + n), "Houghton &amp; Sons", IMAGE, IMAGE, IMAGE)
        for n, i in enumerate(world.items)
    ]  # fmt: skip
    keys = sorted({event.user for event in world.events} | {"998"})
    users: Rows = [(key, PLACES[n % 4], age_of(key)) for n, key in enumerate(keys)]
    rated = sorted(world.events, key=lambda event: event.user)
    ratings: Rows = [(e.user, e.item, "0" if e.value == 3 else str(2 * e.value)) for e in rated]
    return [("Books", BOOKS, books), ("Users", USERS, users), ("Book-Ratings", RATINGS, ratings)]


def _quoted(value: str | None) -> str:
    if value is None:
        return "NULL"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
