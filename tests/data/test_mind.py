"""MIND's processor against a reading of the same files line by line."""

from __future__ import annotations

import calendar
import time

import pyarrow.parquet as pq
import pytest
from raw_files import dataset, news, prepared, random_mind, write

from legoray.data.load import load_corpus, load_items
from legoray.data.prepare import prepare
from legoray.errors import InputError

TRAIN = (
    "1\tU1\t11/9/2019 8:36:57 AM\tN1 N2 N1\tN2-1 N3-0\n"
    "2\tU2\t11/10/2019 12:00:01 AM\t\tN1-0 N3-1 N2-1\n"  # empty history; click not first
    "3\tU1\t11/11/2019 12:00:01 PM\tN1 N2 N1\tN3-0 N404-1 N1-1\n"  # unknown candidate
    "4\tU3\t11/14/2019 1:02:03 PM\tN404 N3\tN1-1 N2-0\n"  # unknown news in the history
)
DEV = "1\tU1\t11/15/2019 8:36:57 AM\tN1 N2 N1 N4\tN4-1 N1-0\n"


def raw(folder, train=TRAIN, dev=DEV):
    write(folder / "raw/train/news.tsv", news("N1", "N2", "N3"))
    write(folder / "raw/dev/news.tsv", news("N2", "N4"))
    write(folder / "raw/train/behaviors.tsv", train)
    write(folder / "raw/dev/behaviors.tsv", dev)


def seconds(text: str) -> int:
    return calendar.timegm(time.strptime(text, "%m/%d/%Y %I:%M:%S %p"))


def read_plainly(folder, part, keys):
    """(impression, user, time, history, clicked, others) of each row; a plain loop."""
    rows = []
    for line in (folder / f"raw/{part}/behaviors.tsv").read_text().splitlines():
        number, user, when, history, shown = line.split("\t")
        known = [k.split("-") for k in shown.split() if k.split("-")[0] in keys]
        if not known:
            continue
        past = [k for k in history.split() if k in keys]
        clicked = [k for k, label in known if label == "1"]
        others = [k for k, label in known if label == "0"]
        rows.append((int(number), user, seconds(when), past, clicked, others))
    return rows


def rows_of(corpus, split, keys, users):
    """The same of a split of the corpus."""
    part = corpus.splits[split]
    rows = []
    for i in range(len(part)):
        start = corpus.history_offsets[part.history[i]]
        past = corpus.history_items[start : start + part.history_end[i]]
        items = [keys[item - 1] for item in part.item[part.offsets[i] : part.offsets[i + 1]]]
        clicks = part.clicks[i]
        labels = part.label[part.offsets[i] : part.offsets[i + 1]]
        assert labels.tolist() == [1] * clicks + [0] * (len(items) - clicks)
        rows.append(
            (
                int(part.impression[i]),
                users[part.user[i]],
                int(part.time[i]),
                [keys[item - 1] for item in past],
                items[:clicks],
                items[clicks:],
            )
        )
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_every_row_arrives(tmp_path, home, seed):
    random_mind(tmp_path / "raw", seed)
    made = prepared(tmp_path, "mind")
    corpus = load_corpus(made.tables)
    keys = load_items(made.tables, ["key"])["key"].to_pylist()
    users = pq.read_table(made.tables / "users")["key"].to_pylist()
    assert keys == [f"N{n}" for n in range(80)]
    train = read_plainly(tmp_path, "train", set(keys))
    times = sorted(row[2] for row in train)
    cut = times[round(0.9 * len(times))]
    expected = {
        "train": [row for row in train if row[2] < cut],
        "valid": [row for row in train if row[2] >= cut],
        "test": read_plainly(tmp_path, "dev", set(keys)),
    }
    for split, rows in expected.items():
        assert rows_of(corpus, split, keys, users) == rows
        assert made.manifest.counts[f"impressions/{split}"] == len(rows)
        assert made.manifest.counts[f"clicks/{split}"] == sum(len(row[4]) for row in rows)


def test_quirks_are_counted_and_reported(tmp_path, home):
    raw(tmp_path)
    said: list[str] = []
    made = prepare(dataset(tmp_path, "mind"), say=said.append)
    assert made.manifest.dropped == {
        "unknown_news_in_histories/train": 1,
        "unknown_news_in_candidates/train": 1,
    }
    assert any("1 unknown news in histories" in line for line in said)
    assert made.manifest.counts["items"] == 4
    assert made.manifest.counts["users"] == 3
    assert made.manifest.counts["histories"] == 4  # U1's of train stands once, though met twice
    raw_counts = {"items": 4, "items/train": 3, "items/dev": 2, "impressions/train": 4,
                  "impressions/dev": 1, "users": 3, "users/train": 3, "users/dev": 1}  # fmt: skip
    assert {f"raw/{what}": count for what, count in raw_counts.items()} == {
        name: count for name, count in made.manifest.counts.items() if name.startswith("raw/")
    }
    items = load_items(made.tables)
    assert items["title"][0].as_py() == 'A "bare quote in N1'
    assert items["abstract"].to_pylist() == [""] * 4
    protocol = made.manifest.protocol
    assert protocol["split"] == "train: official train; valid: last 0.1 of train by time; " \
        "test: official dev"  # fmt: skip
    assert protocol["group"] == "impression"


def test_unlabeled_test_part(tmp_path, home):
    raw(tmp_path)
    write(tmp_path / "raw/test/news.tsv", news("N5"))
    write(tmp_path / "raw/test/behaviors.tsv", "7\tU9\t11/20/2019 1:00:00 AM\tN1\tN5 N1 N2\n")
    made = prepared(tmp_path, "mind", options={"test": "test", "valid": "dev"})
    test = load_corpus(made.tables).splits["test"]
    assert not test.labeled
    assert test.item.tolist() == [5, 1, 2]
    assert test.clicks.tolist() == [0]
    assert made.manifest.labeled == {"train": True, "valid": True, "test": False}
    assert made.manifest.counts["impressions/train"] == 4


def test_splits_by_time(tmp_path, home):
    random_mind(tmp_path / "raw", 5)
    made = prepared(tmp_path, "mind", options={"split": {"temporal": "0.5/0.2/0.3"}})
    parts = load_corpus(made.tables).splits
    assert parts["train"].time.max() < parts["valid"].time.min()
    assert parts["valid"].time.max() < parts["test"].time.min()
    known = set(load_items(made.tables, ["key"])["key"].to_pylist())
    rows = [row for part in ("train", "dev") for row in read_plainly(tmp_path, part, known)]
    keys = load_items(made.tables, ["key"])["key"].to_pylist()
    users = pq.read_table(made.tables / "users")["key"].to_pylist()
    corpus = load_corpus(made.tables)
    found = [row[1:] for split in parts for row in rows_of(corpus, split, keys, users)]
    assert sorted(found) == sorted(row[1:] for row in rows)


def test_a_split_by_time_leaves_no_place_for_a_test_part(tmp_path, home):
    raw(tmp_path)
    with pytest.raises(InputError, match=r"options.test.*beside `split: temporal`"):
        prepared(tmp_path, "mind", options={"test": "test", "split": "temporal"})


def test_impression_ids_that_are_no_numbers(tmp_path, home):
    raw(tmp_path, train=TRAIN.replace("1\tU1\t11/9", "a-7f\tU1\t11/9"))
    made = prepared(tmp_path, "mind")
    assert load_corpus(made.tables).splits["train"].impression.tolist() == [1, 2, 3]
    assert made.manifest.dropped["impression_ids_numbered_anew/train"] == 3
    assert "impression_ids_numbered_anew/test" not in made.manifest.dropped


def test_byte_order_mark_crlf_and_blank_lines(tmp_path, home):
    raw(tmp_path)
    plain = prepared(tmp_path, "mind").manifest.fingerprint
    changed = b"\xef\xbb\xbf" + TRAIN.replace("\n", "\r\n\r\n").encode()
    write(tmp_path / "raw/train/behaviors.tsv", changed)
    again = prepared(tmp_path, "mind")
    assert again.fresh
    assert again.manifest.fingerprint == plain


BAD = {
    "too few fields": ("5\tU1\t11/9/2019 8:36:57 AM\tN1", "has 4 fields, expected 5"),
    "a date of another kind": ("5\tU1\t2019-11-09\tN1\tN1-1", "the time is '2019-11-09'"),
    "a time before 1970": ("5\tU1\t11/9/1969 8:36:57 AM\tN1\tN1-1", "the time is '11/9/1969"),
    "hour 13 of a half day": ("5\tU1\t11/9/2019 13:36:57 PM\tN1\tN1-1", "the time is"),
    "no label": ("5\tU1\t11/9/2019 8:36:57 AM\tN1\tN1-1 N2", "'N2' has no label"),
    "label 2": ("5\tU1\t11/9/2019 8:36:57 AM\tN1\tN1-2", "'N1-2' has no label"),
    "no candidates": ("5\tU1\t11/9/2019 8:36:57 AM\tN1\t ", "no candidates"),
    "no user": ("5\t\t11/9/2019 8:36:57 AM\tN1\tN1-1", "user is empty"),
    "Latin-1": (b"5\tU\xe9\t11/9/2019 8:36:57 AM\tN1\tN1-1", "is not UTF-8 text"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_name_file_and_line(tmp_path, home, case):
    line, words = BAD[case]
    line = line if isinstance(line, bytes) else line.encode()
    raw(tmp_path, train=TRAIN.encode() + line + b"\n")
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "mind")
    first = caught.value.problems[0]
    assert first.where == f"{tmp_path / 'raw/train/behaviors.tsv'}:5"
    assert words in first.message
    assert not list(home.glob("tables/*/manifest.json"))


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_may_be_left_out(tmp_path, home, case):
    line, _ = BAD[case]
    line = line if isinstance(line, bytes) else line.encode()
    raw(tmp_path)
    good = prepared(tmp_path, "mind").manifest.fingerprint
    raw(tmp_path, train=line + b"\n" + TRAIN.encode())
    made = prepared(tmp_path, "mind", on_bad_row="skip")
    assert made.manifest.dropped["bad_rows/train/behaviors.tsv"] == 1
    assert made.manifest.fingerprint == good


def test_many_bad_rows_come_ten_at_once(tmp_path, home):
    raw(tmp_path, train=TRAIN + "x\n" * 30)
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "mind")
    assert len(caught.value.problems) == 11
    assert "30 bad rows" in str(caught.value)
    assert "on_bad_row: skip" in str(caught.value)


def test_same_news_twice_in_one_file(tmp_path, home):
    raw(tmp_path)
    write(tmp_path / "raw/train/news.tsv", news("N1", "N2", "N3", "N2"))
    with pytest.raises(InputError, match=r"news.tsv:4: news id 'N2' stands twice"):
        prepared(tmp_path, "mind")


def test_news_and_behaviors_of_different_releases(tmp_path, home):
    raw(tmp_path, dev=DEV.replace("N", "M"))
    with pytest.raises(InputError, match=r"no impression is left"):
        prepared(tmp_path, "mind")


def test_missing_parts(tmp_path, home):
    raw(tmp_path)
    (tmp_path / "raw/dev/behaviors.tsv").rename(tmp_path / "raw/dev/behaviours.tsv")
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "mind")
    assert "behaviours.tsv" in str(caught.value)
    assert "Ask the owner." in str(caught.value)


def test_valid_from_dev_needs_a_test_part(tmp_path, home):
    raw(tmp_path)
    with pytest.raises(InputError, match=r"tiny.yaml:\d+: options.valid"):
        prepared(tmp_path, "mind", options={"valid": "dev"})
