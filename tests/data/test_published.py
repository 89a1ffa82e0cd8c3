"""Published counts: met, or told with the likely cause; a wrong one never costs the tables."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
from raw_files import dataset, write
from typer.testing import CliRunner

from legoray.cli import app
from legoray.data.prepare import prepare
from legoray.data.published import comparable
from legoray.errors import InputError

MOVIES = 6
USERS = 5
OPTIONS = {"split": "leave-last-out", "negatives": 1}


def write_raw(raw, *, short=0, bad=0, added=0):
    """Each user rates each film; the last ratings are missing, are bad, or stand there too."""
    films = [f"{m},Film {m} (1990),Drama" for m in range(MOVIES)]
    write(raw / "movies.csv", "\n".join(["movieId,title,genres", *films]) + "\n")
    rows = [f"{u},{m},5.0,{100 * u + m}" for u in range(USERS) for m in range(MOVIES)]
    rows = rows[: len(rows) - short]
    rows[len(rows) - bad :] = ["1,2,nine,3"] * bad
    rows += [f"{u},{u},4.0,9000" for u in range(added)]
    write(raw / "ratings.csv", "\n".join(["userId,movieId,rating,timestamp", *rows]) + "\n")


def made(folder, published, **keys):
    said: list[str] = []
    keys = {"options": OPTIONS, "published": published, **keys}
    return prepare(dataset(folder, "movielens", **keys), say=said.append), said


ALL = {"items": MOVIES, "events": USERS * MOVIES, "users": USERS}


def test_equal_counts_are_one_line(tmp_path, home):
    write_raw(tmp_path / "raw")
    first, said = made(tmp_path, ALL)
    assert said[-1] == "as published: 6 items, 30 events, 5 users"
    assert first.manifest.deviations == []
    assert first.manifest.published == ALL
    again, said = made(tmp_path, ALL)
    assert said == []
    assert again.manifest == first.manifest


@pytest.mark.parametrize(
    ("change", "keys", "found", "cause"),
    [
        ({"short": 3}, {}, 27, "likely a truncated download"),
        ({"bad": 2}, {"on_bad_row": "skip"}, 28, "bad rows were left out (2 of raw/ratings.csv)"),
        (
            {"bad": 2, "short": 1},
            {"on_bad_row": "skip"},
            27,
            "likely a truncated download; bad rows were left out (2 of raw/ratings.csv)",
        ),
        ({"added": 4}, {}, 34, "likely another release, or an edited copy"),
    ],
)
def test_a_deviation_has_its_likely_cause(tmp_path, home, change, keys, found, cause):
    write_raw(tmp_path / "raw", **change)
    first, said = made(tmp_path, ALL, **keys)
    (one,) = first.manifest.deviations
    assert (one.what, one.published, one.found, one.cause) == ("events", 30, found, cause)
    word = "fewer" if found < 30 else "more"
    told = f"not as published: {found} events, published 30 ({abs(found - 30)} {word}): {cause}"
    size = (tmp_path / "raw/ratings.csv").stat().st_size
    assert told in said
    assert any(f"ratings.csv {size} bytes" in line for line in said)
    again, said = made(tmp_path, ALL, **keys)
    assert not again.fresh
    assert told in said  # whoever trains on these tables is told, too


def test_the_counts_of_another_release_are_recognized(tmp_path, home):
    write_raw(tmp_path / "raw")
    known = {"name": "films_6", "path": "x", "processor": "movielens", "published": ALL}
    write(tmp_path / "films_6.yaml", json.dumps(known))
    write(tmp_path / "other.yaml", json.dumps({**known, "name": "other", "processor": "mind"}))
    write(tmp_path / "broken.yaml", "name: [")
    first, _ = made(tmp_path, {**ALL, "items": 60, "events": 3000})
    causes = {one.what: one.cause for one in first.manifest.deviations}
    cause = "these are the counts of films_6 (films_6.yaml)"
    assert causes == {"items": cause, "events": cause}
    write(tmp_path / "films_6.yaml", json.dumps({**known, "published": {**ALL, "users": 7}}))
    first, _ = made(tmp_path, {**ALL, "items": 60})
    assert [one.cause for one in first.manifest.deviations] == ["likely a truncated download"]


def test_what_is_not_counted_is_refused_and_costs_no_stage(tmp_path, home):
    write_raw(tmp_path / "raw")
    with pytest.raises(InputError) as caught:
        made(tmp_path, {"itmes": 6, "evnts": 30, "users": 5})
    found = str(caught.value).splitlines()
    assert len(found) == 2
    assert "tiny.yaml:11: published.itmes: there is no count 'itmes'" in found[0]
    assert "did you mean 'items'?" in found[0]
    assert "did you mean 'events'?" in found[1]
    first, said = made(tmp_path, ALL)
    assert said[0].startswith("going on with")
    assert "read/events: done before" in said
    assert first.fresh


def test_published_counts_change_no_table(tmp_path, home):
    write_raw(tmp_path / "raw")
    first, _ = made(tmp_path, {})
    times = {path: path.stat().st_mtime_ns for path in first.tables.rglob("*.parquet")}
    second, said = made(tmp_path, {"users": 4, "clicks/test": 5})
    assert not second.fresh
    assert second.tables == first.tables
    assert second.manifest.fingerprint == first.manifest.fingerprint
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert [one.what for one in second.manifest.deviations] == ["users"]
    assert "5 users, published 4 (1 more)" in said[0]


@pytest.mark.parametrize("value", [-1, 3.5, "9742", True, None, [1]])
def test_a_count_is_a_whole_number(tmp_path, home, value):
    write_raw(tmp_path / "raw")
    with pytest.raises(InputError, match=r"tiny\.yaml:\d+: published\.items: is "):
        made(tmp_path, {"items": value})


def test_a_deviation_is_no_error(tmp_path, home):
    write_raw(tmp_path / "raw", short=1)
    yaml = dataset(tmp_path, "movielens", options=OPTIONS, published=ALL)
    for _ in range(2):
        done = CliRunner().invoke(app, ["prepare", str(yaml)])
        assert done.exit_code == 0, done.output
        assert "not as published: 29 events" in done.output


def test_raw_counts_come_first():
    counts = {"items": 3, "raw/items": 5, "rows/test": 7}
    assert comparable(counts) == {"items": 5, "rows/test": 7}


def test_real_movielens_is_as_published_and_a_cut_copy_is_not(tmp_path, home, real_data):
    folder = real_data("movielens", "ml-latest-small")
    published = {"items": 9742, "events": 100836, "users": 610}
    options = {"split": "leave-last-out", "candidates": "all", "negatives": 1}
    first, said = made(tmp_path, published, path=str(folder), options=options)
    assert "as published: 9,742 items, 100,836 events, 610 users" in said
    assert first.manifest.deviations == []
    cut = tmp_path / "cut"
    shutil.copytree(folder, cut)
    content = (cut / "ratings.csv").read_bytes()[:1_000_000]
    content = content[: content.rindex(b"\n") + 1]
    (cut / "ratings.csv").write_bytes(content)
    second, said = made(tmp_path, published, path=str(cut), options=options)
    with (cut / "ratings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    off = {one.what: (one.found, one.cause) for one in second.manifest.deviations}
    users = len({row["userId"] for row in rows})
    cause = "likely a truncated download"
    assert off == {"events": (len(rows), cause), "users": (users, cause)}
