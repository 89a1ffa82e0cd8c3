"""Categorical fields of items, users and moments, against plain Python."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from raw_files import prepared, write

from legoray.data.corpus import Split
from legoray.data.fields import (
    FILE,
    FieldTables,
    check_fields,
    coded,
    moment,
    open_fields,
    saved_fields,
)
from legoray.data.load import load_corpus, load_items
from legoray.errors import DamagedError, InputError

CUISINES = ["thai", "", "greek", "thai", "Greek", "peruvian"]
AGES = {"u": "20", "v": "", "w": "30", "x": "20"}  # of v nothing is known
NAMES = ["item.cuisine", "user.age", "time.hour", "time.weekday"]


@pytest.fixture
def made(tmp_path, home):
    """A small data set with attributes of items and users, prepared."""
    rows = ["id,title,cuisine", *(f"{n},dish {n},{name}" for n, name in enumerate(CUISINES, 1))]
    write(tmp_path / "raw/items.csv", "\n".join(rows) + "\n")
    rows = ["user,age", *(f"{user},{age}" for user, age in AGES.items() if age)]
    write(tmp_path / "raw/users.csv", "\n".join(rows) + "\n")
    write(tmp_path / "raw/events.csv", "user,item,time\nu,1,100\n")
    seen = ["user,item,label,impression,time"]
    for number, user in enumerate(AGES):
        for item in (1 + number, 3):
            seen.append(
                f"{user},{item},{int(item != 3)},{number},{1_573_634_217 + 40_000 * number}"
            )
    write(tmp_path / "raw/seen.csv", "\n".join(seen) + "\n")
    options = {
        "items": {"file": "items.csv", "key": "id"}, "events": "events.csv",
        "interactions": "seen.csv", "users": "users.csv", "split": {"temporal": "0.5/0.25/0.25"},
    }  # fmt: skip
    return prepared(tmp_path, "own", options=options)


def test_codes_of_each_candidate_are_those_of_its_item_user_and_moment(made):
    fields = open_fields(NAMES, made.tables)
    corpus = load_corpus(made.tables)
    values = [["Greek", "greek", "peruvian", "thai"], ["20", "30"], list(range(24)), list(range(7))]
    assert fields.sizes == (5, 3, 25, 8)
    keys = list(AGES)
    met = 0
    for split in corpus.splits.values():
        impression = np.arange(len(split))
        items = np.zeros((len(split), 3), np.int64)
        for row in impression:
            own = split.item[split.offsets[row] : split.offsets[row + 1]]
            items[row, : len(own)] = own
        codes = fields.gather(split, impression, items)
        assert codes.shape == (len(split), 3, 4)
        for row, column in np.argwhere(items):
            met += 1
            when = datetime.fromtimestamp(int(split.time[row]), UTC)
            age = AGES[keys[split.user[row]]]
            cuisine = CUISINES[items[row, column] - 1]
            expected = [
                values[0].index(cuisine) + 1 if cuisine else 0,
                values[1].index(age) + 1 if age else 0,
                when.hour + 1,
                when.weekday() + 1,
            ]
            assert codes[row, column].tolist() == expected
        assert not codes[:, :, 0][items == 0].any()
    assert met == 7  # the item that stood twice in its impression is shown once


def test_any_order_and_any_impressions(made):
    split = load_corpus(made.tables).splits["train"]
    items = np.array([[3, 1], [1, 2], [4, 4]])
    rows = np.array([1, 0, 1])
    forward = open_fields(NAMES, made.tables).gather(split, rows, items)
    backward = open_fields(NAMES[::-1], made.tables).gather(split, rows, items)
    assert np.array_equal(forward, backward[:, :, ::-1])
    assert np.array_equal(forward[0, 0], open_fields(NAMES, made.tables).gather(
        split, rows[:1], items[:1, :1])[0, 0])  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_hours_and_weekdays_are_those_of_the_calendar(seed):
    times = np.random.default_rng(seed).integers(0, 4_000_000_000, 500)
    times[:3] = 0, 86_399, 86_400
    dates = [datetime.fromtimestamp(int(time), UTC) for time in times]
    assert moment("time.hour", times).tolist() == [date.hour + 1 for date in dates]
    assert moment("time.weekday", times).tolist() == [date.weekday() + 1 for date in dates]


def test_unknown_times_have_no_value():
    times = np.array([-1, 0, -1])
    assert moment("time.hour", times).tolist() == [0, 1, 0]
    assert moment("time.weekday", times).tolist() == [0, 4, 0]  # the first day was a Thursday


def test_codes_follow_the_order_of_values_wherever_the_shards_end():
    column = pa.chunked_array([["b", ""], [], ["a", None, "b"], ["é"]])
    codes, values = coded(column)
    assert values == ["a", "b", "é"]
    assert codes.tolist() == [2, 0, 1, 0, 2, 3]
    assert codes.dtype == np.int64
    assert coded(pa.chunked_array([["", ""]]))[0].tolist() == [0, 0]
    assert coded(pa.chunked_array([], pa.string()))[0].tolist() == []


def test_saved_fields_code_new_items_alike(made, tmp_path):
    fields = open_fields(NAMES, made.tables)
    fields.save(tmp_path)
    saved = saved_fields(tmp_path)
    assert (saved.names, saved.values, saved.sizes) == (fields.names, fields.values, fields.sizes)
    rows = load_items(made.tables, ["cuisine"]).to_pylist()
    new = [*rows, {"cuisine": "nordic"}, {}, {"cuisine": None}, {"cuisine": 7}]
    codes = saved.of_items(new)
    assert codes.shape == (len(new) + 1, 4)
    known = codes[: len(rows) + 1, 0]
    assert known.tolist() == fields.codes["item.cuisine"].tolist()
    assert not codes[len(rows) + 1 :].any()
    assert not codes[:, 1:].any()


DAMAGED = [
    "", "[]", '{"names": ["item.a"]}', '{"names": 3, "values": {}}',
    '{"names": ["item.a"], "values": {}}', '{"names": ["item.a"], "values": {"item.a": 3}}',
]  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_fields(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(DamagedError, match=r"fields.json: is damaged"):
        saved_fields(tmp_path)
    (tmp_path / FILE).unlink()
    with pytest.raises(DamagedError):
        saved_fields(tmp_path)


WRONG = {
    "item.cuisin": "did you mean 'item.cuisine'",
    "cuisine": "did you mean 'item.cuisine'",
    "user.cuisine": "there is no field 'user.cuisine'",
    "time.minute": "there is no field 'time.minute'",
    "user.key": "there is no field 'user.key'",
}


@pytest.mark.parametrize("name", WRONG)
def test_unknown_fields_are_refused_with_the_nearest(made, name):
    for check in (check_fields, open_fields):
        with pytest.raises(InputError) as caught:
            check(["time.hour", name, "no.thing"], made.tables)
        assert len(caught.value.problems) == 2
        assert WRONG[name] in str(caught.value.problems[0])


def test_a_field_that_stands_twice_is_refused(made):
    with pytest.raises(InputError, match=r"'time.hour' stands twice"):
        check_fields(["time.hour", "item.cuisine", "time.hour"], made.tables)


def test_no_python_loop_over_rows():
    count = 1_000_000
    fields = FieldTables(
        ("item.a", "time.hour"), {"item.a": np.arange(1000) % 7}, {"item.a": list("abcdef")}
    )
    zeros = np.zeros(count, np.int64)
    split = Split(
        impression=zeros, history=zeros.astype(np.int32), history_end=zeros.astype(np.int32),
        user=zeros.astype(np.int32), time=np.arange(count), offsets=np.arange(count + 1),
        clicks=zeros.astype(np.int32), item=np.ones(count, np.int32), label=np.ones(count, np.int8),
    )  # fmt: skip
    items = np.random.default_rng(0).integers(0, 1000, (count, 1))
    codes = fields.gather(split, np.arange(count), items)
    assert np.array_equal(codes[:, 0, 0], items[:, 0] % 7)
    assert np.array_equal(codes[:, 0, 1], np.arange(count) // 3600 % 24 + 1)
