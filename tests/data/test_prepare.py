"""Preparation as a whole: resumable, atomic, repeatable, and a no-op where nothing changed."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from raw_files import dataset, prepared, random_mind, write

from legoray.data import lines, tables
from legoray.data import prepare as module
from legoray.data.load import load_corpus, read_manifest
from legoray.data.prepare import prepare
from legoray.data.processors.mind import Mind
from legoray.errors import InputError


@pytest.fixture
def raw(tmp_path, home):
    random_mind(tmp_path / "raw", 1)
    return tmp_path / "raw"


def test_a_second_call_does_nothing(tmp_path, raw):
    first = prepared(tmp_path, "mind")
    said: list[str] = []
    second = prepare(dataset(tmp_path, "mind"), say=said.append)
    assert first.fresh
    assert not second.fresh
    assert second.manifest == first.manifest
    assert said == []


def test_the_second_call_imports_neither_ray_nor_torch(tmp_path, raw):
    prepared(tmp_path, "mind")
    script = (
        "import sys; from pathlib import Path; from legoray.data.prepare import prepare\n"
        f"made = prepare(Path({str(tmp_path / 'tiny.yaml')!r}), say=print)\n"
        "assert not made.fresh\n"
        "print(sorted({'ray', 'torch', 'pandas', 'transformers', 'mlflow'} & set(sys.modules)))"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
    assert time.monotonic() - started < 20  # 0.5 s where the machine is free


def test_touched_files_are_compared_by_content(tmp_path, raw):
    first = prepared(tmp_path, "mind")
    path = raw / "train/behaviors.tsv"
    os.utime(path, ns=(0, 0))
    second = prepared(tmp_path, "mind")
    assert not second.fresh
    assert second.manifest.fingerprint == first.manifest.fingerprint
    assert read_manifest(second.tables).sources[1].mtime_ns == 0


def test_changed_files_are_prepared_again(tmp_path, raw):
    first = prepared(tmp_path, "mind")
    path = raw / "train/behaviors.tsv"
    write(path, path.read_bytes().replace(b"-1", b"-0", 1))
    second = prepared(tmp_path, "mind")
    assert second.fresh
    assert second.tables == first.tables
    assert second.manifest.fingerprint != first.manifest.fingerprint
    assert load_corpus(second.tables).fingerprint == second.manifest.fingerprint


def test_two_data_sets_of_one_name_have_tables_of_their_own(tmp_path, raw):
    first = prepared(tmp_path, "mind")
    other = tmp_path / "elsewhere"
    random_mind(other, 2)
    second = prepared(tmp_path, "mind", path=str(other))
    assert second.tables != first.tables
    assert second.manifest.fingerprint != first.manifest.fingerprint
    assert not prepared(tmp_path, "mind").fresh
    assert not prepared(tmp_path, "mind", path=str(other)).fresh
    assert load_corpus(first.tables).fingerprint == first.manifest.fingerprint
    copy = tmp_path / "copy"
    shutil.copytree(raw, copy)
    third = prepared(tmp_path, "mind", path=str(copy))
    assert (third.fresh, third.tables) == (False, first.tables)
    shutil.rmtree(raw)
    shutil.rmtree(copy)
    moved = other.rename(tmp_path / "moved")
    assert prepared(tmp_path, "mind", path=str(moved)).tables == first.tables


def test_what_describes_tables_does_not_redo_them(tmp_path, raw):
    first = prepared(tmp_path, "mind")
    again = prepared(tmp_path, "mind", text=["title", "category"], group="user", max_history=9)
    assert not again.fresh
    assert again.tables == first.tables
    assert again.manifest.fingerprint == first.manifest.fingerprint
    assert again.manifest.protocol["group"] == "user"
    stored = read_manifest(first.tables)
    assert (stored.text, stored.group, stored.max_history) == (["title", "category"], "user", 9)


def test_other_options_have_tables_of_their_own(tmp_path, raw):
    one = prepared(tmp_path, "mind")
    two = prepared(tmp_path, "mind", options={"valid_share": 0.3})
    assert one.tables != two.tables
    assert two.manifest.fingerprint != one.manifest.fingerprint


def test_the_fingerprint_knows_no_shards_and_no_blocks(tmp_path, raw, monkeypatch):
    whole = prepared(tmp_path, "mind").manifest
    shutil.rmtree(Path(os.environ["LEGORAY_HOME"]))
    monkeypatch.setattr(tables, "SHARD_ROWS", 100)
    monkeypatch.setattr(lines.blocks_of, "__defaults__", (700,))
    parts = prepared(tmp_path, "mind").manifest
    assert len(parts.files) > len(whole.files)
    assert parts.fingerprint == whole.fingerprint
    monkeypatch.undo()


def test_an_interrupted_run_goes_on(tmp_path, home, raw, monkeypatch):
    whole = prepared(tmp_path, "mind").manifest.fingerprint
    shutil.rmtree(home)
    make = Mind._interactions

    def interrupted(self, run, split, folder):
        if split == "test":
            raise KeyboardInterrupt
        return make(self, run, split, folder)

    monkeypatch.setattr(Mind, "_interactions", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepared(tmp_path, "mind")
    assert not list(home.glob("tables/*/manifest.json"))
    monkeypatch.setattr(Mind, "_interactions", make)
    monkeypatch.setattr(Mind, "_items", lambda self, run, folder: pytest.fail("is done before"))
    said: list[str] = []
    made = prepare(dataset(tmp_path, "mind"), say=said.append)
    assert made.manifest.fingerprint == whole
    assert "going on with" in said[0]
    assert {"items: done before", "interactions/valid: done before"} <= set(said)


def test_stages_of_other_files_are_thrown_away(tmp_path, home, raw, monkeypatch):
    monkeypatch.setattr(module, "_move", None)
    with pytest.raises(TypeError):
        prepared(tmp_path, "mind")
    monkeypatch.undo()
    random_mind(raw, 2)
    monkeypatch.setenv("LEGORAY_HOME", str(home))
    made = prepared(tmp_path, "mind").manifest.fingerprint
    shutil.rmtree(home)
    assert prepared(tmp_path, "mind").manifest.fingerprint == made


KILLED = """
import os, signal, sys, threading, time
from pathlib import Path
import legoray.data.engine, legoray.data.processors.mind
from legoray.data.prepare import prepare
seconds = float(sys.argv[2])
if seconds:
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
started = time.monotonic()
made = prepare(Path(sys.argv[1]), say=lambda line: None)
print(made.manifest.fingerprint, time.monotonic() - started, flush=True)
os._exit(0)
"""


def run_killed(path: Path, seconds: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", KILLED, str(path), str(seconds)]
    return subprocess.run(command, capture_output=True, text=True)


def test_killed_at_any_moment_it_goes_on_to_the_same_tables(tmp_path, home):
    random_mind(tmp_path / "raw", 3, items=2000, rows=3000)
    path = dataset(tmp_path, "mind")
    whole, seconds = run_killed(path, 0).stdout.split()
    random.seed(4)
    killed = 0
    for _ in range(2):
        shutil.rmtree(home)
        for attempt in range(3):
            done = run_killed(path, random.uniform(0, float(seconds)) if attempt < 2 else 0)
            if done.returncode == 0:
                break
            assert done.returncode == -9, done.stderr
            killed += 1
            for made in home.glob("tables/[!.]*"):
                # Whatever stands at the tables' place is whole.
                assert load_corpus(made).fingerprint == whole
        assert done.stdout.split()[0] == whole
        tables_folder = next(home.glob("tables/[!.]*"))
        assert load_corpus(tables_folder).fingerprint == whole
        assert not (tables_folder / "scratch").exists()
    assert killed >= 1


def test_what_a_kill_left_beside_whole_tables_goes(tmp_path, raw, monkeypatch):
    # Killed just after the tables were moved into place, before the rest was cleared away.
    with monkeypatch.context() as patched:
        patched.setattr(module, "_clear", lambda tables: None)
        first = prepared(tmp_path, "mind")
    assert (first.tables / "scratch").is_dir()
    assert (first.tables / "stamp.json").is_file()
    again = prepared(tmp_path, "mind")
    assert not again.fresh
    assert again.manifest == first.manifest
    rests = ("scratch", "stages", "stamp.json")
    assert [name for name in rests if (again.tables / name).exists()] == []
    assert load_corpus(again.tables).fingerprint == first.manifest.fingerprint


def test_two_at_once_prepare_once(tmp_path, raw):
    path = dataset(tmp_path, "mind")
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(prepare(path, say=lambda line: None)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made.fresh for made in results) == [False, False, True]


def test_damage_is_named_and_deleting_it_helps(tmp_path, raw):
    made = prepared(tmp_path, "mind")
    path = made.tables / "histories/part-00000.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"histories/part-00000.parquet: .*damaged"):
        prepared(tmp_path, "mind")
    with pytest.raises(InputError, match=r"part-00000.parquet"):
        load_corpus(made.tables)
    shutil.rmtree(made.tables)
    assert prepared(tmp_path, "mind").manifest.fingerprint == made.manifest.fingerprint


@pytest.mark.parametrize("content", ["", "{", '{"name": "x"}'])
def test_a_damaged_manifest_is_named(tmp_path, raw, content):
    made = prepared(tmp_path, "mind")
    write(made.tables / "manifest.json", content)
    for call in (lambda: prepared(tmp_path, "mind"), lambda: read_manifest(made.tables)):
        with pytest.raises(InputError, match=r"manifest.json: is damaged"):
            call()


def test_tables_of_another_version(tmp_path, raw):
    made = prepared(tmp_path, "mind")
    path = made.tables / "manifest.json"
    write(path, json.dumps(json.loads(path.read_text()) | {"schema_version": 0}))
    with pytest.raises(InputError, match=r"has schema version 0"):
        read_manifest(made.tables)
    assert prepared(tmp_path, "mind").fresh


FILES = {
    "absent folder": (lambda raw: shutil.rmtree(raw), "no such folder (Ask the owner.)"),
    "a file for a folder": (
        lambda raw: (shutil.rmtree(raw), write(raw, "x")),
        "is a file, a folder was expected",
    ),
    "absent file": (lambda raw: (raw / "dev/news.tsv").unlink(), "news.tsv: no such file"),
    "a folder for a file": (
        lambda raw: ((raw / "dev/news.tsv").unlink(), (raw / "dev/news.tsv").mkdir()),
        "is a folder, a file was expected",
    ),
    "empty": (lambda raw: write(raw / "dev/news.tsv", ""), "is empty (0 bytes)"),
    "zipped": (
        lambda raw: (shutil.rmtree(raw / "dev"), write(raw / "dev.zip", "PK")),
        "dev.zip: is still zipped (unzip it here)",
    ),
    "a zip under the name": (
        lambda raw: write(raw / "dev/news.tsv", b"PK\x03\x04 and so on"),
        "is a zip archive, plain text was expected",
    ),
    "UTF-16": (
        lambda raw: write(raw / "dev/news.tsv", "N1\tx".encode("utf-16")),
        "is UTF-16 text",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_not_there_or_something_else(tmp_path, home, raw, case):
    change, words = FILES[case]
    change(raw)
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "mind")
    assert words in str(caught.value)
    assert not home.exists()


def test_a_home_that_cannot_be_written(tmp_path, home, raw):
    write(home, "a file")
    with pytest.raises(InputError, match=r"LEGORAY_HOME"):
        prepared(tmp_path, "mind")


def test_unknown_text_attribute_and_unset_variable(tmp_path, raw):
    with pytest.raises(InputError, match=r"tiny.yaml:\d+: text\[0\].*did you mean 'title'"):
        prepared(tmp_path, "mind", text=["titel"])
    yaml = dataset(tmp_path, "mind", raw="$LEGORAY_NO_SUCH/raw")
    with pytest.raises(InputError, match=r"LEGORAY_NO_SUCH.*Ask the owner"):
        prepare(yaml, say=print)


def test_the_schemas_of_the_files(tmp_path, raw):
    from legoray.data.schema import HISTORIES, INTERACTIONS, MARKS, items_schema, users_schema

    made = prepared(tmp_path, "mind")
    expected = {"histories": HISTORIES, "users": users_schema([]), "interactions": INTERACTIONS}
    expected["slices"] = MARKS
    expected["items"] = items_schema(made.manifest.attributes)
    for name in made.manifest.files:
        found = pq.read_schema(made.tables / name).remove_metadata()
        assert found.equals(expected[name.split("/")[0]]), name
