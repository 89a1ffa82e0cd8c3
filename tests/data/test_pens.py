"""PENS' processor against the world that its files were written from."""

from __future__ import annotations

from pathlib import Path

import pytest
from log_rows import arrived, split_times
from raw_files import prepared, write
from raw_logs import american, impressions
from raw_pens import LOG, NEWS, write_raw
from worlds import world

from legoray.data.load import load_items
from legoray.errors import InputError


def rows_of(shown) -> list[tuple[str, int, list[str], list[str], list[str]]]:
    """(user, time, history, clicked, others) of the world's impressions."""
    return [
        (one.event.user, one.event.time, [e.item for e in one.past], [one.event.item], one.others)
        for one in shown
    ]


def lines(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text().splitlines()]


def rewrite(path: Path, rows: list[list[str]]) -> None:
    write(path, "".join("\t".join(row) + "\n" for row in rows))


@pytest.fixture
def raw(tmp_path):
    write_raw(tmp_path / "raw", world())
    return tmp_path / "raw"


def test_every_impression_arrives(tmp_path, home, raw):
    made = prepared(tmp_path, "pens")
    train, valid = (rows_of(part) for part in impressions(world()))
    cut = sorted(row[1] for row in train)[round(0.9 * len(train))]
    expected = {
        "train": [row for row in train if row[1] < cut],
        "valid": [row for row in train if row[1] >= cut],
        "test": valid,
    }
    for split, rows in expected.items():
        assert [row[1:] for row in arrived(made, split)] == rows
    counts = made.manifest.counts
    assert (counts["raw/items"], counts["raw/users"]) == (30, 24)
    assert (counts["raw/impressions/train"], counts["raw/impressions/valid"]) == (280, 120)
    assert made.manifest.dropped == {}
    assert made.manifest.protocol["split"] == "train: official train; valid: last 0.1 of train " \
        "by time; test: official valid"  # fmt: skip


def test_texts(tmp_path, home, raw):
    rows = lines(raw / "news.tsv")
    rows[2][3] = ""
    rewrite(raw / "news.tsv", rows)
    made = prepared(tmp_path, "pens", text=["title", "body"])
    items = load_items(made.tables)
    w = world()
    assert items["title"].to_pylist() == [
        "" if n == 1 else item.title for n, item in enumerate(w.items)
    ]
    assert items["body"].to_pylist() == [
        "" if n % 9 == 0 else item.text for n, item in enumerate(w.items)
    ]
    assert items["topic"].to_pylist() == [item.tags[1] for item in w.items]


def test_a_history_ends_strictly_before_the_impression(tmp_path, home, raw):
    """What the file names as history although it was read then or later is left out."""
    rows = lines(raw / "train.tsv")
    start = next(one.event.time for one in impressions(world())[0])
    times = [start - 5, start + 5, start, start - 60]
    rows[1][LOG.index("ClicknewsID")] = "1001 1002 1003 1004"
    rows[1][LOG.index("exposure_time")] = "#TAB#".join(map(american, times))
    rewrite(raw / "train.tsv", rows)
    made = prepared(tmp_path, "pens")
    assert arrived(made, "train")[0][3] == ["1004", "1001"]
    assert made.manifest.dropped == {"history_items_not_before_the_impression/train": 2}


def test_unknown_news(tmp_path, home, raw):
    rows = lines(raw / "train.tsv")
    rows[1][LOG.index("pos")] = "N404"
    rows[1][LOG.index("neg")] = "N405"
    rows[2][LOG.index("neg")] += " N405"
    rows[2][LOG.index("ClicknewsID")] += " N404"
    before = american(1_500_000_000)
    earlier = rows[2][LOG.index("exposure_time")]
    rows[2][LOG.index("exposure_time")] = f"{earlier}#TAB#{before}"
    rewrite(raw / "train.tsv", rows)
    made = prepared(tmp_path, "pens")
    assert made.manifest.dropped == {
        "unknown_news_in_candidates/train": 3,
        "unknown_news_in_histories/train": 1,
        "impressions_without_candidates/train": 1,
    }


def test_columns_in_another_order_and_quoted_texts(tmp_path, home, raw):
    plain = prepared(tmp_path, "pens").manifest.fingerprint
    rows = [row[::-1] for row in lines(raw / "train.tsv")]
    rewrite(raw / "train.tsv", rows)
    quoted = [
        [field if '"' not in field else '"' + field.replace('"', '""') + '"' for field in row]
        for row in lines(raw / "news.tsv")
    ]
    assert quoted != lines(raw / "news.tsv")
    rewrite(raw / "news.tsv", quoted)
    again = prepared(tmp_path, "pens")
    assert again.fresh
    assert again.manifest.fingerprint == plain


def test_without_header_lines(tmp_path, home, raw):
    plain = prepared(tmp_path, "pens").manifest.fingerprint
    for name in ("news", "train", "valid"):
        rewrite(raw / f"{name}.tsv", lines(raw / f"{name}.tsv")[1:])
    again = prepared(tmp_path, "pens")
    assert again.fresh
    assert again.manifest.fingerprint == plain


def test_splits_by_time(tmp_path, home, raw):
    made = prepared(tmp_path, "pens", options={"split": {"temporal": "0.5/0.25/0.25"}})
    times = split_times(made)
    assert times["train"][1] < times["valid"][0] <= times["valid"][1] < times["test"][0]
    assert sum(made.manifest.counts[f"impressions/{s}"] for s in times) == 400
    assert made.manifest.protocol["split"].startswith("temporal by the impression's time, 0.5/0.25")


BAD = {
    "no user": ("UserID", "", "the UserID is empty"),
    "no time": ("start", "", "the start is ''"),
    "another time": ("start", "2019-07-03 06:43:49", "the start is '2019-07-03 06:43:49'"),
    "before 1970": ("start", "7/3/1959 6:43:49 AM", "the start is '7/3/1959 6:43:49 AM'"),
    "times are missing": ("exposure_time", american(0), "differ in length"),
    "no times": ("exposure_time", "", "differ in length"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_are_refused_or_left_out(tmp_path, home, raw, case):
    column, value, message = BAD[case]
    rows = lines(raw / "train.tsv")
    rewrite(raw / "train.tsv", rows[:-1])
    good = prepared(tmp_path, "pens").manifest.fingerprint
    rows[-1][LOG.index(column)] = value
    rewrite(raw / "train.tsv", rows)
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "pens")
    assert caught.value.problems[0].where == f"{raw / 'train.tsv'}:{len(rows)}"
    assert message in caught.value.problems[0].message
    made = prepared(tmp_path, "pens", on_bad_row="skip")
    assert made.manifest.fingerprint == good
    assert made.manifest.dropped == {"bad_rows/raw/train.tsv": 1}


def test_neither_clicked_nor_not(tmp_path, home, raw):
    rows = lines(raw / "train.tsv")
    rows[1][LOG.index("pos")] = rows[1][LOG.index("neg")] = " "
    rewrite(raw / "train.tsv", rows)
    with pytest.raises(InputError, match=r"train.tsv:2: there is neither pos nor neg"):
        prepared(tmp_path, "pens")


def test_an_exposure_time_that_is_none(tmp_path, home, raw):
    rows = lines(raw / "train.tsv")
    rows[1][LOG.index("ClicknewsID")] = "1001"
    rows[1][LOG.index("exposure_time")] = "yesterday"
    rewrite(raw / "train.tsv", rows)
    with pytest.raises(InputError, match=r"train.tsv:2: .*an exposure_time that is none like"):
        prepared(tmp_path, "pens")


def test_news_that_stand_twice(tmp_path, home, raw):
    rows = lines(raw / "news.tsv")
    rewrite(raw / "news.tsv", [*rows, rows[3]])
    with pytest.raises(InputError, match=r"news.tsv:32: news id '1003' stands twice"):
        prepared(tmp_path, "pens")


def test_a_column_that_is_not_there(tmp_path, home, raw):
    rows = lines(raw / "news.tsv")
    rows[0][NEWS.index("Headline")] = "Headlines"
    rewrite(raw / "news.tsv", rows)
    with pytest.raises(InputError, match=r"news.tsv:1: has no column 'Headline' .*'Headlines'"):
        prepared(tmp_path, "pens")


DAMAGED = {
    "missing": (lambda p: p.unlink(), "no such file"),
    "empty": (lambda p: p.write_bytes(b""), "is empty (0 bytes)"),
    "a folder": (lambda p: (p.unlink(), p.mkdir()), "is a folder, a file was expected"),
    "a zip": (lambda p: p.write_bytes(b"PK\x03\x04" + b"x" * 99), "is a zip archive"),
    "Latin-1": (lambda p: p.write_bytes(p.read_bytes() + b"U\xe9\tx\n"), "is not UTF-8 text"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files(tmp_path, home, raw, case):
    damage, message = DAMAGED[case]
    damage(raw / "train.tsv")
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "pens")
    assert message in caught.value.problems[0].message
    assert "train.tsv" in caught.value.problems[0].where
