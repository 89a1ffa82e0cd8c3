"""EB-NeRD's processor against a plain reading of the same rows: of a world, and of real files."""

from __future__ import annotations

import calendar
import shutil
from bisect import bisect_left
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from log_rows import arrived, split_times
from raw_ebnerd import ARTICLES, BEHAVIORS, HISTORY, write_raw, write_with_test
from raw_files import dataset, prepared
from worlds import world

from legoray.data import rowgroups
from legoray.data.load import load_corpus, load_items, load_users
from legoray.data.prepare import prepare
from legoray.errors import InputError

DEMO = {"parts": ["train"], "articles": "ids", "split": {"temporal": "0.8/0.1/0.1"}}


def seconds(moment) -> int:
    return calendar.timegm(moment.timetuple())


def read_plainly(folder: Path):
    """(impression, user, time, history, clicked, others) of a part's rows; plain loops."""
    past = {}
    for row in pq.read_table(folder / "history.parquet").to_pylist():
        pairs = zip(row["impression_time_fixed"], row["article_id_fixed"], strict=True)
        kept = [(seconds(t), str(i)) for t, i in pairs if t is not None and i is not None]
        kept.sort(key=lambda pair: pair[0])
        past[row["user_id"]] = [t for t, _ in kept], [i for _, i in kept]
    found = []
    for row in pq.read_table(folder / "behaviors.parquet").to_pylist():
        times, items = past.get(row["user_id"], ([], []))
        history = items[: bisect_left(times, seconds(row["impression_time"]))]
        shown = [str(i) for i in row["article_ids_inview"]]
        clicks = {str(i) for i in row["article_ids_clicked"]}
        found.append(
            (
                row["impression_id"],
                str(row["user_id"]),
                seconds(row["impression_time"]),
                history,
                [i for i in shown if i in clicks],
                [i for i in shown if i not in clicks],
            )
        )
    return found


def change(path: Path, schema: pa.Schema, edit) -> None:
    """Rewrite a file with `edit` applied to its rows."""
    rows = edit(pq.read_table(path).to_pylist())
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


@pytest.fixture
def raw(tmp_path):
    write_raw(tmp_path / "raw", world())
    return tmp_path / "raw"


def test_every_impression_arrives(tmp_path, home, raw):
    made = prepared(tmp_path, "ebnerd")
    train = read_plainly(raw / "train")
    cut = sorted(row[2] for row in train)[round(0.9 * len(train))]
    assert arrived(made, "train") == [row for row in train if row[2] < cut]
    assert arrived(made, "valid") == [row for row in train if row[2] >= cut]
    assert arrived(made, "test") == read_plainly(raw / "validation")
    counts = made.manifest.counts
    assert (counts["raw/items"], counts["raw/users"]) == (30, 24)
    assert (counts["raw/impressions/train"], counts["raw/impressions/validation"]) == (280, 120)
    assert made.manifest.dropped == {
        "clicks_given_again/train": 5,
        "clicks_given_again/validation": 3,
    }


def test_texts_and_what_users_told(tmp_path, home, raw):
    made = prepared(tmp_path, "ebnerd", text=["title", "body"])
    w = world()
    items = load_items(made.tables)
    assert items["title"].to_pylist() == [item.title for item in w.items]
    bodies = [None if n % 7 == 0 else item.text for n, item in enumerate(w.items)]
    assert items["body"].to_pylist() == [body or "" for body in bodies]
    assert items["topics"].to_pylist() == [", ".join(item.tags) for item in w.items]
    assert items["subcategory"][0].as_py() == "2, 3"
    users = load_users(made.tables, ["key", "gender", "postcode", "age"])
    rows = {row.pop("key"): row for row in users.to_pylist()}
    assert rows["105"] == {"gender": "female", "postcode": "rural district", "age": "40"}
    assert rows["106"] == {"gender": "", "postcode": "", "age": ""}


def test_a_history_ends_strictly_before_the_impression(tmp_path, home, raw):
    """Also where the file's history is out of order, and goes on after the impression."""
    first = pq.read_table(raw / "train/behaviors.parquet").to_pylist()[100]
    now, user = first["impression_time"], first["user_id"]
    ids = [1001, 1002, 1003, 1004, 1001, None, 1005]
    at = [5, -50, 0, -10, -20, -30, None]

    def edit(rows):
        for row in rows:
            if row["user_id"] == user:
                moments = [
                    None if s is None else now + np.timedelta64(s, "s").astype(object) for s in at
                ]
                row |= {"article_id_fixed": ids, "impression_time_fixed": moments}
                row |= {"scroll_percentage_fixed": None, "read_time_fixed": None}
        return rows

    change(raw / "train/history.parquet", HISTORY, edit)
    made = prepared(tmp_path, "ebnerd")
    rows = {row[0]: row for row in arrived(made, "train")}
    assert rows[first["impression_id"]][3] == ["1002", "1001", "1004"]
    assert made.manifest.dropped["history_items_without_id_or_time/train"] == 2
    expected = {row[0]: row for row in read_plainly(raw / "train")}
    assert all(rows[number] == expected[number] for number in rows)


def test_clicks_that_were_not_in_view_and_articles_that_are_not_described(tmp_path, home, raw):
    def edit(rows):
        rows[0] |= {"article_ids_inview": [1001, 1002, 9_999], "article_ids_clicked": [1002, 1003]}
        rows[1] |= {"article_ids_inview": [9_999, 9_998], "article_ids_clicked": [9_998, 9_997]}
        return rows

    change(raw / "train/behaviors.parquet", BEHAVIORS, edit)
    dropped = prepared(tmp_path, "ebnerd").manifest.dropped
    assert dropped["clicks_outside_the_view/train"] == 2
    assert dropped["unknown_news_in_candidates/train"] == 3
    assert dropped["impressions_without_candidates/train"] == 1
    made = prepared(tmp_path, "ebnerd")
    row = next(row for row in arrived(made, "train") if row[0] == 1)
    assert (row[4], row[5]) == (["1002"], ["1001"])


def test_users_without_a_history_and_histories_of_nobody(tmp_path, home, raw):
    change(raw / "train/history.parquet", HISTORY, lambda rows: [*rows[2:], {"user_id": 77}])
    made = prepared(tmp_path, "ebnerd")
    assert made.manifest.counts["users_without_a_history/train"] == 2
    assert made.manifest.counts["histories_without_impressions/train"] == 1
    rows = pq.read_table(raw / "train/behaviors.parquet")["user_id"].to_pylist()
    without = {str(user) for user in dict.fromkeys(rows)} - {
        str(row["user_id"]) for row in pq.read_table(raw / "train/history.parquet").to_pylist()
    }
    assert all(row[3] == [] for row in arrived(made, "train") if row[1] in without)


def test_the_unlabeled_test_set(tmp_path, home):
    write_with_test(tmp_path / "raw", world())
    options = {"test": "ebnerd_testset/test", "valid": "validation"}
    made = prepared(tmp_path, "ebnerd", options=options)
    assert made.manifest.labeled == {"train": True, "valid": True, "test": False}
    assert made.manifest.counts["raw/impressions/test"] == 122
    assert made.manifest.dropped["beyond_accuracy_rows/test"] == 2
    corpus = load_corpus(made.tables)
    assert [len(corpus.splits[name]) for name in ("train", "valid", "test")] == [280, 120, 120]
    assert made.manifest.protocol["split"] == "train: official train; valid: official " \
        "validation; test: official test"  # fmt: skip


def test_validation_is_left_unread_beside_a_test_set_and_a_tail(tmp_path, home):
    write_with_test(tmp_path / "raw", world())
    shutil.rmtree(tmp_path / "raw/validation")
    made = prepared(tmp_path, "ebnerd", options={"test": "ebnerd_testset/test"})
    assert made.manifest.counts["impressions/valid"] == 28


def test_the_test_set_has_articles_of_its_own(tmp_path, home):
    write_with_test(tmp_path / "raw", world())
    change(tmp_path / "raw/articles.parquet", ARTICLES, lambda rows: rows[:-4])
    options = {"test": "ebnerd_testset/test", "valid": "validation"}
    assert prepared(tmp_path, "ebnerd", options=options).manifest.counts["raw/items"] == 30
    (tmp_path / "raw/ebnerd_testset/articles.parquet").unlink()
    with pytest.raises(InputError, match=r"ebnerd_testset/articles\.parquet: no such file"):
        prepared(tmp_path, "ebnerd", options=options)


def test_articles_that_are_not_there(tmp_path, home, raw):
    known = prepared(tmp_path, "ebnerd")
    (raw / "articles.parquet").unlink()
    with pytest.raises(InputError, match=r"articles\.parquet: no such file .*articles: ids"):
        prepared(tmp_path, "ebnerd")
    made = prepared(tmp_path, "ebnerd", options={"articles": "ids"})
    assert made.manifest.attributes == []
    for split in ("train", "valid", "test"):
        assert arrived(made, split) == arrived(known, split)


def test_splits_by_time(tmp_path, home, raw):
    made = prepared(tmp_path, "ebnerd", options={"split": {"temporal": "0.5/0.25/0.25"}})
    times = split_times(made)
    assert times["train"][1] < times["valid"][0] <= times["valid"][1] < times["test"][0]
    rows = [row[1:] for split in ("train", "valid", "test") for row in arrived(made, split)]
    expected = [*read_plainly(raw / "train"), *read_plainly(raw / "validation")]
    assert sorted(rows) == sorted(row[1:] for row in expected)


REFUSED = {
    "valid": ({"valid": "validation"}, r"options.valid.*is 'validation'"),
    "one part": ({"parts": ["train"]}, r"options.parts.*train alone cannot be split officially"),
    "a test set too many": (
        {"test": "ebnerd_testset/test", "split": "temporal"},
        r"options.test.*beside `split: temporal`",
    ),
    "another split": ({"split": "leave-last-out"}, r"options.split.*official or temporal"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_options_that_do_not_go_together(tmp_path, home, raw, case):
    options, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        prepared(tmp_path, "ebnerd", options=options)


@pytest.mark.parametrize("huge", [1 << 20, 1])
def test_row_groups_do_not_matter(tmp_path, home, raw, monkeypatch, huge):
    plain = prepared(tmp_path, "ebnerd").manifest.fingerprint
    for path in raw.rglob("*.parquet"):
        pq.write_table(pq.read_table(path), path, row_group_size=17 if huge > 1 else None)
    monkeypatch.setattr(rowgroups, "HUGE", huge)
    again = prepared(tmp_path, "ebnerd")
    assert again.fresh
    assert again.manifest.fingerprint == plain


BAD = {
    "no user": (BEHAVIORS, "train/behaviors", {"user_id": None}, "the user_id is missing"),
    "no number": (BEHAVIORS, "train/behaviors", {"impression_id": None}, "impression_id is"),
    "no clicks": (BEHAVIORS, "train/behaviors", {"article_ids_clicked": None}, "clicked are"),
    "no time": (BEHAVIORS, "train/behaviors", {"impression_time": None}, "time is missing"),
    "before 1970": (BEHAVIORS, "train/behaviors", {"impression_time": np.datetime64(
        "1960-01-01T00:00:00", "us").astype(object)}, "before 1970"),
    "nothing in view": (BEHAVIORS, "train/behaviors", {"article_ids_inview": []}, "no article"),
    "no view": (BEHAVIORS, "train/behaviors", {"article_ids_inview": None}, "inview are missing"),
    "an empty id": (BEHAVIORS, "train/behaviors", {"article_ids_inview": [1001, None]}, "empty id"),
    "lists of different lengths": (HISTORY, "train/history", {"article_id_fixed": [1001] * 99},
                                   "another number of article_id_fixed"),
    "the same user": (HISTORY, "train/history", {"user_id": 0}, "user '0' stands twice"),
    "the same article": (ARTICLES, "articles", {"article_id": 5}, "article '5' stands twice"),
    "an article without id": (ARTICLES, "articles", {"article_id": None}, "article_id is missing"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_are_refused_or_left_out(tmp_path, home, raw, case):
    schema, name, values, message = BAD[case]
    path = raw / f"{name}.parquet"

    def spoil(rows):
        return [*rows[:-1], rows[-1] | values, rows[-1] | values] if "same" in case else [
            *rows[:-1], rows[-1] | values]  # fmt: skip

    good = {}
    if "same" not in case:
        change(path, schema, lambda rows: rows[:-1])
        good = prepared(tmp_path, "ebnerd").manifest.dropped
        write_raw(raw, world())
    change(path, schema, spoil)
    last = pq.read_metadata(path).num_rows
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "ebnerd")
    assert message in caught.value.problems[0].message
    assert caught.value.problems[0].where == f"{path}: row {last}"
    made = prepared(tmp_path, "ebnerd", on_bad_row="skip")
    lost = made.manifest.dropped[f"bad_rows/{path.parent.name}/{path.name}"]
    assert lost == 1
    if good and name != "articles":
        assert made.manifest.dropped == good | {f"bad_rows/train/{path.name}": 1}


DAMAGED = {
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-300]), "is not a whole Parquet file"),
    "empty": (lambda p: p.write_bytes(b""), "is empty (0 bytes)"),
    "a folder": (lambda p: (p.unlink(), p.mkdir()), "is a folder, a file was expected"),
    "a zip": (lambda p: p.write_bytes(b"PK\x03\x04" + b"x" * 99), "is not a whole Parquet file"),
    "another column": (
        lambda p: pq.write_table(pq.read_table(p).rename_columns(
            ["impression", *BEHAVIORS.names[1:]]), p),
        "has no column 'impression_id'",
    ),
    "no clicks": (
        lambda p: pq.write_table(pq.read_table(p).drop_columns(["article_ids_clicked"]), p),
        "has no column 'article_ids_clicked'",
    ),
    "another type": (
        lambda p: pq.write_table(pq.read_table(p).set_column(
            2, "impression_time", pa.array(["now"] * pq.read_metadata(p).num_rows)), p),
        "its column 'impression_time' is string, expected times",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files(tmp_path, home, raw, case):
    damage, message = DAMAGED[case]
    path = raw / "train/behaviors.parquet"
    damage(path)
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "ebnerd")
    assert [p.where for p in caught.value.problems] == [str(path)]
    assert message in caught.value.problems[0].message


def test_damage_within_the_file(tmp_path, home, raw):
    path = raw / "train/behaviors.parquet"
    data = bytearray(path.read_bytes())
    data[200:2000] = b"\xff" * 1800
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match="damaged Parquet file"):
        prepared(tmp_path, "ebnerd")


def test_the_real_train_behaviours(tmp_path, home, real_data):
    """Ekstra Bladet's own demo files: every impression, counted and read by plain Python."""
    raw = real_data("ebnerd_demo")
    said: list[str] = []
    path = dataset(tmp_path, "ebnerd", raw=str(raw), options=DEMO)
    made = prepare(path, say=said.append)
    rows = read_plainly(raw / "train")
    counts = made.manifest.counts
    items = {key for row in rows for part in row[4:] for key in part}
    for row in pq.read_table(raw / "train/history.parquet").to_pylist():
        items |= {str(key) for key in row["article_id_fixed"]}
    assert counts["raw/items"] == len(items) == 5638
    assert counts["raw/impressions/train"] == len(rows) == 24_724
    assert counts["raw/users"] == len({row[1] for row in rows}) == 1590
    found = [row for split in ("train", "valid", "test") for row in arrived(made, split)]
    assert sorted(found) == sorted(rows)
    clicks = pq.read_table(raw / "train/behaviors.parquet")["article_ids_clicked"].to_pylist()
    again = sum(len(ids) - len(set(ids)) for ids in clicks)
    assert made.manifest.dropped == {"clicks_given_again/train": again}
    sizes = Counter(len(row[4]) for row in rows)
    assert sum(size * n for size, n in sizes.items()) == sum(
        counts[f"clicks/{split}"] for split in ("train", "valid", "test")
    )


def test_the_real_files_without_articles_are_refused(tmp_path, home, real_data):
    raw = real_data("ebnerd_demo")
    options = {"parts": ["train"], "split": "temporal"}
    with pytest.raises(InputError, match=r"articles\.parquet: no such file .*articles: ids"):
        prepared(tmp_path, "ebnerd", raw=str(raw), options=options)
