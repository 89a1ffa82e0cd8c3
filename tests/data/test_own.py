"""Own data in all formats, and what may be wrong with it."""

from __future__ import annotations

import csv
import json

import pandas as pd
import pyarrow.parquet as pq
import pytest
from raw_files import ROOT, prepared, write

from legoray.data.load import load_corpus, load_items, load_users
from legoray.data.prepare import prepare
from legoray.errors import InputError

ITEMS = [
    {"id": 1, "title": 'One, with a comma and a "quote"', "tag": "x"},
    {"id": 2, "title": "Two\nin two lines", "tag": "y"},
    {"id": 3, "title": "", "tag": "x"},
    {"id": 4, "title": "2019-01-01", "tag": "z"},
]
EVENTS = [
    {"who": "u", "what": 2, "at": 200},
    {"who": "u", "what": 1, "at": 100},
    {"who": "v", "what": 3, "at": 150},
    {"who": "u", "what": 3, "at": 300},
]
SEEN = [
    {"visit": 1, "who": "u", "what": 1, "hit": 0, "at": 200},
    {"visit": 1, "who": "u", "what": 3, "hit": 1, "at": 200},
    {"visit": 2, "who": "v", "what": 1, "hit": 1, "at": 250},
    {"visit": 2, "who": "v", "what": 2, "hit": 0, "at": 250},
    {"visit": 3, "who": "w", "what": 4, "hit": 1, "at": 400},
    {"visit": 3, "who": "w", "what": 2, "hit": 0, "at": 400},
]


def write_csv(path, rows, separator=","):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0], delimiter=separator)
        table.writeheader()
        table.writerows(rows)


def write_jsonl(path, rows):
    write(path, "".join(json.dumps(row) + "\n" for row in rows))


def write_parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(path)


WRITERS = {
    "csv": write_csv,
    "tsv": lambda path, rows: write_csv(path, rows, "\t"),
    "jsonl": write_jsonl,
    "parquet": write_parquet,
}


def options(ending, **changes):
    tables = {
        "items": {"file": f"items.{ending}", "key": "id"},
        "events": {"file": f"events.{ending}", "user": "who", "item": "what", "time": "at"},
        "interactions": {
            "file": f"seen.{ending}", "impression": "visit", "user": "who", "item": "what",
            "label": "hit", "time": "at",
        },
        "split": {"temporal": "0.34/0.33/0.33"},
    }  # fmt: skip
    return tables | changes


def write_all(folder, ending, items=ITEMS, events=EVENTS, seen=SEEN):
    for name, rows in (("items", items), ("events", events), ("seen", seen)):
        WRITERS[ending](folder / f"raw/{name}.{ending}", rows)


def test_all_formats_give_the_same_tables(tmp_path, home):
    prints = {}
    for ending in WRITERS:
        write_all(tmp_path / ending, ending)
        made = prepared(tmp_path / ending, "own", options=options(ending))
        prints[ending] = made.manifest.fingerprint
        assert load_items(made.tables, ["key", "title", "tag"]).to_pylist() == [
            {"key": str(row["id"]), "title": row["title"], "tag": row["tag"]} for row in ITEMS
        ]
    assert len(set(prints.values())) == 1, prints


def test_events_become_histories_that_end_before(tmp_path, home):
    write_all(tmp_path, "csv")
    made = prepared(tmp_path, "own", options=options("csv"))
    corpus = load_corpus(made.tables)
    assert corpus.history_items.tolist() == [1, 2, 3, 3]
    assert corpus.history_offsets.tolist() == [0, 3, 4, 4]  # w has no past
    train, valid, test = corpus.splits.values()
    assert (train.user.tolist(), valid.user.tolist(), test.user.tolist()) == ([0], [1], [2])
    assert train.history_end.tolist() == [1]  # the event of the same second does not count
    assert valid.history_end.tolist() == [1]
    assert test.history_end.tolist() == [0]
    assert train.item.tolist() == [3, 1]
    assert train.clicks.tolist() == [1]
    assert train.impression.tolist() == [1]
    assert made.manifest.text == ["title", "tag"]


def test_times_in_words_equal_times_in_seconds(tmp_path, home):
    write_all(tmp_path / "a", "csv")
    one = prepared(tmp_path / "a", "own", options=options("csv")).manifest.fingerprint

    def worded(rows):
        return [r | {"at": f"1970-01-01 00:0{r['at'] // 60}:{r['at'] % 60:02d}"} for r in rows]

    write_all(tmp_path / "b", "jsonl", events=worded(EVENTS), seen=worded(SEEN))
    two = prepared(tmp_path / "b", "own", options=options("jsonl")).manifest.fingerprint
    assert one == two


def test_given_histories_and_files_per_split(tmp_path, home):
    write_all(tmp_path, "csv")
    write_csv(tmp_path / "raw/past.csv", [{"who": "u", "list": "1|2|77"}, {"who": "w", "list": ""}])
    files = {}
    for number, split in enumerate(("train", "valid", "test")):
        rows = [dict(row) for row in SEEN if row["visit"] == number + 1]
        if split == "test":
            for row in rows:
                del row["hit"], row["at"]
        else:
            for row in rows:
                del row["at"]
        write_csv(tmp_path / f"raw/{split}.csv", rows)
        files[split] = f"{split}.csv"
    chosen = options("csv")
    del chosen["events"]
    seen = chosen["interactions"] | files | {"time": None}
    del seen["file"]
    chosen |= {
        "histories": {"file": "past.csv", "user": "who", "items": "list", "separator": "|"},
        "interactions": seen,
    }
    with pytest.raises(InputError, match=r"is 'temporal', expected official: files or a column"):
        prepared(tmp_path, "own", options=chosen)
    made = prepared(tmp_path, "own", options=chosen | {"split": "official"})
    corpus = load_corpus(made.tables)
    assert corpus.history_items.tolist() == [1, 2]
    assert [s.history_end.tolist() for s in corpus.splits.values()] == [[2], [0], [0]]
    assert [s.labeled for s in corpus.splits.values()] == [True, True, False]
    assert corpus.splits["test"].time.tolist() == [-1]
    assert made.manifest.dropped == {"unknown_items_in_histories": 1}
    assert made.manifest.protocol["split"] == "as given"


def test_lists_in_json_and_a_split_column(tmp_path, home):
    write_jsonl(tmp_path / "raw/items.jsonl", ITEMS)
    past = [{"user": "u", "items": [2, 1]}, {"user": "v", "items": []}]
    write_jsonl(tmp_path / "raw/past.jsonl", past)
    parts = {1: "train", 2: "valid", 3: "test"}
    write_csv(tmp_path / "raw/seen.csv", [r | {"part": parts[r["visit"]]} for r in SEEN])
    chosen = options("csv")
    chosen |= {"items": {"file": "items.jsonl", "key": "id"}, "histories": "past.jsonl"}
    chosen["interactions"] = chosen["interactions"] | {"split": "part"}
    del chosen["events"], chosen["split"]
    corpus = load_corpus(prepared(tmp_path, "own", options=chosen).tables)
    assert corpus.history_items.tolist() == [2, 1]
    assert [len(s) for s in corpus.splits.values()] == [1, 1, 1]


def test_impressions_by_user_and_time(tmp_path, home):
    write_all(tmp_path, "csv")
    chosen = options("csv")
    chosen["interactions"] = chosen["interactions"] | {"impression": None}
    corpus = load_corpus(prepared(tmp_path, "own", options=chosen).tables)
    assert [s.item.tolist() for s in corpus.splits.values()] == [[3, 1], [1, 2], [4, 2]]


USERS = [
    {"name": "w", "age": 33, "likes": "tea, cake"},
    {"name": "nobody", "age": 50, "likes": "x"},
    {"name": "u", "age": None, "likes": ""},
]


@pytest.mark.parametrize("ending", WRITERS)
def test_users_have_the_columns_of_their_table(tmp_path, home, ending):
    write_all(tmp_path, ending)
    without = prepared(tmp_path, "own", options=options(ending)).manifest
    WRITERS[ending](tmp_path / f"raw/who.{ending}", USERS)
    table = {"file": f"who.{ending}", "key": "name"}
    made = prepared(tmp_path, "own", options=options(ending, users=table))
    assert made.manifest.user_attributes == ["age", "likes"]
    assert made.manifest.fingerprint != without.fingerprint
    lacking = {"users_without/age": 2, "users_without/likes": 2}
    assert made.manifest.counts == without.counts | lacking
    assert made.manifest.dropped == {"unseen_users": 1}
    assert load_users(made.tables, ["key", "age", "likes"]).to_pylist() == [
        {"key": "u", "age": "", "likes": ""},
        {"key": "v", "age": "", "likes": ""},
        {"key": "w", "age": "33", "likes": "tea, cake"},
    ]
    table["attributes"] = ["likes"]
    fewer = prepared(tmp_path, "own", options=options(ending, users=table))
    assert fewer.manifest.user_attributes == ["likes"]
    with pytest.raises(InputError, match=r"no user attribute 'like'.*did you mean 'likes'"):
        load_users(fewer.tables, ["like"])


def test_users_of_given_histories(tmp_path, home):
    write_all(tmp_path, "csv")
    write_csv(tmp_path / "raw/past.csv", [{"who": "w", "list": "1 2"}, {"who": "z", "list": "1"}])
    write_csv(tmp_path / "raw/who.csv", [{"user": "z", "kind": "a"}, {"user": "u", "kind": "b"}])
    chosen = options("csv", users="who.csv")
    del chosen["events"]
    chosen["histories"] = {"file": "past.csv", "user": "who", "items": "list"}
    made = prepared(tmp_path, "own", options=chosen)
    found = load_users(made.tables, ["key", "kind"]).to_pylist()
    assert {row["key"]: row["kind"] for row in found} == {"w": "", "z": "a", "u": "b", "v": ""}


def test_bad_users(tmp_path, home):
    write_all(tmp_path, "csv")
    path = tmp_path / "raw/who.csv"
    table = {"file": "who.csv", "key": "name"}
    write_csv(path, [*USERS, {"name": "u", "age": 1, "likes": ""}])
    with pytest.raises(InputError, match=r"who.csv:5: name 'u' stands twice"):
        prepared(tmp_path, "own", options=options("csv", users=table))
    made = prepared(tmp_path, "own", options=options("csv", users=table), on_bad_row="skip")
    assert made.manifest.dropped == {"bad_rows/raw/who.csv": 1, "unseen_users": 1}
    write_csv(path, [{"name": "x", "age": 1}])
    with pytest.raises(InputError, match=r"names no user that the histories or interactions know"):
        prepared(tmp_path, "own", options=options("csv", users=table))
    with pytest.raises(InputError, match=r"has no column 'user'"):
        prepared(tmp_path, "own", options=options("csv", users="who.csv"))
    write_csv(path, [{"name": "u", "key": 1}])
    with pytest.raises(InputError, match=r"'key' cannot be an attribute"):
        prepared(tmp_path, "own", options=options("csv", users=table))


BAD = {
    "label": ("seen.csv", "3,w,2,0,400", "3,w,2,0.5,400", 7, "hit is '0.5', expected 0 or 1"),
    "no label": ("seen.csv", "3,w,2,0,400", "3,w,2,,400", 7, "hit is '', expected 0 or 1"),
    "NaN": ("seen.csv", "3,w,2,0,400", "3,w,2,nan,400", 7, "hit is 'nan'"),
    "time": ("seen.csv", "3,w,2,0,400", "3,w,2,0,soon", 7, "at is 'soon'"),
    "milliseconds": ("seen.csv", "3,w,2,0,400", "3,w,2,0,1573634217000", 7, "milliseconds"),
    "no user": ("seen.csv", "3,w,2,0,400", "3,,2,0,400", 7, "the who is empty"),
    "fields": ("seen.csv", "3,w,2,0,400", "3,w,2,0", 7, "has 4 fields, the header has 5"),
    "two users": ("seen.csv", "3,w,2,0,400", "3,v,2,0,400", 7, "'3' has another user"),
    "two times": ("seen.csv", "3,w,2,0,400", "3,w,2,0,401", 7, "'3' has another time"),
    "event": ("events.csv", "v,3,150", "v,,150", 4, "the what is empty"),
    "key twice": ("items.csv", "4,2019", "3,2019", 6, "id '3' stands twice"),
    "no key": ("items.csv", "4,2019", ",2019", 6, "the id is empty"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rows(tmp_path, home, case):
    name, old, new, line, words = BAD[case]
    write_all(tmp_path, "csv")
    path = tmp_path / "raw" / name
    text = path.read_text()
    assert old in text
    write(path, text.replace(old, new))
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "own", options=options("csv"))
    assert caught.value.problems[0].where == f"{path}:{line}"
    assert words in caught.value.problems[0].message
    if name != "items.csv":
        made = prepared(tmp_path, "own", options=options("csv"), on_bad_row="skip")
        assert made.manifest.dropped[f"bad_rows/raw/{name}"] == 1


def test_bad_json_lines(tmp_path, home):
    write_all(tmp_path, "jsonl")
    path = tmp_path / "raw/seen.jsonl"
    write(path, path.read_text() + '\n{"visit": 4, "who": \n[1, 2]\n')
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "own", options=options("jsonl"))
    first, second = caught.value.problems[:2]
    assert (first.where, second.where) == (f"{path}:8", f"{path}:9")
    assert "is not JSON" in first.message
    assert "is not a JSON object" in second.message
    made = prepared(tmp_path, "own", options=options("jsonl"), on_bad_row="skip")
    assert made.manifest.dropped["bad_rows/raw/seen.jsonl"] == 2


def test_bad_parquet_rows_are_named_by_row(tmp_path, home):
    bad = [*SEEN[:-1], SEEN[-1] | {"hit": float("nan")}]
    write_all(tmp_path, "parquet", seen=bad)
    with pytest.raises(InputError, match=r"seen.parquet: row 6: the hit is ''"):
        prepared(tmp_path, "own", options=options("parquet"))


CHANGES = {
    "column": ({"items": {"file": "items.csv", "key": "item"}}, "has no column 'item'"),
    "near column": ({"items": {"file": "items.csv", "key": "ids"}}, "is it 'id'?"),
    "two pasts": ({"histories": "items.csv"}, "either `histories` or `events`"),
    "ending": ({"items": "items.xlsx"}, "expected .csv"),
    "no file": ({"events": "evnts.csv"}, "there is a 'events.csv' beside it"),
    "unknown key": ({"evnts": "events.csv"}, "did you mean 'events'?"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_bad_options(tmp_path, home, case):
    write_all(tmp_path, "csv")
    write(tmp_path / "raw/items.xlsx", "x")
    change, words = CHANGES[case]
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "own", options=options("csv") | change)
    assert words in str(caught.value)


def test_rows_that_are_not_utf_8(tmp_path, home):
    write_all(tmp_path, "csv")
    path = tmp_path / "raw/events.csv"
    write(path, path.read_bytes() + "é,1,100\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"events.csv:6: is not UTF-8 text"):
        prepared(tmp_path, "own", options=options("csv"))


def test_attributes_that_clash_with_the_tables(tmp_path, home):
    write_all(tmp_path, "csv", items=[row | {"key": "k"} for row in ITEMS])
    with pytest.raises(InputError, match=r"'key' cannot be an attribute"):
        prepared(tmp_path, "own", options=options("csv"))


def test_columns_of_lists_where_texts_are_expected(tmp_path, home):
    items = [row | {"title": [1, 2], "tag": ["a", "b"]} for row in ITEMS]
    write_all(tmp_path, "parquet", items=items)
    with pytest.raises(InputError, match=r"'title' holds list"):
        prepared(tmp_path, "own", options=options("parquet"))
    write_all(tmp_path, "parquet", items=[row | {"tag": ["a", "b"]} for row in ITEMS])
    made = prepared(tmp_path, "own", options=options("parquet"))
    assert load_items(made.tables, ["tag"])["tag"][0].as_py() == "a, b"


def test_a_time_is_asked_for_where_it_is_needed(tmp_path, home):
    write_all(tmp_path, "csv")
    chosen = options("csv")
    chosen["interactions"] = chosen["interactions"] | {"time": None}
    with pytest.raises(InputError, match=r"histories are made of timed events"):
        prepared(tmp_path, "own", options=chosen)


def test_tables_that_do_not_belong_together(tmp_path, home):
    write_all(tmp_path, "csv", seen=[row | {"what": f"x{row['what']}"} for row in SEEN])
    with pytest.raises(InputError, match=r"no interaction is left: 6 name items"):
        prepared(tmp_path, "own", options=options("csv"))


def test_the_example(home):
    made = prepare(ROOT / "datasets" / "own_example.yaml", say=lambda line: None)
    assert made.manifest.synthetic
    assert set(made.manifest.counts) >= {"items", "users", "rows/test"}
    assert pq.read_table(made.tables / "items").num_rows == 40


def test_rows_that_say_the_same_again_are_left_out_and_counted(tmp_path, home):
    write_all(tmp_path / "a", "csv")
    once = prepared(tmp_path / "a", "own", options=options("csv")).manifest.fingerprint
    again = [SEEN[1] | {"hit": 0}, *SEEN, SEEN[0]]  # of a click and a non-click, the click stays
    again = [again[1], again[0], *again[2:]]
    write_all(tmp_path / "b", "csv", events=[EVENTS[0], *EVENTS], seen=again)
    made = prepared(tmp_path / "b", "own", options=options("csv"))
    assert made.manifest.dropped["events_that_stand_twice"] == 1
    assert made.manifest.dropped["candidates_that_stand_twice"] == 2
    assert made.manifest.fingerprint == once


@pytest.mark.parametrize("name", ["events", "seen"])
def test_times_before_1970_are_refused(tmp_path, home, name):
    rows = {"events": EVENTS, "seen": SEEN}[name]
    changed = [
        *rows[:-1],
        rows[-1] | {"at": -5, "visit": 9} if name == "seen" else rows[-1] | {"at": -5},
    ]
    write_all(tmp_path, "csv", **{name: changed})
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "own", options=options("csv"))
    assert caught.value.problems[0].where.endswith(f"{name}.csv:{len(rows) + 1}")
    assert "the at is '-5', which lies before 1970" in caught.value.problems[0].message


def test_the_text_nan_is_no_key(tmp_path, home):
    write_all(tmp_path, "csv", events=[*EVENTS, {"who": "NaN", "what": 1, "at": 5}])
    with pytest.raises(InputError, match=r"events.csv:6: the who is empty"):
        prepared(tmp_path, "own", options=options("csv"))
