"""Sequences with leave-last-out: the same rows as plain loops give, and no look ahead."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from raw_files import ROOT, prepared, write

from legoray.data.load import load_corpus, load_items, load_users
from legoray.data.prepare import prepare
from legoray.data.protocol import NegativeRule, leave_last_out, sample_unseen_negatives
from legoray.data.ragged import offsets_of
from legoray.errors import InputError

OPTIONS = {
    "items": {"file": "items.csv", "separator": "\t", "key": "id"},
    "sequences": {"file": "had.jsonl", "user": "who", "items": "had"},
    "negatives": 4,
}
ITEMS = 30


def sequences(seed=0, users=40):
    """Users with 0 to 9 items, some of which are had again."""
    chance = np.random.default_rng(seed)
    sizes = chance.integers(0, 10, users)
    return {f"u{n}": [f"i{k}" for k in chance.integers(0, ITEMS, s)] for n, s in enumerate(sizes)}


def raw(folder: Path, had: dict[str, list[str]], times: dict[str, list] | None = None) -> None:
    write(
        folder / "raw/items.csv",
        "id\ttitle\n" + "".join(f"i{n}\tTitle, {n}\n" for n in range(ITEMS)),
    )
    rows = [{"who": u, "had": own, **({"at": times[u]} if times else {})} for u, own in had.items()]
    write(folder / "raw/had.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def rows_of_tables(made):
    """Per split: (user, history, item, time) of each impression, and its negatives."""
    corpus = load_corpus(made.tables)
    users = load_users(made.tables, ["key"])["key"].to_pylist()
    keys = ["", *load_items(made.tables, ["key"])["key"].to_pylist()]
    found, negatives = {}, {}
    for name, split in corpus.splits.items():
        found[name], negatives[name] = [], []
        for i in range(len(split)):
            begin = corpus.history_offsets[split.history[i]]
            past = corpus.history_items[begin : begin + split.history_end[i]]
            shown = [keys[n] for n in split.item[split.offsets[i] : split.offsets[i + 1]]]
            who = users[split.user[i]]
            found[name].append((who, [keys[n] for n in past], shown[0], int(split.time[i])))
            negatives[name].append((who, shown[1:]))
            assert split.clicks[i] == 1
    return found, negatives


def by_loops(had, short=3):
    """What the splits should be."""
    rows = {"train": [], "valid": [], "test": []}
    for user, own in had.items():
        for place in range(1, len(own)):
            left = len(own) - 1 - place
            split = {0: "test", 1: "valid"}.get(left, "train")
            if len(own) >= short:
                rows[split].append((user, own[:place], own[place], -1))
    return rows


@pytest.mark.parametrize("seed", [0, 1])
def test_rows_are_those_of_plain_loops(tmp_path, home, seed):
    had = sequences(seed)
    raw(tmp_path, had)
    made = prepared(tmp_path, "sequences", options=OPTIONS)
    found, negatives = rows_of_tables(made)
    assert found == by_loops(had)
    for split, later in (("train", 2), ("valid", 1), ("test", 0)):
        for user, drawn in negatives[split]:
            assert len(drawn) == len(set(drawn)) == 4
            assert not set(drawn) & set(had[user][: len(had[user]) - later])
    assert made.manifest.counts["histories"] == made.manifest.counts["users"] == len(had)
    assert made.manifest.counts["history_items"] == sum(map(len, had.values()))
    assert made.manifest.dropped == {
        "users_with_too_few_items": sum(len(h) < 3 for h in had.values())
    }
    assert made.manifest.protocol["split"].startswith("leave-last-out")
    assert made.manifest.protocol["negatives_seed"] == 1
    assert "but for those of later splits" in made.manifest.protocol["negatives"]
    assert made.manifest.counts["raw/events"] == sum(map(len, had.values()))
    assert made.manifest.counts["raw/users"] == len(had)


def test_no_history_reaches_past_its_interaction(tmp_path, home):
    """What comes later is shuffled: everything before it stays as it was."""
    had = {user: own for user, own in sequences(3, users=80).items() if len(own) > 5}
    raw(tmp_path, had)
    before, _ = rows_of_tables(prepared(tmp_path, "sequences", options=OPTIONS))
    chance = np.random.default_rng(9)
    future = {u: own[:3] + [str(k) for k in chance.permutation(own[3:])] for u, own in had.items()}
    assert future != had
    raw(tmp_path, future)
    after, _ = rows_of_tables(prepared(tmp_path, "sequences", options=OPTIONS))
    early = [[row for row in one["train"] if len(row[1]) < 3] for one in (before, after)]
    assert early[0] == early[1]
    assert len(early[0]) == 2 * len(had)


def test_times_order_items_and_same_seconds_see_nothing_of_each_other(tmp_path, home):
    had = {"a": ["i3", "i1", "i2", "i4", "i5"], "b": ["i1", "i2", "i3"]}
    raw(tmp_path, had, {"a": [30, 10, 20, 40, 40], "b": [5, 5, 9]})
    options = OPTIONS | {"sequences": {**OPTIONS["sequences"], "times": "at"}}
    made = prepared(tmp_path, "sequences", options=options)
    found, _ = rows_of_tables(made)
    assert found == {
        "train": [("a", ["i1"], "i2", 20), ("a", ["i1", "i2"], "i3", 30)],
        "valid": [("a", ["i1", "i2", "i3"], "i4", 40)],
        "test": [("a", ["i1", "i2", "i3"], "i5", 40), ("b", ["i1", "i2"], "i3", 9)],
    }
    assert made.manifest.dropped == {"items_without_a_history/valid": 1}
    raw(tmp_path, had, {"a": [30, 10, 20, 40], "b": [5, 5, 9]})
    with pytest.raises(InputError, match=r"had.jsonl:1: user 'a' has another number of at than"):
        prepared(tmp_path, "sequences", options=options)
    raw(tmp_path, had, {"a": ["30", "10", "noon", "40", "50"], "b": ["5", "5", "9"]})
    with pytest.raises(InputError, match=r"had.jsonl:1: user 'a' has at that are neither seconds"):
        prepared(tmp_path, "sequences", options=options)


def test_negatives_by_popularity_are_popular_before_the_held_out(tmp_path, home):
    had = {f"u{n}": ["i1", "i2", f"i{3 + n % 20}", f"i{4 + n % 20}"] for n in range(200)}
    had |= {f"v{n}": ["i25", "i26", "i27", "i9", "i9"] for n in range(60)}
    had |= {f"w{n}": ["i23", "i24", "i28", "i29"] for n in range(100)}
    raw(tmp_path, had)
    share = {}
    for how in ("uniform", "popularity"):
        made = prepared(tmp_path, "sequences", options=OPTIONS | {"negatives_by": how})
        _, negatives = rows_of_tables(made)
        drawn = Counter(k for who, keys in negatives["test"] if who[0] == "v" for k in keys)
        share[how] = drawn["i1"] / drawn.total(), drawn["i29"] / drawn.total()
    assert share["popularity"][0] == pytest.approx(0.25, abs=0.02), "nearly always one of four"
    assert share["uniform"][0] == pytest.approx(1 / 26, abs=0.03)
    assert share["popularity"][1] < 0.02, "i29 was only held out"


def test_the_same_seed_draws_the_same_and_each_split_for_itself():
    owner, owned = np.repeat(np.arange(50, dtype=np.int32), 3), np.tile([1, 2, 3], 50)
    draw = lambda seed, split: sample_unseen_negatives(  # noqa: E731
        NegativeRule(5, "uniform", seed), split, np.arange(50, dtype=np.int32),
        owner=owner, owned=owned.astype(np.int32), items=40,
    )  # fmt: skip
    first = draw(1, 0)
    assert first.count.tolist() == [5] * 50
    assert first.item.tolist() == draw(1, 0).item.tolist()
    assert first.item.tolist() != draw(2, 0).item.tolist()
    assert first.item.tolist() != draw(1, 1).item.tolist()
    assert set(first.item) == set(range(4, 41))


def test_few_items_leave_few_negatives(tmp_path, home):
    had = {"a": [f"i{n}" for n in range(28)], "b": ["i0", "i1", "i2"]}
    raw(tmp_path, had)
    made = prepared(tmp_path, "sequences", options=OPTIONS)
    _, negatives = rows_of_tables(made)
    left = {"train": 26, "valid": 27, "test": 28}  # items of later splits are not known
    for split, first in left.items():
        drawn = [set(items) for who, items in negatives[split] if who == "a"]
        assert all(items == {f"i{n}" for n in range(first, 30)} for items in drawn)
    assert made.manifest.dropped["negatives_not_found/valid"] == 1
    assert made.manifest.dropped["negatives_not_found/test"] == 2


def test_leave_last_out_of_lengths_up_to_five():
    parts = leave_last_out(offsets_of(np.array([0, 1, 2, 3, 4, 5])))
    assert {name: list(at) for name, at in parts.items()} == {
        "train": [7, 11, 12], "valid": [4, 8, 13], "test": [5, 9, 14],
    }  # fmt: skip
    assert list(leave_last_out(offsets_of(np.array([4, 5])), min_length=5)["test"]) == [8]


def test_forms_of_the_file_give_one_data_set(tmp_path, home):
    had = sequences(5)
    raw(tmp_path, had)
    first = prepared(tmp_path, "sequences", options=OPTIONS).manifest.fingerprint
    rows = "".join(f"{u};{'|'.join(own)}\n" for u, own in had.items())
    write(tmp_path / "raw/had.txt", "who;had\n" + rows)
    form = {"file": "had.txt", "format": "csv", "separator": ";", "between": "|"}
    options = OPTIONS | {"sequences": {**OPTIONS["sequences"], **form}}
    assert prepared(tmp_path, "sequences", options=options).manifest.fingerprint == first


BAD = {
    '{"who": "u1", "had": ["i1"]}': "who 'u1' stands twice",
    '{"who": "", "had": ["i1"]}': "the who is empty",
    '{"who": "x", "had": ["i1"}': "is not JSON",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_rows(tmp_path, home, line):
    had = sequences(2)
    raw(tmp_path, had)
    path = tmp_path / "raw/had.jsonl"
    write(path, path.read_text() + line + "\n")
    with pytest.raises(InputError, match=f"had.jsonl:{len(had) + 1}: {BAD[line]}"):
        prepared(tmp_path, "sequences", options=OPTIONS)
    made = prepared(tmp_path, "sequences", options=OPTIONS, on_bad_row="skip")
    assert made.manifest.dropped["bad_rows/raw/had.jsonl"] == 1
    assert rows_of_tables(made)[0] == by_loops(had)


def test_unknown_items_and_wrong_options(tmp_path, home):
    raw(tmp_path, {"a": ["i1", "i99", "i2", "i3", "i4"], "b": ["i99"]})
    made = prepared(tmp_path, "sequences", options=OPTIONS)
    assert made.manifest.dropped == {"unknown_items_in_sequences": 2, "users_with_too_few_items": 1}
    raw(tmp_path, {"a": ["99", "98", "97"]})
    with pytest.raises(InputError, match=r"no user has 3 items .*right column"):
        prepared(tmp_path, "sequences", options=OPTIONS)
    without = {**OPTIONS, "items": {"file": "items.csv", "key": "id"}}
    with pytest.raises(InputError, match=r"has no column 'id'.*separates them, say `separator:"):
        prepared(tmp_path, "sequences", options=without)
    with pytest.raises(InputError, match=r"'min_lenght' .did you mean 'min_length'"):
        prepared(tmp_path, "sequences", options=OPTIONS | {"min_lenght": 4})


@pytest.fixture(scope="module")
def goodreads(tmp_path_factory, real_data):
    """The real Goodreads files of ONCE, prepared, and their folder."""
    folder = real_data("goodreads_once")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEGORAY_HOME", str(tmp_path_factory.mktemp("goodreads")))
        patch.setenv("GOODREADS_ONCE_HOME", str(folder))
        yield prepare(ROOT / "datasets/goodreads_once.yaml", say=lambda line: None), folder


def test_real_counts(goodreads):
    made, folder = goodreads
    with (folder / "user_histories.decoded.jsonl").open() as file:
        had = {str(row["uid"]): row["history_bid"] for row in map(json.loads, file)}
    counts, expected = made.manifest.counts, by_loops(had)
    assert counts["items"] == 16_833
    assert counts["users"] == len(had) == 23_089
    assert counts["history_items"] == sum(map(len, had.values()))
    assert {s: counts[f"clicks/{s}"] for s in expected} == {s: len(r) for s, r in expected.items()}
    assert made.manifest.dropped == {
        "users_with_too_few_items": sum(len(h) < 3 for h in had.values())
    }
    corpus = load_corpus(made.tables)
    keys = ["", *load_items(made.tables, ["key"])["key"].to_pylist()]
    for name, split in corpus.splits.items():
        last = [keys[n] for n in split.item[split.offsets[:-1]]]
        assert last == [row[2] for row in expected[name]]
        assert split.history_end.tolist() == [len(row[1]) for row in expected[name]]


def test_real_texts(goodreads):
    made, folder = goodreads
    with (folder / "book-desc.csv").open(newline="") as file:
        texts = {row["bid"]: row["desc"] for row in csv.DictReader(file)}
    with (folder / "book.csv").open(newline="") as file:
        titles = {row["bid"]: row["title"] for row in csv.DictReader(file, delimiter="\t")}
    table = load_items(made.tables, ["key", "title", "description"]).to_pylist()
    assert {row["key"]: row["title"] for row in table} == titles
    assert {row["key"]: row["description"] for row in table} == texts
    assert made.manifest.written["description"].counts["missing"] == 0
    with (folder / "user_profiler.log").open() as file:
        words = {str(row["uid"]): ", ".join(row["interest"]) for row in map(json.loads, file)}
    users = load_users(made.tables, ["key", "interests"]).to_pylist()
    assert {row["key"]: row["interests"] for row in users} == words
