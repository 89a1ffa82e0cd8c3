"""Goodreads: the whole and a genre, authors by name, times with their zones, what is a click."""

from __future__ import annotations

import datetime
import gzip
import json
from dataclasses import replace

import pyarrow as pa
import pytest
from raw_files import prepared, write
from raw_goodreads import OPTIONS, RELEASES, write_raw
from world_tables import expected_clicks, found_clicks
from worlds import world

from legoray.data.load import load_items
from legoray.data.processors.goodreads import seconds_of
from legoray.errors import InputError

DAY = 86_400


def hexadecimal(user):
    return user.rjust(32, "0")


def rated(world):
    """The world as its files tell of it: what it values at 2 was shelved without a rating."""
    events = [replace(e, value=0) if e.value == 2 else e for e in world.events]
    return replace(world, events=events)


@pytest.fixture
def raw(tmp_path):
    write_raw(tmp_path / "raw", world())
    return tmp_path / "raw"


def with_line(path, line):
    text = gzip.decompress(path.read_bytes()).decode()
    write(path, gzip.compress((text + line + "\n").encode()))


@pytest.mark.parametrize("release", RELEASES)
def test_releases_give_the_world(tmp_path, home, release):
    write_release, options = RELEASES[release]
    write_release(tmp_path / "raw", world())
    made = prepared(tmp_path, "goodreads", options=OPTIONS | options)
    assert found_clicks(made.tables) == expected_clicks(rated(world()), user=hexadecimal)
    counts = made.manifest.counts
    assert [counts[f"raw/{what}"] for what in ("items", "events", "users")] == [30, 400, 24]
    for row, item in zip(load_items(made.tables).to_pylist(), world().items, strict=True):
        number = int(item.key) - 1001
        assert row["title"] == f"{item.title} (Series, #{number})"
        names = ", ".join(f"{tag.title()} Ünal" for tag in item.tags)
        assert row["authors"] == (names if release == "whole" else "")
        assert row["description"] == item.text
        assert (row["year"] == "") == (number % 4 == 0)


def test_which_interactions_are_clicks(raw, tmp_path, home):
    made = prepared(tmp_path, "goodreads", options=OPTIONS | {"like": None})
    every = expected_clicks(world(), like=0, user=hexadecimal)
    assert found_clicks(made.tables) == every
    made = prepared(tmp_path, "goodreads", options=OPTIONS | {"like": None, "read": True})
    read = expected_clicks(rated(world()), like=1, user=hexadecimal)
    assert found_clicks(made.tables) == read
    shelved = sum(event.value == 2 for event in world().events)
    assert made.manifest.dropped["interactions_without_reading"] == shelved > 0


def test_which_time_is_taken(raw, tmp_path, home):
    made = prepared(tmp_path, "goodreads", options=OPTIONS | {"time": "updated"})
    later = expected_clicks(rated(world()), user=hexadecimal, time=lambda t: t + 60)
    assert found_clicks(made.tables) == later
    made = prepared(tmp_path, "goodreads", options=OPTIONS | {"time": "read"})
    days = expected_clicks(rated(world()), user=hexadecimal, time=lambda t: t - t % DAY)
    found = found_clicks(made.tables)
    # Books of one day stand in the order of the file, which is not that of the world.
    assert [(u, i, t, sorted(past)) for u, i, t, past in found] == [
        (u, i, t, sorted(past)) for u, i, t, past in days
    ]
    shelved = sum(event.value == 2 for event in world().events)
    assert made.manifest.dropped["interactions_without_a_time"] == shelved


def test_times_and_their_zones():
    texts = [
        "Wed Jan 04 00:00:00 -0800 2012",
        "Sun Mar 25 13:38:25 -0700 2012",
        "Thu Feb 29 23:59:59 +0530 2008",
        "Thu Jan 01 00:00:00 +0000 1970",
        "Thu Dec 31 23:59:59 +0000 2099",
    ]
    form = "%a %b %d %H:%M:%S %z %Y"
    expected = [int(datetime.datetime.strptime(text, form).timestamp()) for text in texts]
    unknown = [
        "",
        "Sat Jan 01 00:00:00 -0800 0201",
        "Sat Jan 01 00:00:00 -0800 2208",
        "Sat Jan 01 00:00:00 -0800 20122",
        "Thu Jan 01 00:00:00 +0100 1970",
        "Wed Feb 30 00:00:00 -0800 2012",
        "Wed Mai 04 00:00:00 -0800 2012",
        "2012-01-04",
    ]
    found = seconds_of(pa.chunked_array([[*texts, *unknown]])).to_pylist()
    assert found == [*expected, *[None] * len(unknown)]


GOOD = {"user_id": "u", "book_id": "1001", "is_read": True, "rating": 5, "date_added": ""}
BAD = {
    "its 'rating' is 6": {"rating": 6},
    "its 'rating' is 'five', expected a number": {"rating": "five"},
    "has no value of 'rating'": {"rating": None},
    "has no value of 'user_id'": {"user_id": ""},
    "its 'is_read' is 'yes', expected true or false": {"is_read": "yes"},
    "its 'date_added' is '2012-01-04', expected a time like Wed": {"date_added": "2012-01-04"},
}


@pytest.mark.parametrize("told", BAD)
def test_bad_interactions(raw, tmp_path, home, told):
    path = raw / "goodreads_interactions_dedup.json.gz"
    with_line(path, json.dumps(GOOD | BAD[told]))
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "goodreads", options=OPTIONS)
    assert caught.value.problems[0].where == f"{path}:401"
    assert told in caught.value.problems[0].message
    made = prepared(tmp_path, "goodreads", options=OPTIONS, on_bad_row="skip")
    assert made.manifest.dropped[f"bad_rows/raw/{path.name}"] == 1
    assert found_clicks(made.tables) == expected_clicks(rated(world()), user=hexadecimal)


def test_bad_books_and_authors(raw, tmp_path, home):
    books = raw / "goodreads_books.json.gz"
    good = books.read_bytes()
    with_line(books, '{"book_id": "1001", "title": "Again"}')
    with pytest.raises(InputError, match=r"books.json.gz:31: book_id '1001' stands twice"):
        prepared(tmp_path, "goodreads", options=OPTIONS)
    write(books, good)
    strange = {"book_id": "9", "authors": [{"author_id": "0"}, {"role": "x"}], "title": None}
    with_line(books, json.dumps(strange))
    made = prepared(tmp_path, "goodreads", options=OPTIONS | {"unrated": "keep"})
    row = load_items(made.tables).to_pylist()[-1]
    assert row["key"] == "9"
    assert row["authors"] == row["title"] == ""
    assert made.manifest.dropped["authors_without_a_name"] == 2
    assert made.manifest.counts["items_without/title"] == 1
    authors = raw / "goodreads_book_authors.json.gz"
    with_line(authors, '{"author_id": "604", "name": "A"}\n{"author_id": "604", "name": "B"}')
    with pytest.raises(InputError, match=r"authors.json.gz:\d+: author_id '604' stands twice"):
        prepared(tmp_path, "goodreads", options=OPTIONS)


def test_a_genre_that_is_not_there(raw, tmp_path, home):
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "goodreads", options={"genre": "poetry"})
    assert "goodreads_interactions_poetry.json.gz: no such file" in str(caught.value)
    with pytest.raises(InputError, match=r"options.genre: is 'poems'"):
        prepared(tmp_path, "goodreads", options={"genre": "poems"})
