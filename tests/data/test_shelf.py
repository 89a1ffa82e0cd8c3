"""What the shared caches hold, and what goes when room is made."""

from __future__ import annotations

import json
import os
import shutil
import time

import pytest
import torch
from typer.testing import CliRunner

from legoray.cli import app
from legoray.data.shelf import note_use, remove, stored, to_remove
from legoray.data.tensorfile import check_file, map_tensors, write_tensors
from legoray.errors import InputError

META = {
    "model": "a/b", "layers": [5], "pooling": "", "template": "{title}", "length": 16,
    "precision": "int8", "dtype": "bfloat16",
}  # fmt: skip
ROWS = torch.zeros(250, 1)


@pytest.fixture
def filled(home):
    """Three folders of 1,000 bytes and more, used 30, 20 and 10 days ago."""
    for kind, key, days in (("states", "aaa1", 30), ("pooled", "aab2", 20), ("codes", "ccc3", 10)):
        folder = home / kind / key
        folder.mkdir(parents=True)
        if kind == "states":
            (folder / "sets").mkdir()
            (folder / "meta.json").write_text(json.dumps(META))
            for name, texts in (("one", 1000), ("two", 936)):
                note = {"texts": str(texts), "squares": "50.0", "errors": "0.0005"}
                (folder / "blocks").mkdir(exist_ok=True)
                write_tensors(folder / "blocks" / f"{name}.safetensors", {"h": ROWS}, note)
        else:
            (folder / "states.safetensors").write_bytes(bytes(1000))
        note_use(folder)
        os.utime(folder / "used", (0, time.time() - days * 86400))
    (home / "states" / ".locks").mkdir()
    return home


def keys(found):
    return [one.key for one in found]


def test_what_is_stored_is_listed_least_used_first(filled):
    found = stored(filled)
    assert keys(found) == ["aaa1", "aab2", "ccc3"]
    assert found[0].content.startswith("a/b after layer 5, 1,936 texts with an error of 0.32%, ")
    assert "'{title}', 16 tokens, int8, stored in bfloat16" in found[0].content
    assert "of an older version" in found[1].content
    assert all(one.size >= 1000 for one in found)
    note_use(filled / "states" / "aaa1")
    assert keys(stored(filled)) == ["aab2", "ccc3", "aaa1"]


def test_a_template_with_brackets_is_listed_as_it_is(filled):
    template = "[item] {title} [/item]"
    (filled / "states/aaa1/meta.json").write_text(json.dumps({**META, "template": template}))
    found = CliRunner().invoke(app, ["store", "list"], env={"COLUMNS": "300"})
    assert found.exit_code == 0
    assert template in found.output


def test_rules_name_the_least_used_first(filled):
    found = stored(filled)
    assert keys(to_remove(found, unused=15 * 86400)) == ["aaa1", "aab2"]
    assert keys(to_remove(found, keep=found[2].size)) == ["aaa1", "aab2"]
    assert keys(to_remove(found, keep=sum(one.size for one in found))) == []
    assert keys(to_remove(found, keep=sum(one.size for one in found) - 1)) == ["aaa1"]
    assert keys(to_remove(found, keys=["c", "aab"])) == ["aab2", "ccc3"]
    assert keys(to_remove(found, keep=0)) == ["aaa1", "aab2", "ccc3"]


@pytest.mark.parametrize(
    ("key", "said"), [("aa", "stands for several: aaa1, aab2"), ("ccd3", "did you mean 'ccc3'")]
)
def test_a_key_must_name_one_folder(filled, key, said):
    with pytest.raises(InputError, match=said):
        to_remove(stored(filled), keys=[key])


def test_removed_folders_leave_nothing_behind(filled):
    remove(stored(filled)[:1])
    assert keys(stored(filled)) == ["aab2", "ccc3"]
    assert sorted(p.name for p in (filled / "states").iterdir()) == [".locks"]


def test_two_may_remove_the_same(filled):
    chosen = stored(filled)[:2]
    remove(chosen[:1])
    remove(chosen)
    assert keys(stored(filled)) == ["ccc3"]


def test_a_folder_that_does_not_say_what_it_is_is_listed_all_the_same(filled):
    (filled / "states" / "aaa1" / "meta.json").write_text("[")
    assert stored(filled)[0].content == "damaged: it does not say what it is"


def test_older_folders_and_unfinished_ones_say_so(filled):
    (filled / "states" / "old1").mkdir()
    (filled / "states" / "old1" / "states.safetensors").write_bytes(b"x")
    (filled / "states" / "aaa1" / "sets").rmdir()
    words = {one.key: one.content for one in stored(filled)}
    assert "of an older version of LegoRay: nothing reads it" in words["old1"]
    assert "1,936 texts with an error of 0.32% (not finished)" in words["aaa1"]
    remove([one for one in stored(filled) if one.key == "old1"])
    assert "old1" not in keys(stored(filled))


def test_a_nodes_copies_are_listed_and_removed(filled, tmp_path, monkeypatch):
    monkeypatch.setenv("LEGORAY_NODE_CACHE", str(tmp_path / "node"))
    shutil.copytree(filled / "states" / "aaa1", tmp_path / "node" / "aaa1")
    shutil.rmtree(tmp_path / "node" / "aaa1" / "sets")
    (copy,) = [one for one in stored(filled) if one.kind == "copy"]
    assert "1,936 texts" in copy.content
    assert "not finished" not in copy.content
    assert len(to_remove(stored(filled), keys=["aaa"])) == 2
    remove([copy])
    assert not copy.folder.exists()
    assert (filled / "states" / "aaa1").exists()


def test_what_a_killed_removal_left_goes_with_the_next(filled, monkeypatch):
    def killed(path, **options):
        if path.exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove(stored(filled)[:1])
    (left,) = (filled / "states").glob(".building-*")
    assert (left / "meta.json").exists()
    said = CliRunner().invoke(app, ["store", "prune", "--unused", "365d"]).output
    assert f"removing {left}" in said.replace("\n", "")
    assert not left.exists()
    assert keys(stored(filled)) == ["aab2", "ccc3"]


def test_a_block_that_is_named_while_the_store_is_listed_is_passed_over(filled, monkeypatch):
    folder = filled / "states" / "aaa1" / "blocks"
    (folder / ".building-three").write_bytes(bytes(50))
    whole = sum(file.stat().st_size for file in (filled / "states" / "aaa1").rglob("*.*")) - 50
    listed = type(folder).rglob

    def renamed(path, pattern):
        found = list(listed(path, pattern))
        (folder / ".building-three").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(type(folder), "rglob", renamed)
    assert stored(filled)[0].size == whole


def test_what_is_open_stays_readable_when_it_is_removed(filled):
    file = filled / "states" / "aaa1" / "blocks" / "one.safetensors"
    rows = map_tensors(file, check_file(file, "states"))["h"]
    remove(stored(filled)[:1])
    assert not file.exists()
    assert rows.sum() == 0
    assert rows.shape == ROWS.shape


def test_the_commands(filled):
    run = CliRunner().invoke
    listed = run(app, ["store", "list"], env={"COLUMNS": "200"}).output
    assert all(key in listed for key in ("aaa1", "aab2", "ccc3"))
    assert "30 days ago" in listed
    said = run(app, ["store", "prune", "--unused", "25d", "--dry-run"]).output
    assert "would remove aaa1" in said
    assert len(stored(filled)) == 3
    assert "removed aaa1" in run(app, ["store", "prune", "--unused", "25d"]).output
    assert keys(stored(filled)) == ["aab2", "ccc3"]
    assert "0 folders" in run(app, ["store", "prune", "--keep", "0"]).output
    assert "nothing is stored" in run(app, ["store", "list"]).output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "says nothing about what to remove"),
        (["--keep", "ten"], "expected such as 10GB"),
        (["--keep", "10"], "expected such as 10GB"),
        (["--unused", "3 years"], "expected such as 30d"),
        (["zzz"], "nothing of this key"),
    ],
)
def test_mistakes_are_told(filled, words, said):
    with pytest.raises(InputError, match=said):
        CliRunner().invoke(app, ["store", "prune", *words], catch_exceptions=False)
    assert len(stored(filled)) == 3
