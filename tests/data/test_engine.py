"""Ray Data gives what this process gives: the same tables in the same order."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from raw_files import prepared, random_mind, write

from legoray.data import engine, lines, load, tables
from legoray.data.engine import Engine, pick_engine
from legoray.data.lines import Block
from legoray.data.load import load_corpus, load_corpus_ray
from legoray.errors import InputError, Problem
from legoray.rayinit import ensure_ray


@pytest.fixture(scope="module")
def cluster():
    import ray

    # Workers import this folder's modules by name only where a test's function is sent to them.
    ensure_ray(num_cpus=2)
    ensure_ray(num_cpus=2)  # nothing happens
    yield ray
    ray.shutdown()


@pytest.mark.cluster
def test_ray_data_prepares_and_loads_the_same(cluster, tmp_path, home, monkeypatch):
    random_mind(tmp_path / "raw", 5, rows=300)
    local = prepared(tmp_path, "mind")
    expected = load_corpus(local.tables)
    shutil.rmtree(home)
    monkeypatch.setenv("LEGORAY_RAY_DATA", "always")
    monkeypatch.setattr(lines.blocks_of, "__defaults__", (4000,))
    monkeypatch.setattr(tables, "SHARD_ROWS", 400)
    made = prepared(tmp_path, "mind")
    assert made.manifest.fingerprint == local.manifest.fingerprint
    assert len(made.manifest.files) > len(local.manifest.files)
    loaded = cluster.get(load_corpus_ray(made.tables))
    assert_equal(loaded, expected)
    assert not loaded.splits["train"].item.flags.writeable  # a view of the object store
    assert_equal(load._corpus(made.tables, load._read_by_ray), expected)


@pytest.mark.cluster
def test_a_bad_row_is_named_from_a_worker(cluster, tmp_path, home, monkeypatch):
    random_mind(tmp_path / "raw", 5)
    path = tmp_path / "raw/train/behaviors.tsv"
    rows = path.read_text().splitlines(keepends=True)
    write(path, "".join([*rows[:150], "bad\n", *rows[150:]]))
    monkeypatch.setenv("LEGORAY_RAY_DATA", "always")
    monkeypatch.setattr(lines.blocks_of, "__defaults__", (4000,))
    with pytest.raises(InputError, match=r"behaviors.tsv:151: has 1 field"):
        prepared(tmp_path, "mind")


@pytest.mark.cluster
def test_damage_is_found_before_a_task_starts(cluster, tmp_path, home):
    random_mind(tmp_path / "raw", 5)
    made = prepared(tmp_path, "mind")
    path = made.tables / "items/part-00000.parquet"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"items/part-00000.parquet"):
        load_corpus_ray(made.tables)


def assert_equal(one, two):
    assert one.fingerprint == two.fingerprint
    assert np.array_equal(one.history_items, two.history_items)
    assert np.array_equal(one.history_offsets, two.history_offsets)
    assert list(one.splits) == list(two.splits)
    for name, split in two.splits.items():
        assert split.slices.keys() == one.splits[name].slices.keys() != set()
        for field, values in (vars(split) | split.slices).items():
            if field != "slices":
                own = vars(one.splits[name]) | one.splits[name].slices
                assert np.array_equal(own[field], values), (name, field)


@pytest.mark.cluster
def test_blocks_are_made_shortly_before_they_are_used(cluster, tmp_path, monkeypatch):
    def parse(block, folder):
        (folder / str(block.start)).touch()
        return pa.table({"n": np.full(1 << 19, block.start)})  # 4 MB

    cpus = int(cluster.cluster_resources()["CPU"])
    monkeypatch.setattr(engine, "AHEAD_BYTES", (16 << 20) // cpus)
    blocks = [Block("x", n, n) for n in range(60)]
    ahead = []
    for number, table in enumerate(Engine(True).map(partial(parse, folder=tmp_path), blocks)):
        time.sleep(0.02)
        assert table["n"][0].as_py() == number
        ahead.append(len(list(tmp_path.iterdir())) - number - 1)
    assert number == 59
    assert max(ahead) <= 4 + 2 * cpus + 4


@pytest.mark.cluster
def test_what_a_worker_refuses_is_said_in_its_words(cluster):
    def parse(block):
        raise InputError(Problem("a.gz:7", "is cut short", "download it again"))

    with pytest.raises(InputError, match=r"^a.gz:7: is cut short \(download it again\)$"):
        list(Engine(True).map(parse, [Block("x", 0, 1)]))


@pytest.mark.cluster
def test_ray_writes_what_this_process_writes(cluster, tmp_path):
    shards = [pa.table({"n": np.arange(n * 10, n * 10 + 7)}) for n in range(9)]
    for name, distributed in (("here", False), ("ray", True)):
        Engine(distributed).write(iter(shards), tmp_path / name, group=3)
    names = [path.name for path in sorted((tmp_path / "here").iterdir())]
    assert names == [f"part-{n:05d}.parquet" for n in range(9)]
    assert names == [path.name for path in sorted((tmp_path / "ray").iterdir())]
    for number, name in enumerate(names):
        found = pq.ParquetFile(tmp_path / "ray" / name)
        assert found.read().equals(shards[number])
        assert found.metadata.num_row_groups == 3


@pytest.mark.parametrize("word", ["Always", "yes", "1"])
def test_another_word_is_refused(monkeypatch, word):
    monkeypatch.setenv("LEGORAY_RAY_DATA", word)
    message = f"variable LEGORAY_RAY_DATA: is '{word}', expected auto, always or never"
    with pytest.raises(InputError, match=message):
        pick_engine(1000)
    monkeypatch.setenv("LEGORAY_RAY_DATA", "")
    assert pick_engine(1000) == Engine(distributed=False)


def test_small_files_do_not_start_ray(monkeypatch):
    monkeypatch.delenv("LEGORAY_RAY_DATA", raising=False)
    assert pick_engine(1000) == Engine(distributed=False)
    monkeypatch.setenv("LEGORAY_RAY_DATA", "never")
    assert pick_engine(1 << 40) == Engine(distributed=False)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "somewhere"])
def test_an_address_where_nobody_answers(address):
    # In a process of its own: this one may be connected already.
    script = (
        "from legoray.errors import InputError\nfrom legoray.rayinit import ensure_ray\n"
        f"try:\n    ensure_ray({address!r})\n"
        "except InputError as error:\n    print('said:', error)"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert f"said: Ray address '{address}'" in done.stdout, done.stderr
