"""goodbooks-10k of a world: books, ratings in order of time, tags by Goodreads' own numbers."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from worlds import World

PROCESSOR = "goodbooks"
OPTIONS = {"negatives": 3}
BOOKS = (
    "book_id", "goodreads_book_id", "best_book_id", "work_id", "books_count", "isbn", "isbn13",
    "authors", "original_publication_year", "original_title", "title", "language_code",
    "average_rating", "ratings_count", "image_url",
)  # fmt: skip


def write_raw(folder: Path, world: World) -> None:
    """books.csv, ratings.csv, tags.csv, book_tags.csv and to_read.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(
        folder / "books.csv", BOOKS, (_book(n, i.key, i.title) for n, i in enumerate(world.items))
    )
    events = sorted(world.events, key=lambda event: event.time)
    ratings = ((e.user, e.item, e.value) for e in events)
    _write(folder / "ratings.csv", ("user_id", "book_id", "rating"), ratings)
    tags = sorted({tag for item in world.items for tag in item.tags})
    _write(folder / "tags.csv", ("tag_id", "tag_name"), enumerate(tags))
    given = (
        (goodreads(item.key), tags.index(tag), 100 - 7 * place)
        for item in world.items
        for place, tag in enumerate(item.tags)
    )
    _write(folder / "book_tags.csv", ("goodreads_book_id", "tag_id", "count"), given)
    _write(folder / "to_read.csv", ("user_id", "book_id"), [(e.user, e.item) for e in events[:5]])


def goodreads(key: str) -> int:
    """A book's number at Goodreads, which is not that of the ratings."""
    return 9_000_000 - int(key)


def _book(number: int, key: str, title: str) -> tuple[object, ...]:
    isbn = "" if number % 7 == 0 else 439023483 + number  # a leading zero is gone
    year = "" if number % 9 == 0 else f"{1990 + number}.0"
    return (
        key, goodreads(key), goodreads(key), 5, 272, isbn, "9.78043902348e+12",
        "J.K. Rowling, Mary GrandPré", year, title, f"{title} (Series, #1)", "eng", 4.34, 9, "https://x/y",
    )  # fmt: skip


def _write(path: Path, header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
