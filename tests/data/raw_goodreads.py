"""Goodreads' books, authors and interactions of a world, as UCSD publishes them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from raw_amazon import write_lines
from worlds import Event, World

PROCESSOR = "goodreads"
OPTIONS: dict[str, object] = {"negatives": 3}


def write_raw(folder: Path, world: World) -> None:
    """The whole: goodreads_books.json.gz, goodreads_interactions_dedup.json.gz, the authors."""
    write_files(folder, world, "goodreads_books", "goodreads_interactions_dedup")


def write_genre(folder: Path, world: World) -> None:
    """One genre, without the authors' file, which is in another folder of the site."""
    write_files(folder, world, "goodreads_books_poetry", "goodreads_interactions_poetry")
    (folder / "goodreads_book_authors.json.gz").unlink()


RELEASES: dict[str, tuple[Callable[[Path, World], None], dict[str, object]]] = {
    "whole": (write_raw, OPTIONS),
    "genre": (write_genre, OPTIONS | {"genre": "poetry"}),
}


def write_files(folder: Path, world: World, books: str, interactions: str) -> None:
    events = sorted(world.events, key=lambda event: (event.user, -event.time))
    write_lines(folder / f"{interactions}.json.gz", [interaction(event) for event in events])
    write_lines(folder / f"{books}.json.gz", book_rows(world))
    names = sorted({tag for item in world.items for tag in item.tags})
    write_lines(
        folder / "goodreads_book_authors.json.gz",
        [
            {
                "average_rating": "3.98",
                "author_id": author(name),
                "text_reviews_count": "7",
                "name": f"{name.title()} Ünal",
                "ratings_count": "49",
            }
            for name in names
        ],
    )


def interaction(event: Event) -> dict[str, object]:
    """What the world values at 2 was shelved, not read: its rating is 0, its `read_at` empty."""
    shelved = event.value == 2
    return {
        "user_id": event.user.rjust(32, "0"),
        "book_id": event.item,
        "review_id": str(abs(event.time)).rjust(32, "0"),
        "is_read": not shelved,
        "rating": 0 if shelved else event.value,
        "review_text_incomplete": "",
        "date_added": when(event.time),
        "date_updated": when(event.time + 60),
        "read_at": "" if shelved else when(event.time - event.time % 86_400),
        "started_at": "",
    }


def book_rows(world: World) -> list[dict[str, object]]:
    return [
        {
            "isbn": "",
            "text_reviews_count": "3",
            "series": [],
            "country_code": "US",
            "language_code": "eng" if number % 3 else "",
            "popular_shelves": [
                {"count": "9", "name": "to-read"},
                *({"count": "3", "name": tag} for tag in item.tags),
            ],
            "is_ebook": "false",
            "average_rating": "4.00",
            "similar_books": [world.items[0].key],
            "description": item.text,
            "format": "Paperback",
            "link": f"https://www.goodreads.com/book/show/{item.key}",
            "authors": [{"author_id": author(tag), "role": ""} for tag in item.tags],
            "publisher": "X & Y",
            "num_pages": "",
            "publication_year": "" if number % 4 == 0 else "1999",
            "book_id": item.key,
            "ratings_count": "3",
            "work_id": "5400751",
            "title": f"{item.title} (Series, #{number})",
            "title_without_series": item.title,
        }
        for number, item in enumerate(world.items)
    ]


def author(name: str) -> str:
    return str(sum(name.encode()) + 604_000)


def when(seconds: int) -> str:
    """`Wed Jan 04 00:00:00 -0800 2012`: the time of California, which has summer time too."""
    hours = -7 if 4 <= time.gmtime(seconds).tm_mon <= 10 else -8
    local = time.gmtime(seconds + hours * 3600)
    return time.strftime(f"%a %b %d %H:%M:%S {hours:+03d}00 %Y", local)
