"""Yelp: a world from its files, users who joined at some time, bad rows."""

from __future__ import annotations

import gzip
import json

import pytest
from raw_files import prepared, write
from raw_yelp import OPTIONS, write_raw
from world_tables import expected_clicks, found_clicks
from worlds import world

from legoray.data.load import load_items, load_users
from legoray.errors import InputError

BUSINESS, REVIEW, USER = (f"yelp_academic_dataset_{n}.json" for n in ("business", "review", "user"))


@pytest.fixture
def raw(tmp_path):
    write_raw(tmp_path / "raw", world())
    return tmp_path / "raw"


def append(path, line):
    return write(path, path.read_text() + line + "\n")


def test_files_give_the_world(raw, tmp_path, home):
    made = prepared(tmp_path, "yelp", options=OPTIONS)
    assert found_clicks(made.tables) == expected_clicks(world(), user="u{}".format)
    counts = made.manifest.counts
    assert [counts[f"raw/{what}"] for what in ("items", "events", "users")] == [30, 400, 24]
    for number, row in enumerate(load_items(made.tables).to_pylist()):
        item = world().items[number]
        assert row["name"] == item.title
        assert row["categories"] == ("" if number % 7 == 0 else ", ".join(item.tags))
        assert row["city"] == ("Montréal" if number % 2 else "Philadelphia")
        assert row["state"] == "PA"
    path = raw / REVIEW
    write(raw / f"{REVIEW}.gz", gzip.compress(path.read_bytes()))
    path.unlink()
    packed = prepared(tmp_path, "yelp", options=OPTIONS)
    assert packed.manifest.fingerprint == made.manifest.fingerprint


def test_users_have_the_year_they_joined(raw, tmp_path, home):
    made = prepared(tmp_path, "yelp", options=OPTIONS)
    assert made.manifest.user_attributes == ["since"]
    names = sorted({event.user for event in world().events})
    joined = {f"u{user}": f"20{7 + n % 10:02d}" for n, user in enumerate(names)}
    users = load_users(made.tables, ["key", "since"]).to_pylist()
    assert {row["key"]: row["since"] for row in users} == joined
    (raw / USER).unlink()
    without = prepared(tmp_path, "yelp", options=OPTIONS)
    assert without.manifest.user_attributes == []
    assert without.manifest.counts == made.manifest.counts


GOOD = {"user_id": "u1", "business_id": "1001", "stars": 5.0, "date": "2018-07-07 22:09:11"}
BAD = {
    "its 'stars' is 0, expected a number from 1 to 5": {"stars": 0},
    "its 'stars' is 'many', expected a number": {"stars": "many"},
    "has no value of 'stars'": {"stars": float("nan")},
    "has no value of 'business_id'": {"business_id": None},
    "has no value of 'date'": {"date": ""},
    "its 'date' is '07/07/2018', expected a time": {"date": "07/07/2018"},
    "its 'date' is '1969-12-31 23:00:00', expected a time": {"date": "1969-12-31 23:00:00"},
}


@pytest.mark.parametrize("told", BAD)
def test_bad_reviews(raw, tmp_path, home, told):
    path = append(raw / REVIEW, json.dumps(GOOD | BAD[told]))
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "yelp", options=OPTIONS)
    assert caught.value.problems[0].where == f"{path}:401"
    assert told in caught.value.problems[0].message
    made = prepared(tmp_path, "yelp", options=OPTIONS, on_bad_row="skip")
    assert made.manifest.dropped[f"bad_rows/raw/{REVIEW}"] == 1
    assert found_clicks(made.tables) == expected_clicks(world(), user="u{}".format)


TWICE = {
    BUSINESS: ('{"business_id": "1001", "name": "Again"}', ":31: business_id '1001' stands twice"),
    USER: (
        '{"user_id": "u101", "yelping_since": "2007-01-25 16:47:26"}',
        ":25: user 'u101' stands twice",
    ),
}


@pytest.mark.parametrize("name", TWICE)
def test_what_stands_twice(raw, tmp_path, home, name):
    line, told = TWICE[name]
    append(raw / name, line)
    with pytest.raises(InputError, match=name + told):
        prepared(tmp_path, "yelp", options=OPTIONS)
    made = prepared(tmp_path, "yelp", options=OPTIONS, on_bad_row="skip")
    assert made.manifest.dropped[f"bad_rows/raw/{name}"] == 1


def test_files_that_are_not_what_they_should_be(raw, tmp_path, home):
    append(raw / USER, '{"user_id": "x", "yelping_since": "once"}')
    with pytest.raises(InputError, match=r"user.json:25: its 'yelping_since' is 'once'"):
        prepared(tmp_path, "yelp", options=OPTIONS)
    write(raw / BUSINESS, (raw / REVIEW).read_text().replace("business_id", "shop"))
    with pytest.raises(InputError, match=r"business.json: has no key 'business_id'"):
        prepared(tmp_path, "yelp", options=OPTIONS)
    (raw / REVIEW).unlink()
    with pytest.raises(InputError, match=r"review.json: no such file"):
        prepared(tmp_path, "yelp", options=OPTIONS)
