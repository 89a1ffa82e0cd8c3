"""Loading: the arrays are what a plain loop over the Parquet tables gives."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from raw_files import prepared, random_mind

from legoray.data.load import load_corpus, load_items, read_manifest
from legoray.errors import InputError


def plain_rows(folder):
    return [
        row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]


@pytest.mark.parametrize("seed", range(4))
def test_the_corpus_is_what_a_plain_loop_reads(tmp_path, home, seed):
    random_mind(tmp_path / "raw", seed, rows=80)
    tables = prepared(tmp_path, "mind").tables
    corpus = load_corpus(tables)
    histories = plain_rows(tables / "histories")
    for row in histories:
        at = corpus.history_offsets[row["history_id"] : row["history_id"] + 2]
        assert corpus.history_items[at[0] : at[1]].tolist() == row["items"]
    for name, split in corpus.splits.items():
        groups: dict[int, list[dict]] = {}
        for row in plain_rows(tables / "interactions" / name):
            groups.setdefault(row["impression_id"], []).append(row)
        assert split.impression.tolist() == sorted(groups)
        for i, rows in enumerate(groups.values()):
            own = slice(split.offsets[i], split.offsets[i + 1])
            pairs = list(zip(split.item[own].tolist(), split.label[own].tolist(), strict=True))
            assert sorted(pairs) == sorted((row["item_id"], row["label"]) for row in rows)
            assert split.label[own].tolist() == sorted(split.label[own].tolist(), reverse=True)
            assert split.clicks[i] == sum(row["label"] for row in rows)
            assert split.history[i] == rows[0]["history_id"]
            assert split.history_end[i] == rows[0]["history_end"]
            assert split.time[i] == rows[0]["time"]
            assert split.user[i] == histories[rows[0]["history_id"]]["user"]


def test_types_and_sizes(tmp_path, home):
    random_mind(tmp_path / "raw", 0)
    tables = prepared(tmp_path, "mind").tables
    corpus = load_corpus(tables)
    assert list(corpus.splits) == ["train", "valid", "test"]
    assert corpus.item_count == read_manifest(tables).counts["items"] + 1
    split = corpus.splits["train"]
    types = {name: str(getattr(split, name).dtype) for name in (
        "impression", "history", "history_end", "user", "time", "offsets", "clicks", "item", "label"
    )}  # fmt: skip
    assert types == {
        "impression": "int64", "history": "int32", "history_end": "int32", "user": "int32",
        "time": "int64", "offsets": "int64", "clicks": "int32", "item": "int32", "label": "int8",
    }  # fmt: skip
    assert all(getattr(split, name).flags.c_contiguous for name in types)
    assert (corpus.history_items.dtype, corpus.history_offsets.dtype) == (np.int32, np.int64)


def test_clicks_come_first_though_the_tables_have_them_elsewhere(tmp_path, home):
    random_mind(tmp_path / "raw", 0)
    tables = prepared(tmp_path, "mind").tables
    before = load_corpus(tables).splits["train"]
    path = tables / "interactions/train/part-00000.parquet"
    table = pq.read_table(path)
    backwards = table.take(pa.array(np.arange(len(table))[::-1]))
    pq.write_table(backwards.sort_by("impression_id"), path)
    after = load_corpus(tables).splits["train"]
    assert np.array_equal(after.label, before.label)
    assert np.array_equal(after.offsets, before.offsets)


def test_items_are_sorted_and_columns_chosen(tmp_path, home):
    random_mind(tmp_path / "raw", 0)
    tables = prepared(tmp_path, "mind").tables
    assert load_items(tables, ["title", "key"]).column_names == ["title", "key"]
    assert load_items(tables)["item_id"].to_pylist() == list(range(1, 81))
    with pytest.raises(InputError, match=r"did you mean 'title'"):
        load_items(tables, ["titel"])


def test_missing_rows_and_files_are_damage(tmp_path, home):
    random_mind(tmp_path / "raw", 0)
    tables = prepared(tmp_path, "mind").tables
    path = tables / "interactions/valid/part-00000.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(InputError, match=r"interactions/valid: .*rows are missing"):
        load_corpus(tables)
    path.unlink()
    with pytest.raises(InputError, match=r"part-00000.parquet: .*is missing"):
        load_corpus(tables)
    with pytest.raises(InputError, match=r"is not a prepared data set"):
        load_corpus(tmp_path)
