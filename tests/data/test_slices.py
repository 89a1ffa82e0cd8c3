"""Slices: what is marked is what plain loops over the tables say; old tables are completed."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from raw_files import dataset, prepared, random_mind, write

from legoray.data.engine import Engine
from legoray.data.load import load_corpus, read_manifest
from legoray.data.prepare import prepare
from legoray.data.schema import SCHEMA_VERSION, SLICES
from legoray.data.slices import HEAD, LONG, SHORT, head_items, write_slices
from legoray.errors import InputError


def rows_of(folder):
    return [
        row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]


def by_loops(tables):
    """Split -> impression -> its slices, from the rows of the tables alone."""
    histories = {row["history_id"]: row for row in rows_of(tables / "histories")}
    train = rows_of(tables / "interactions/train")
    users = {histories[row["history_id"]]["user"] for row in train}
    clicks: dict[int, int] = {}
    known = set()
    for row in train:
        known |= set(histories[row["history_id"]]["items"][: row["history_end"]])
        if row["label"]:
            clicks[row["item_id"]] = clicks.get(row["item_id"], 0) + 1
    known |= set(clicks)
    total = sum(clicks.values())
    head = {
        item
        for item, own in clicks.items()
        if sum(count for count in clicks.values() if count > own) < HEAD * total
    }
    found = {}
    for path in sorted((tables / "interactions").iterdir()):
        marks = found[path.name] = {}
        clicked: dict[int, list[int]] = {}
        for row in rows_of(path):
            history = histories[row["history_id"]]
            own = {"cold-user"} if history["user"] not in users else set()
            own |= {"short-history"} if row["history_end"] <= SHORT else set()
            own |= {"long-history"} if row["history_end"] >= LONG else set()
            marks[row["impression_id"]] = own
            mine = clicked.setdefault(row["impression_id"], [])
            mine += [row["item_id"]] if row["label"] else []
        for impression, items in clicked.items():
            if any(item not in known for item in items):
                marks[impression].add("cold-item")
            if items and all(item in head for item in items):
                marks[impression].add("head-item")
            if any(item not in head for item in items):
                marks[impression].add("tail-item")
    return found


def check(tables):
    """See that tables, corpus and counts agree with the loops; how often each slice stands."""
    wanted, corpus = by_loops(tables), load_corpus(tables)
    counts = read_manifest(tables).counts
    total = dict.fromkeys(SLICES, 0)
    for name, split in corpus.splits.items():
        marks = wanted[name]
        assert split.impression.tolist() == sorted(marks)
        for slice_ in SLICES:
            expected = [slice_ in marks[impression] for impression in split.impression.tolist()]
            marked = split.slices.get(slice_, np.zeros(len(split), bool))
            assert marked.dtype == bool
            assert marked.tolist() == expected
            assert (slice_ in split.slices) == any(expected)
            assert counts[f"{slice_}/{name}"] == sum(expected)
            total[slice_] += sum(expected)
    return total


@pytest.mark.parametrize("seed", range(3))
def test_marks_are_those_of_plain_loops(tmp_path, home, seed):
    random_mind(tmp_path / "raw", seed, items=150, users=60, rows=90)
    total = check(prepared(tmp_path, "mind").tables)
    assert all(total[name] for name in SLICES if name != "long-history")


def ratings(folder, seed=0, users=40, items=120):
    """Users of 1 to 90 ratings, some of whom come late; items that come late."""
    random = np.random.default_rng(seed)
    lines = ["userId,movieId,rating,timestamp"]
    for user in range(users):
        first = int(random.integers(0, 900))
        for item in random.choice(items, int(random.integers(1, 90)), replace=False):
            time = first + int(random.integers(0, 200)) + int(item)
            lines.append(f"{user},{item + 1},{random.integers(3, 6)},{time}")
    write(folder / "raw/ratings.csv", "\n".join(lines) + "\n")
    movies = [f"{item + 1},Film {item + 1},Drama" for item in range(items)]
    write(folder / "raw/movies.csv", "\n".join(["movieId,title,genres", *movies]) + "\n")


@pytest.mark.parametrize("split", ["leave-last-out", "temporal"])
@pytest.mark.parametrize("candidates", ["sampled", "all"])
def test_feedback_is_marked_the_same_way(tmp_path, home, split, candidates):
    ratings(tmp_path)
    options = {"split": split, "candidates": candidates, "like": 3.0}
    total = check(prepared(tmp_path, "movielens", options=options).tables)
    assert all(total[n] for n in ("short-history", "long-history", "head-item", "tail-item"))
    if split == "temporal":
        assert total["cold-user"]


def test_real_marks(tmp_path, home, real_data):
    raw = str(real_data("movielens", "ml-latest-small"))
    options = {"split": "leave-last-out", "candidates": "all", "negatives": 1}
    made = prepared(tmp_path, "movielens", raw=raw, options=options)
    total = check(made.tables)
    assert all(total.values())
    assert made.manifest.protocol["candidate_items"] == 9742


def test_items_clicked_equally_often_are_in_one_part():
    yes, no = True, False
    assert head_items(np.array([0, 5, 1, 1, 2, 1])).tolist() == [no, yes, yes, yes, yes, yes]
    assert head_items(np.array([0, 6, 1, 1, 2, 0])).tolist() == [no, yes, no, no, yes, no]
    assert not head_items(np.zeros(3, np.int64)).any()


def test_labels_that_are_not_known_mark_no_items(tmp_path, home):
    random_mind(tmp_path / "raw", 1)
    made = prepared(tmp_path, "mind")
    labeled = {"train": True, "valid": False}
    facts = write_slices(
        made.tables, tmp_path, counts=made.manifest.counts, labeled=labeled, engine=Engine()
    )
    for name in SLICES:
        known = 0 if name.endswith("item") else made.manifest.counts[f"{name}/valid"]
        assert facts.counts[f"{name}/valid"] == known
        assert facts.counts[f"{name}/train"] == made.manifest.counts[f"{name}/train"]
    assert not any(row["tail-item"] for row in rows_of(tmp_path / "slices/valid"))


def test_several_files_are_marked_as_one(tmp_path, home, monkeypatch):
    random_mind(tmp_path / "raw", 2)
    one = prepared(tmp_path / "a", "mind", raw=str(tmp_path / "raw")).manifest
    monkeypatch.setattr("legoray.data.tables.SHARD_ROWS", 50)
    made = prepared(tmp_path / "b", "mind", raw=str(tmp_path / "raw"), on_bad_row="skip")
    assert sum(name.startswith("slices/train/") for name in made.manifest.files) > 3
    assert made.manifest.counts == one.counts
    check(made.tables)


def downgraded(tables):
    """Make tables look as the version before slices left them."""
    path = tables / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for name in content["files"]:
        if name.startswith("slices/"):
            (tables / name).unlink()
    content["files"] = [name for name in content["files"] if not name.startswith("slices/")]
    content["counts"] = {
        name: count for name, count in content["counts"].items() if name.split("/")[0] not in SLICES
    }
    del content["protocol"]["slices"], content["full_ranking"]
    content["schema_version"] = SCHEMA_VERSION - 1
    path.write_text(json.dumps(content), encoding="utf-8")


def test_old_tables_are_completed_without_their_raw_files(tmp_path, home):
    random_mind(tmp_path / "raw", 3)
    made = prepared(tmp_path, "mind")
    downgraded(made.tables)
    with pytest.raises(InputError, match=r"has schema version 1, expected 2.*legoray prepare"):
        load_corpus(made.tables)
    times = {path: path.stat().st_mtime_ns for path in made.tables.rglob("*.parquet")}
    said: list[str] = []
    again = prepare(dataset(tmp_path, "mind"), say=said.append)
    assert said == ["marking the slices of tiny"]
    assert (again.tables, again.fresh) == (made.tables, False)
    assert again.manifest == made.manifest  # the fingerprint too
    assert {path: path.stat().st_mtime_ns for path in times} == times
    check(again.tables)


def test_completion_that_was_killed_is_done_again(tmp_path, home, monkeypatch):
    random_mind(tmp_path / "raw", 3)
    made = prepared(tmp_path, "mind")
    downgraded(made.tables)

    def killed(*arguments, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("legoray.data.prepare._settled", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(dataset(tmp_path, "mind"), say=lambda line: None)
    assert read_json_version(made.tables) == SCHEMA_VERSION - 1
    again = prepare(dataset(tmp_path, "mind"), say=lambda line: None)
    assert again.manifest == made.manifest
    check(again.tables)


def read_json_version(tables):
    return json.loads((tables / "manifest.json").read_text(encoding="utf-8"))["schema_version"]


def test_slices_that_do_not_fit_are_damage(tmp_path, home):
    random_mind(tmp_path / "raw", 0)
    tables = prepared(tmp_path, "mind").tables
    path = tables / "slices/valid/part-00000.parquet"
    rows = pq.read_table(path)
    pq.write_table(rows.take(pa.array(np.arange(len(rows))[::-1])), path)
    with pytest.raises(InputError, match=r"slices/valid: .*not the split's impressions"):
        load_corpus(tables)


def test_a_full_ranking_holds_clicks_alone(tmp_path, home):
    ratings(tmp_path)
    options = {"split": "leave-last-out", "candidates": "all"}
    made = prepared(tmp_path, "movielens", options=options)
    assert made.manifest.full_ranking == ["valid", "test"]
    assert made.manifest.protocol["candidate_items"] == made.manifest.counts["items"] == 120
    corpus = load_corpus(made.tables)
    assert [split.full_ranking for split in corpus.splits.values()] == [False, True, True]
    assert all(corpus.splits[name].label.all() for name in ("valid", "test"))
    sampled = prepared(tmp_path, "movielens", options={"split": "leave-last-out"}).manifest
    assert sampled.full_ranking == []
    assert "candidate_items" not in sampled.protocol
