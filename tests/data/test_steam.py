"""Steam: a world from Python literals, known quirks counted, bad rows."""

from __future__ import annotations

import gzip

import pytest
from raw_files import prepared, write
from raw_steam import OPTIONS, STEP, write_raw
from world_tables import expected_clicks, found_clicks
from worlds import world

from legoray.data.load import load_items
from legoray.errors import InputError

REVIEWS, GAMES = "steam_reviews.json.gz", "steam_games.json.gz"


@pytest.fixture
def raw(tmp_path):
    write_raw(tmp_path / "raw", world())
    return tmp_path / "raw"


def append(path, line):
    text = gzip.decompress(path.read_bytes()).decode()
    return write(path, gzip.compress((text + line + "\n").encode()))


def name(user):
    return f"Kid O'Né {user}"


def test_files_give_the_world(raw, tmp_path, home):
    made = prepared(tmp_path, "steam", options=OPTIONS)
    expected = expected_clicks(world(), like=0, user=name, day=STEP)
    assert found_clicks(made.tables) == expected
    counts = made.manifest.counts
    assert [counts[f"raw/{what}"] for what in ("items", "events", "users")] == [30, 400, 24]
    assert made.manifest.dropped["items_without_an_id"] == 1
    assert made.manifest.dropped["items_given_again"] == 1
    for number, row in enumerate(load_items(made.tables).to_pylist()):
        item, lacks = world().items[number], (number - 1) % 6 == 0
        assert row["title"] == item.title
        assert row["genres"] == ("" if lacks else ", ".join(tag.title() for tag in item.tags))
        assert row["tags"] == ", ".join(["Indie", *item.tags])
        assert row["developer"] == ("Kotoshiro" if number % 2 and not lacks else "")


def test_hours_played_may_make_a_click(raw, tmp_path, home):
    made = prepared(tmp_path, "steam", options=OPTIONS | {"like": 4})
    events = enumerate(world().events)
    told = [event for number, event in events if number % 4]  # others say no hours
    likes = [event for event in told if event.value + 0.1 >= 4]
    assert made.manifest.counts["history_items"] == len(likes)
    assert made.manifest.protocol["click"].startswith("a review after at least 4 hours of play")


GOOD = "{u'username': u'a', u'product_id': u'1001', u'date': u'2017-12-17', u'hours': 1.5}"
BAD = {
    "has no value of 'username'": GOOD.replace("u'a'", "None"),
    "has no value of 'product_id'": GOOD.replace("product_id", "product"),
    "its 'date' is 'Dec 2017', expected a day": GOOD.replace("2017-12-17", "Dec 2017"),
    "its 'date' is '1960-01-01', expected a day": GOOD.replace("2017-12-17", "1960-01-01"),
    "its 'hours' is -2, expected hours of play": GOOD.replace("1.5", "-2"),
    "its 'hours' is 'two', expected a number": GOOD.replace("1.5", "'two'"),
    "is not a Python literal": GOOD.replace("1.5", "__import__('os')"),
    "is not an object": "[1, 2]",
}


@pytest.mark.parametrize("told", BAD)
def test_bad_reviews(raw, tmp_path, home, told):
    path = append(raw / REVIEWS, BAD[told])
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "steam", options=OPTIONS)
    assert caught.value.problems[0].where == f"{path}:401"
    assert told in caught.value.problems[0].message
    made = prepared(tmp_path, "steam", options=OPTIONS, on_bad_row="skip")
    assert made.manifest.dropped[f"bad_rows/raw/{REVIEWS}"] == 1
    assert made.manifest.counts["raw/events"] == 400


def test_files_that_are_not_what_they_should_be(raw, tmp_path, home):
    good = (raw / GAMES).read_bytes()
    write(raw / GAMES, gzip.compress(gzip.decompress(good).replace(b"u'id'", b"u'ids'")))
    with pytest.raises(InputError, match=r"games.json.gz: has no key 'id' .is it 'ids'"):
        prepared(tmp_path, "steam", options=OPTIONS)
    write(raw / GAMES, good[:-8])
    with pytest.raises(InputError, match=r"games.json.gz: is a truncated or damaged gzip file"):
        prepared(tmp_path, "steam", options=OPTIONS)
    (raw / GAMES).unlink()
    (raw / GAMES).mkdir()
    with pytest.raises(InputError, match=r"games.json.gz: is a folder"):
        prepared(tmp_path, "steam", options=OPTIONS)
