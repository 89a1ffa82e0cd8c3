"""Feedback in tables of the user's own."""

from __future__ import annotations

import pytest
from raw_feedback import OPTIONS, write_raw
from raw_files import prepared, write
from raw_movielens import write_raw as write_movielens
from worlds import world

from legoray.data.load import load_items, load_users
from legoray.errors import InputError


def test_the_same_feedback_gives_what_movielens_gives(tmp_path, home):
    write_raw(tmp_path / "own/raw", world())
    write_movielens(tmp_path / "movielens/raw", world())
    ours = prepared(tmp_path / "own", "feedback", options=OPTIONS)
    theirs = prepared(
        tmp_path / "movielens", "movielens", options={"negatives": 3, "unrated": "drop"}
    )
    same = ("users", "items", "history_items", "clicks/train", "clicks/valid", "clicks/test")
    for what in same:
        assert ours.manifest.counts[what] == theirs.manifest.counts[what] > 0
    titles = {item.key: (item.title, item.text) for item in world().items}
    rows = load_items(ours.tables).to_pylist()
    assert {row["key"]: (row["title"], row["text"]) for row in rows} == titles
    users = load_users(ours.tables, ["key", "age"]).to_pylist()
    assert all(int(row["age"]) == int(row["key"]) % 7 * 10 for row in users)


def test_rows_without_times_are_in_order(tmp_path, home):
    write_raw(tmp_path / "raw", world())
    table = OPTIONS["events"] | {"time": None}
    with pytest.raises(InputError, match="is 'temporal', expected leave-last-out or"):
        prepared(tmp_path, "feedback", options=OPTIONS | {"events": table})
    options = OPTIONS | {"split": "leave-last-out"}
    ordered = prepared(tmp_path, "feedback", options=options | {"events": table}).manifest
    timed = prepared(tmp_path, "feedback", options=options).manifest
    assert ordered.counts == timed.counts


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"cook": "", "recipe": "1001", "stars": 5, "time": 5}', "the cook is empty"),
        ('{"cook": "7", "recipe": null, "stars": 5, "time": 5}', "the recipe is empty"),
        ('{"cook": "7", "recipe": "1001", "stars": NaN, "time": 5}', "the stars is 'nan'"),
        ('{"cook": "7", "recipe": "1001", "stars": 5, "time": -5}', "the time is '-5'"),
        ('{"cook": "7", "recipe": "1001", "stars": 5, "time": "noon"}', "the time is 'noon'"),
        ('{"cook": "7"', "is not JSON"),
    ],
)
def test_bad_events(tmp_path, home, line, said):
    write_raw(tmp_path / "raw", world())
    path = tmp_path / "raw/cooked.jsonl"
    write(path, path.read_text() + line + "\n")
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "feedback", options=OPTIONS)
    assert str(caught.value.problems[0].where) == f"{path}:401"
    assert said in caught.value.problems[0].message
    made = prepared(tmp_path, "feedback", options=OPTIONS, on_bad_row="skip")
    assert made.manifest.dropped["bad_rows/raw/cooked.jsonl"] == 1
