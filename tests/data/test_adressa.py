"""Adressa's processor against the world that its files were written from."""

from __future__ import annotations

import gzip
import json

import pytest
from log_rows import arrived
from raw_adressa import write_raw
from raw_files import prepared
from worlds import world

from legoray.data.load import load_items
from legoray.errors import InputError

SMALL = {"negatives": 3}


@pytest.fixture
def raw(tmp_path):
    write_raw(tmp_path / "raw", world())
    return tmp_path / "raw"


def days(raw):
    return sorted(path for path in raw.iterdir())


def events(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def rewrite(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_every_reading_arrives(tmp_path, home, raw):
    made = prepared(tmp_path, "adressa", options=SMALL)
    w = world()
    past: dict[str, list[str]] = {}
    expected = []
    for event in w.events:
        before = past.setdefault(event.user, [])
        if before:
            expected.append((event.user, event.time, list(before), [event.item]))
        before.append(event.item)
    cuts = [round(len(expected) * share) for share in (0.8, 0.9)]
    parts = {"train": expected[: cuts[0]], "valid": expected[cuts[0] : cuts[1]],
             "test": expected[cuts[1] :]}  # fmt: skip
    for split, rows in parts.items():
        assert [row[1:5] for row in arrived(made, split)] == rows
    counts = made.manifest.counts
    assert (counts["raw/items"], counts["raw/events"], counts["raw/users"]) == (30, 400, 24)
    assert made.manifest.dropped["home_page_events"] == 134


def test_texts_come_from_the_first_event_that_has_them(tmp_path, home, raw):
    first, second = days(raw)[:2]
    rows = events(first)
    article = next(row for row in rows if "id" in row)
    lost = {name: article.pop(name) for name in ("title", "keywords")}
    rewrite(first, rows)
    rewrite(second, [*events(second), article | {"title": "Later", "category1": "x|y|z"}])
    made = prepared(tmp_path, "adressa", options=SMALL)
    items = {row["key"]: row for row in load_items(made.tables).to_pylist()}
    w = {item.key: item for item in world().items}
    others = [e for path in days(raw) for e in events(path) if e.get("id") == article["id"]]
    titles = [e["title"] for e in others if "title" in e]
    assert items[article["id"]]["title"] == titles[0]
    assert titles[0] in (lost["title"], "Later")
    for key, item in w.items():
        assert items[key]["category"] == item.tags[0]
        assert items[key]["subcategory"] == item.tags[1]
        if key != article["id"]:
            assert items[key]["title"] == item.title
            assert items[key]["keywords"] == ", ".join(item.tags)


def test_articles_without_a_title_are_kept_and_counted(tmp_path, home, raw):
    for path in days(raw):
        rows = events(path)
        for row in rows:
            if row.get("id") == "1003":
                del row["title"]
        rewrite(path, rows)
    made = prepared(tmp_path, "adressa", options=SMALL)
    titles = {r["key"]: r["title"] for r in load_items(made.tables, ["key", "title"]).to_pylist()}
    assert titles["1003"] == ""
    assert made.manifest.dropped["items_without_a_title"] == 1


def test_only_long_readings_are_clicks(tmp_path, home, raw):
    made = prepared(tmp_path, "adressa", options=SMALL | {"like": 30, "min_history": 0})
    long = [e for path in days(raw) for e in events(path) if "id" in e]
    long = [e for e in long if e.get("activeTime", 0) >= 30]
    counts = made.manifest.counts
    assert sum(counts[f"clicks/{s}"] for s in ("train", "valid", "test")) == len(long)
    assert made.manifest.protocol["click"].startswith("a reading of at least 30 measured seconds")


def test_zipped_days(tmp_path, home, raw):
    plain = prepared(tmp_path, "adressa", options=SMALL).manifest.fingerprint
    for path in days(raw)[::2]:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    again = prepared(tmp_path, "adressa", options=SMALL)
    assert again.fresh
    assert again.manifest.fingerprint == plain


def test_the_folder_above(tmp_path, home):
    write_raw(tmp_path / "raw/one_week", world())
    with pytest.raises(InputError, match=r"holds no day, .*20170101 .*do they lie in one_week"):
        prepared(tmp_path, "adressa")


def test_a_day_in_between_that_is_not_there(tmp_path, home, raw):
    path = days(raw)[4]
    path.rename(path.with_name(f"{path.name}.zip"))
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "adressa", options=SMALL)
    first, summary = caught.value.problems
    assert (first.where, first.message) == (str(path), "no such file")
    assert f"unzip {path}.zip first" in first.hint
    assert summary.message.endswith("that have no file: 1")
    made = prepared(tmp_path, "adressa", options=SMALL | {"gaps": "allow"})
    assert made.manifest.counts["raw/events"] < 400


BAD = {
    "no JSON": ("{", "is not JSON"),
    "a list": ("[1]", "is not an object"),
    "no user": ('{"time": 5, "id": "1"}', "has no value of 'userId'"),
    "no time": ('{"userId": "u", "id": "1"}', "has no value of 'time'"),
    "a negative time": ('{"userId": "u", "id": "1", "time": -5}', "its 'time' is -5"),
    "another time": ('{"userId": "u", "id": "1", "time": "now"}', "its 'time' is 'now'"),
    "Latin-1": (b'{"userId": "\xe9"}', "is not UTF-8 text"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_lines_are_refused_or_left_out(tmp_path, home, raw, case):
    line, message = BAD[case]
    good = prepared(tmp_path, "adressa", options=SMALL).manifest
    path = days(raw)[3]
    data = path.read_bytes() + (line if isinstance(line, bytes) else line.encode()) + b"\n"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "adressa", options=SMALL)
    assert caught.value.problems[0].where == f"{path}:{len(data.splitlines())}"
    assert message in caught.value.problems[0].message
    made = prepared(tmp_path, "adressa", options=SMALL, on_bad_row="skip").manifest
    assert made.fingerprint == good.fingerprint
    assert made.dropped == good.dropped | {f"bad_rows/raw/{path.name}": 1}


DAMAGED = {
    "empty": (lambda p: p.write_bytes(b""), "is empty (0 bytes)"),
    "a folder": (lambda p: (p.unlink(), p.mkdir()), "is a folder, a file was expected"),
    "a zip": (lambda p: p.write_bytes(b"PK\x03\x04" + b"x" * 99), "is a zip archive"),
    "other keys": (lambda p: p.write_text('{"user": "u", "time": 5}\n'), "has no key 'userId'"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files(tmp_path, home, raw, case):
    damage, message = DAMAGED[case]
    path = days(raw)[2]
    damage(path)
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "adressa", options=SMALL)
    assert message in caught.value.problems[0].message
    assert str(path) in caught.value.problems[0].where


def test_a_truncated_gzip_file(tmp_path, home, raw):
    path = days(raw)[2]
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes())[:-20])
    path.unlink()
    with pytest.raises(InputError, match="truncated or damaged gzip"):
        prepared(tmp_path, "adressa", options=SMALL)


def test_no_articles_at_all(tmp_path, home, raw):
    for path in days(raw):
        rewrite(path, [row | {"id": ""} for row in events(path)])
    with pytest.raises(InputError, match="holds no items"):
        prepared(tmp_path, "adressa", options=SMALL)
