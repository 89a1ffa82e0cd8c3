"""Preparing in pieces: the same tables and fingerprints whatever the pieces, and bounded ones."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from raw_files import prepared, random_mind
from raw_movielens import write_raw
from worlds import world

from legoray.data import feedback, lines, protocol, shards, tables
from legoray.data.engine import Engine
from legoray.data.feedback import Feedback, first_of_each
from legoray.data.fingerprint import ColumnsHash, hash_columns
from legoray.data.load import load_corpus
from legoray.data.numberfile import NumberFile, gather
from legoray.data.ragged import distinct, offsets_of
from legoray.data.sequences import places_of_times, strictly_before
from legoray.data.tables import (
    Histories,
    Impressions,
    write_histories,
    write_history_pieces,
    write_interactions,
    write_item_pieces,
    write_items,
)


def impressions(seed: int, count: int = 60) -> Impressions:
    """Impressions in no order, some without a click, none without a candidate."""
    random = np.random.default_rng(seed)
    length = random.integers(1, 9, count)
    rows = int(length.sum())
    return Impressions(
        id=random.permutation(count).astype(np.int64) * 3,
        history=random.integers(0, 9, count).astype(np.int32),
        end=random.integers(0, 5, count).astype(np.int32),
        time=random.integers(0, 99, count),
        offsets=offsets_of(length),
        item=random.integers(1, 50, rows).astype(np.int32),
        label=random.integers(0, 2, rows).astype(np.int8),
    )


def plainly(data: Impressions) -> list[tuple[int, ...]]:
    """The rows of the table: a plain loop."""
    rows = []
    for i in sorted(range(len(data.id)), key=lambda i: data.id[i]):
        own = range(data.offsets[i], data.offsets[i + 1])
        for r in sorted(own, key=lambda r: -data.label[r]):
            head = (data.id[i], data.history[i], data.end[i], data.item[r], data.label[r])
            rows.append(tuple(int(n) for n in (*head, data.time[i])))
    return rows


def rows_in(folder) -> list[tuple[int, ...]]:
    table = pa.concat_tables([pq.read_table(path) for path in sorted(folder.iterdir())])
    return list(zip(*[table[name].to_pylist() for name in table.column_names], strict=True))


@pytest.mark.parametrize("piece", [1, 7, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_interactions_do_not_depend_on_their_pieces(tmp_path, monkeypatch, seed, piece):
    data = impressions(seed)
    whole = write_interactions(tmp_path / "whole", Engine(), "train", data)
    monkeypatch.setattr(shards, "PIECE", piece)
    monkeypatch.setattr(tables, "SHARD_ROWS", 40)
    order = np.argsort(data.id)
    thirds = [data.take(some) for some in np.array_split(order, 3)]
    for name, given in (("one", data), ("three", thirds)):
        facts = write_interactions(tmp_path / name, Engine(), "train", given)
        assert facts == whole
        assert rows_in(tmp_path / name / "interactions/train") == plainly(data)
        files = sorted((tmp_path / name / "interactions/train").iterdir())
        sizes = [pq.read_metadata(file).num_rows for file in files]
        assert max(sizes) < 40 + 8
        assert min(sizes[:-1]) > 40 - 8
        for file in files:  # whole impressions: no id stands in two files
            others = [pq.read_table(f)["impression_id"].unique() for f in files if f != file]
            ids = set(pq.read_table(file)["impression_id"].to_pylist())
            assert not ids & {i for other in others for i in other.to_pylist()}


def test_pieces_of_interactions_in_a_wrong_order_are_a_defect(tmp_path):
    data = impressions(1)
    parts = [data.take(np.array([i])) for i in np.argsort(-data.id)[:2]]
    with pytest.raises(RuntimeError, match="in order of their ids"):
        write_interactions(tmp_path, Engine(), "train", parts)


@pytest.mark.parametrize("piece", [1, 5, 1000])
def test_histories_and_items_do_not_depend_on_their_pieces(tmp_path, monkeypatch, piece):
    length = np.random.default_rng(0).integers(0, 6, 50)
    offsets, user = offsets_of(length), np.arange(50, dtype=np.int32)
    items = np.arange(offsets[-1], dtype=np.int32)
    whole = write_histories(tmp_path / "whole", Engine(), user, offsets, items)
    monkeypatch.setattr(shards, "PIECE", piece)
    monkeypatch.setattr(tables, "SHARD_ROWS", 17)
    cut = [Histories(user[a:b], offsets[a : b + 1], items[offsets[a] : offsets[b]])
           for a, b in ((0, 0), (0, 20), (20, 50))]  # fmt: skip
    assert write_history_pieces(tmp_path / "cut", Engine(), cut) == whole
    assert write_histories(tmp_path / "small", Engine(), user, offsets, items) == whole
    expected = [(n, n, items[offsets[n] : offsets[n + 1]].tolist()) for n in range(50)]
    for name in ("cut", "small", "whole"):
        assert rows_in(tmp_path / name / "histories") == expected
    assert len(list((tmp_path / "cut/histories").iterdir())) > 5
    keys = pa.array([f"k{n}" for n in range(50)])
    texts = pa.array(["é" * (n % 7) for n in range(50)])
    one = write_items(tmp_path / "one", Engine(), keys, {"title": texts})
    table = pa.table({"key": keys, "title": texts})
    monkeypatch.setattr(tables, "SHARD_BYTES", 100)
    pieces = [table[:3], table[3:3], table[3:]]
    assert write_item_pieces(tmp_path / "many", Engine(), pieces) == one
    assert len(list((tmp_path / "many/items").iterdir())) > 3
    assert rows_in(tmp_path / "many/items") == rows_in(tmp_path / "one/items")


@pytest.mark.parametrize("size", [1, 3, 100])
def test_hashes_do_not_depend_on_pieces(size):
    numbers = np.arange(50, dtype=np.int32)
    words = pa.array([f"wörd{n}" * (n % 4) for n in range(50)])
    hashed = ColumnsHash()
    for start in range(0, 50, size):
        hashed.add({"n": numbers[start : start + size], "w": words.slice(start, size)})
    assert hashed.hexdigest() == hash_columns({"w": words, "n": numbers})
    # The fingerprints of tables that were prepared before stay as they are.
    lengths = np.array([len(word.as_py().encode()) for word in words], "<i8")
    content = "".join(words.to_pylist()).encode()
    sha = lambda data: hashlib.sha256(data).hexdigest()  # noqa: E731
    parts = {
        "n": f"<i4:50:{sha(numbers.astype('<i4').tobytes())}",
        "w": f"text:50:{sha(lengths.tobytes())}:{sha(content)}",
    }
    assert hashed.hexdigest() == sha(json.dumps(parts, sort_keys=True).encode())


def prints_of(tmp_path, home, processor, **keys):
    made = prepared(tmp_path, processor, **keys)
    corpus = load_corpus(made.tables)
    found = {name: split.item.tolist() for name, split in corpus.splits.items()}
    shutil.rmtree(home / "tables")
    return made.manifest.fingerprint, made.manifest.counts, made.manifest.dropped, found


@pytest.mark.parametrize("block", [700, 4000])
def test_mind_does_not_depend_on_blocks(tmp_path, home, monkeypatch, block):
    random_mind(tmp_path / "raw", 7, items=90)
    whole = prints_of(tmp_path, home, "mind")
    monkeypatch.setattr(lines.blocks_of, "__defaults__", (block,))
    monkeypatch.setattr(shards, "PIECE", 50)
    monkeypatch.setattr(tables, "SHARD_ROWS", 300)
    assert prints_of(tmp_path, home, "mind") == whole


@pytest.mark.parametrize("split", ["temporal", "leave-last-out", "leave-random-out"])
def test_feedback_does_not_depend_on_blocks(tmp_path, home, monkeypatch, split):
    write_raw(tmp_path / "raw", world())
    options = {"split": split, "negatives": 4, "min_history": 0}
    whole = prints_of(tmp_path, home, "movielens", options=options)
    for module, name, value in (
        (feedback, "BLOCK", 5), (protocol, "STEP", 11), (shards, "PIECE", 9),
        (tables, "SHARD_ROWS", 30), (tables, "BATCH", 4),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(lines.blocks_of, "__defaults__", (300,))
    assert prints_of(tmp_path, home, "movielens", options=options) == whole


def test_the_first_event_of_each_pair_in_blocks_of_users(monkeypatch):
    random = np.random.default_rng(3)
    user = np.sort(random.integers(0, 9, 200)).astype(np.int32)
    item = random.integers(0, 12, 200).astype(np.int32)
    events = Feedback(user, item, np.arange(200), np.arange(200, dtype=np.float32))
    seen, expected = set(), []
    for place, pair in enumerate(zip(user.tolist(), item.tolist(), strict=True)):
        expected += [] if pair in seen else [place]
        seen.add(pair)
    for block in (1, 7, 1000):
        monkeypatch.setattr(feedback, "BLOCK", block)
        assert first_of_each(events).time.tolist() == expected
    assert len(first_of_each(events.take(np.zeros(0, np.int64)))) == 0


@pytest.mark.parametrize("seed", range(5))
def test_places_of_times_are_counts_of_earlier_events(seed):
    random = np.random.default_rng(seed)
    user = np.sort(random.integers(0, 6, 80)).astype(np.int32)
    time = random.integers(0, 10, 80)
    order = np.lexsort((time, user))
    time = time[order]
    found = places_of_times(user, time)
    expected = [int(((user == u) & (time < t)).sum()) for u, t in zip(user, time, strict=True)]
    assert found.tolist() == expected
    assert found.tolist() == strictly_before(user, time, user, time, 6).tolist()
    assert places_of_times(user[:0], time[:0]).tolist() == []


def test_numbers_gathered_from_files(tmp_path):
    files = [NumberFile(tmp_path / name, np.int32) for name in "abc"]
    for start, file in zip((0, 5, 5), (files[0], files[2], files[0]), strict=True):
        file.append(np.arange(start, start + 5))
    files[1].append(np.zeros(0, np.int32))
    everything = [*range(10), *range(5, 10)]
    at = np.array([14, 0, 9, 10, 3, 3])
    assert [len(file) for file in files] == [10, 0, 5]
    assert gather(files, at).tolist() == [everything[place] for place in at]
    assert gather(files[1:2], at[:0]).tolist() == []


def test_distinct_numbers():
    values = np.random.default_rng(0).integers(-5, 5, 100)
    assert distinct(values).tolist() == sorted(set(values.tolist()))
    assert distinct(values[:0]).tolist() == []
