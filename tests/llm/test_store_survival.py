"""The store of hidden states: shared, whole or not at all, and nothing lost."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from llm_cases import (
    ITEMS,
    flip_a_byte,
    run_forked,
    write_tables,
)
from store_cases import (
    ALL,
    blocks_in,
    folders_in,
    one_file,
    recipe_of,
)

from legoray.data.shelf import remove, stored
from legoray.errors import DamagedError, InputError
from legoray.llm import build, store, units
from legoray.llm.store import ensure_states, open_states
from legoray.llm.units import META


@pytest.mark.parametrize(
    ("kind", "damage", "said"),
    [
        ("blocks", lambda f: os.truncate(f, 300), "are damaged: "),
        ("blocks", lambda f: os.truncate(f, f.stat().st_size - 1), "bytes, expected"),
        ("blocks", lambda f: os.truncate(f, 0), "are damaged: "),
        ("blocks", flip_a_byte, "its checksum is wrong"),
        ("sets", flip_a_byte, "its checksum is wrong"),
        ("sets", lambda f: os.truncate(f, 10), "are damaged: "),
        ("blocks", lambda f: f.write_bytes(b"not a safetensors file"), "are damaged: "),
    ],
)
def test_a_damaged_file_is_named_and_what_to_do(home, item_tables, tiny_bert, kind, damage, said):
    (folder,) = ensure_states(recipe_of(tiny_bert), item_tables, home)
    path = one_file(folder, kind)
    damage(path)
    with pytest.raises(DamagedError) as caught:
        open_states(recipe_of(tiny_bert), item_tables, home)
    assert said in str(caught.value)
    assert f"delete {path}" in str(caught.value)
    path.unlink()
    assert open_states(recipe_of(tiny_bert), item_tables, home).item_count == 8


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_folder_that_does_not_say_what_it_is_is_named(home, item_tables, tiny_bert, content):
    (folder,) = ensure_states(recipe_of(tiny_bert), item_tables, home)
    (folder / META).unlink() if content is None else (folder / META).write_text(content)
    with pytest.raises(DamagedError, match=f"delete the folder {folder}"):
        open_states(recipe_of(tiny_bert), item_tables, home)
    shutil.rmtree(folder)
    assert open_states(recipe_of(tiny_bert), item_tables, home).item_count == 8


def test_what_a_kill_left_while_a_unit_was_made_goes(home, item_tables, tiny_bert):
    unit = units.unit_of(recipe_of(tiny_bert))
    left = home / "states" / f".building-{units.key_of_unit(unit)}-abc123"
    removal = left.with_name(f".building-{units.key_of_unit(unit)}-removed")
    for folder in (left, removal):
        folder.mkdir(parents=True)
        (folder / META).write_text("{")
    (folder,) = ensure_states(recipe_of(tiny_bert), item_tables, home)
    assert folder.name == units.key_of_unit(unit)
    assert not left.exists()
    assert removal.exists(), "it belongs to whoever removes"


def test_a_block_of_other_texts_does_not_pass_for_another(home, item_tables, tiny_bert, pairs):
    (folder,) = ensure_states(recipe_of(tiny_bert), item_tables, home)
    first, second = sorted((folder / "blocks").glob("[!.]*.safetensors"))[:2]
    shutil.copyfile(first, second)
    with pytest.raises(DamagedError, match="it is the block"):
        open_states(recipe_of(tiny_bert), item_tables, home)


def test_builders_at_the_same_time_build_once(home, item_tables, tiny_bert):
    said = multiprocessing.get_context("fork").SimpleQueue()

    def work():
        ensure_states(recipe_of(tiny_bert), item_tables, home, said.put)
        said.put("done")

    run_forked(work, 3)
    messages = []
    while not said.empty():
        messages.append(said.get())
    assert messages.count("done") == 3
    assert sum("computing" in message for message in messages) == 1
    assert len(folders_in(home)) == 1


def test_threads_of_one_process_build_once_too(home, item_tables, tiny_bert):
    said = []
    with ThreadPoolExecutor(3) as pool:
        work = [
            pool.submit(ensure_states, recipe_of(tiny_bert), item_tables, home, said.append)
            for _ in range(3)
        ]
        assert len({done.result()[0] for done in work}) == 1
    assert sum("computing" in message for message in said) == 1


@pytest.mark.parametrize("moment", [0, 1, 3])
@pytest.mark.parametrize("within", ["before the block is named", "after it"])
def test_a_killed_run_goes_on_where_it_was(
    tmp_path, home, item_tables, tiny_bert, pairs, monkeypatch, moment, within
):
    recipes = [recipe_of(tiny_bert, split=1), recipe_of(tiny_bert, split=2)]
    undisturbed = ensure_states(recipes, item_tables, tmp_path / "undisturbed")

    def work():
        replace, write, made = os.replace, build.write_blocks, []

        def dies(source, target):
            if made and made[-1] == moment and str(target).endswith("safetensors"):
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        def counted(folders, gathered):
            made.append(len(made))
            if within == "after it":
                write(folders, gathered)
            if made[-1] == moment:
                write(folders[:1], gathered[:1])  # the other layer's file is never reached
                os.kill(os.getpid(), signal.SIGKILL)
            write(folders, gathered)

        os.replace = dies if within != "after it" else replace
        build.write_blocks = counted
        ensure_states(recipes, item_tables, home)

    (code,) = run_forked(work, 1)
    assert code == -signal.SIGKILL
    folders = [home / "states" / folder.name for folder in undisturbed]
    before = [blocks_in(folder) for folder in folders]
    assert [len(blocks) for blocks in before] == [moment + (within == "after it")] * 2
    assert not any(any(folder.glob("sets/*")) for folder in folders)
    made = []
    write = build.write_blocks
    monkeypatch.setattr(build, "write_blocks", lambda f, g: made.append(len(f)) or write(f, g))
    assert ensure_states(recipes, item_tables, home) == folders
    assert made == [2] * (4 - len(before[0]))
    for folder, whole, old in zip(folders, undisturbed, before, strict=True):
        assert blocks_in(folder) == blocks_in(whole)
        assert old.items() <= blocks_in(folder).items()
        assert list((folder / "blocks").glob(".*")) == []


def test_new_items_append_and_nothing_is_computed_again(
    tmp_path, home, item_tables, tiny_bert, pairs, monkeypatch
):
    grown = write_tables(
        tmp_path / "grown", [{"title": "Choir wins", "category": "music"}, *ITEMS, ITEMS[3]]
    )
    (folder,) = ensure_states(recipe_of(tiny_bert), item_tables, home)
    before = {f: f.stat().st_mtime_ns for f in folder.glob("blocks/*")}
    computed = []
    run = build.compute_block
    monkeypatch.setattr(
        build, "compute_block", lambda *args: computed.append(len(args[3])) or run(*args)
    )
    said = []
    assert ensure_states(recipe_of(tiny_bert), grown, home, said.append) == [folder]
    assert computed == [1]
    assert "of 1 new texts (7 known)" in said[0]
    assert before.items() <= {f: f.stat().st_mtime_ns for f in folder.glob("blocks/*")}.items()
    old = open_states(recipe_of(tiny_bert), item_tables, home).gather(ALL)
    new = open_states(recipe_of(tiny_bert), grown, home).gather(torch.arange(2, 9))
    assert torch.equal(old.hidden, new.hidden)
    # what both know is known to a smaller list too
    part = write_tables(tmp_path / "part", [ITEMS[5], ITEMS[2]])
    found = open_states(recipe_of(tiny_bert), part, home).gather(ALL[:2])
    assert torch.equal(found.hidden[0, : int(found.mask[0].sum())], old.hidden[5][old.mask[5]])
    assert computed == [1]


def test_a_node_fetches_blocks_once(tmp_path, home, item_tables, tiny_bert, pairs, monkeypatch):
    plain = open_states(recipe_of(tiny_bert), item_tables, home).gather(ALL).hidden
    monkeypatch.setenv("LEGORAY_NODE_CACHE", str(tmp_path / "node"))
    said = []
    found = open_states(recipe_of(tiny_bert), item_tables, home, said.append)
    assert torch.equal(found.gather(ALL).hidden, plain)
    assert "fetched 4 blocks" in said[0]
    open_states(recipe_of(tiny_bert), item_tables, home, said.append)
    assert len(said) == 1
    (own,) = (tmp_path / "node").glob("[!.]*")
    for file in (home / "states" / own.name / "blocks").iterdir():
        assert (own / "blocks" / file.name).read_bytes() == file.read_bytes()
    file = next((own / "blocks").iterdir())
    flip_a_byte(file)
    with pytest.raises(DamagedError, match=f"delete {file}"):
        open_states(recipe_of(tiny_bert), item_tables, home)
    file.unlink()
    open_states(recipe_of(tiny_bert), item_tables, home, said.append)
    assert "fetched 1 blocks" in said[1]


def test_copies_that_cannot_be_locked_are_read_or_left(
    tmp_path, home, item_tables, tiny_bert, pairs, monkeypatch, caplog
):
    plain = open_states(recipe_of(tiny_bert), item_tables, home).gather(ALL).hidden
    node = tmp_path / "node"
    monkeypatch.setenv("LEGORAY_NODE_CACHE", str(node))
    node.mkdir()
    (node / ".locks").write_text("")  # as where another user made the folder
    found = open_states(recipe_of(tiny_bert), item_tables, home)
    assert torch.equal(found.gather(ALL).hidden, plain)
    assert "the shared files are read" in caplog.text
    (node / ".locks").unlink()
    open_states(recipe_of(tiny_bert), item_tables, home)
    shutil.rmtree(node / ".locks")
    (node / ".locks").write_text("")
    caplog.clear()
    (shared,) = (home / "states").glob("[!.]*")
    found = open_states(recipe_of(tiny_bert), item_tables, home)
    assert torch.equal(found.gather(ALL).hidden, plain)
    assert caplog.text == ""
    assert len(list((node / shared.name / "blocks").iterdir())) == 4


@pytest.mark.parametrize("moment", ["check_meta", "read_set", "open_block"])
def test_what_is_pruned_while_it_is_opened_is_computed_again(
    home, item_tables, tiny_bert, pairs, monkeypatch, moment
):
    plain = open_states(recipe_of(tiny_bert), item_tables, home).gather(ALL).hidden
    place = units if moment == "check_meta" else store
    pruned, asked = [], []
    run = getattr(place, moment)

    def prunes(*args):
        # the list is read when it is looked for, and again when it is opened
        if not pruned and (moment != "read_set" or asked.count("read_set")):
            pruned.extend(stored(home))
            remove(pruned)
        asked.append(moment)
        return run(*args)

    monkeypatch.setattr(place, moment, prunes)
    said = []
    found = open_states(recipe_of(tiny_bert), item_tables, home, said.append)
    assert torch.equal(found.gather(ALL).hidden, plain)
    assert len(pruned) == 1
    assert sum("computing" in message for message in said) == 1


def test_a_list_that_was_half_written_is_swept(home, item_tables, tiny_bert):
    (folder,) = ensure_states(recipe_of(tiny_bert), item_tables, home)
    one_file(folder, "sets").unlink()
    (folder / "sets" / ".building-of-a-killed-process").write_bytes(b"x")
    ensure_states(recipe_of(tiny_bert), item_tables, home)
    assert [file.suffix for file in (folder / "sets").iterdir()] == [".safetensors"]


def test_a_full_disk_is_known_before_anything_is_computed(
    home, item_tables, tiny_bert, monkeypatch
):
    usage = shutil.disk_usage("/")._replace(free=70_000_000)
    monkeypatch.setattr(build.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(build.Work, "bytes_of", lambda work, width: 9_000_000_000)
    with pytest.raises(InputError, match="need 9,000 MB, 70 MB are free"):
        ensure_states(recipe_of(tiny_bert), item_tables, home)
    assert not any((home / "states").rglob("*.safetensors"))


def test_a_store_that_cannot_be_written_is_named(tmp_path, item_tables, tiny_bert):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        ensure_states(recipe_of(tiny_bert), item_tables, tmp_path / "file")


def test_a_disk_that_fills_up_stops_with_a_message_and_loses_nothing(
    tmp_path, home, item_tables, tiny_bert, pairs, monkeypatch
):
    recipe = recipe_of(tiny_bert)
    (undisturbed,) = ensure_states(recipe, item_tables, tmp_path / "undisturbed")

    def work():
        write, made = build.write_blocks, []

        def fills(folders, gathered):
            made.append(len(made))
            if made[-1] == 2:  # the system refuses to write on, in the middle of a file
                resource.setrlimit(resource.RLIMIT_FSIZE, (700, resource.RLIM_INFINITY))
            write(folders, gathered)

        build.write_blocks = fills
        try:
            ensure_states(recipe, item_tables, home)
        except InputError as error:
            os._exit(7 if "cannot be written: File too large" in str(error) else 8)

    assert run_forked(work, 1) == [7]
    folder = home / "states" / undisturbed.name
    before = blocks_in(folder)
    assert len(before) == 2
    assert list((folder / "blocks").glob(".*")) == []
    made = []
    write = build.write_blocks
    monkeypatch.setattr(build, "write_blocks", lambda f, g: made.append(len(f)) or write(f, g))
    ensure_states(recipe, item_tables, home)
    assert len(made) == 2
    assert before.items() <= blocks_in(folder).items()
    assert blocks_in(folder) == blocks_in(undisturbed)
