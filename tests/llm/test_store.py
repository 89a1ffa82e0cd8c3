"""The store of hidden states: exact, shared, whole or not at all."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from llm_cases import (
    ITEMS,
    LAYERS,
    flip_a_byte,
    plain_forward,
    relative_error,
    run_forked,
    write_model,
    write_tables,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from legoray.data.recipes import LayersRecipe, StateRecipe
from legoray.data.shelf import remove, stored
from legoray.errors import DamagedError, InputError
from legoray.llm import build, spread, store, units
from legoray.llm.load import load_base, load_tokenizer
from legoray.llm.split import run_view, upper_view
from legoray.llm.store import ensure_states, open_states, states_of_texts
from legoray.llm.units import META

ALL = torch.arange(1, len(ITEMS) + 1)
TEMPLATE = "{title} ({category})"
TEXTS = [f"{row['title']} ({row['category']})" for row in ITEMS]


def recipe_of(model, **changes):
    wanted = StateRecipe(model, 1, TEMPLATE, 12, "float32", "float32")
    return dataclasses.replace(wanted, **changes)


def folders_in(home):
    return sorted(f.name for f in (home / "states").iterdir() if not f.name.startswith(".locks"))


def blocks_in(folder):
    """The content of every whole block of a unit, by name."""
    return {f.stem: f.read_bytes() for f in (folder / "blocks").glob("[!.]*.safetensors")}


def one_file(folder, kind):
    (file,) = (folder / kind).glob("[!.]*.safetensors")
    return file


def broken_model(folder, source):
    """A copy of a model in which one word's embedding is infinite; its folder's name."""
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    markets = load_tokenizer(source)("Markets")["input_ids"][1]
    weights["embeddings.word_embeddings.weight"][markets, 0] = float("inf")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return str(folder)


@pytest.fixture
def pairs(monkeypatch):
    """Blocks of two texts each: the seven items make four."""
    monkeypatch.setattr(build, "block_size", lambda length, width: 2)


@pytest.mark.parametrize("model", ["tiny_bert", "tiny_llama", "minilm"])
def test_stored_states_and_the_upper_layers_equal_the_plain_forward(
    request, home, item_tables, model
):
    name = model if model == "minilm" else request.getfixturevalue(model)
    base = load_base(name)
    expected = plain_forward(base.model, load_tokenizer(name), TEXTS, 12)
    for split in range(base.layers + 1):
        states = open_states(recipe_of(name, split=split), item_tables, home).gather(ALL)
        found = states.hidden
        if split < base.layers:
            with torch.no_grad():
                found = run_view(upper_view(base.model, base.layers, split), found, states.mask)
        for row, wanted in enumerate(expected):
            assert states.mask[row].sum() == len(wanted)
            assert relative_error(found[row, : len(wanted)], wanted) < 1e-5, (split, row)


@pytest.mark.parametrize(("model", "bound"), [("tiny_bert", 0.01), ("minilm", 0.01)])
def test_what_bfloat16_costs_is_bounded(request, home, item_tables, model, bound):
    name = model if model == "minilm" else request.getfixturevalue(model)
    base = load_base(name)
    outputs = {}
    for kind in ("float32", "bfloat16"):
        recipe = recipe_of(name, split=base.layers - 1, store_dtype=kind)
        states = open_states(recipe, item_tables, home).gather(ALL)
        assert states.hidden.dtype == getattr(torch, kind)
        with torch.no_grad():
            upper = upper_view(base.model, base.layers, base.layers - 1)
            outputs[kind] = run_view(upper, states.hidden.float(), states.mask)[states.mask]
    assert relative_error(outputs["bfloat16"], outputs["float32"]) < bound


def test_gathering_pads_with_zeros_in_any_order_and_repeats(home, item_tables, tiny_bert):
    features = open_states(recipe_of(tiny_bert), item_tables, home)
    assert (features.item_count, features.sizes.width) == (8, 32)
    items = torch.tensor([3, 1, 3, 5])
    states = features.gather(items)
    assert features.lengths(items).tolist() == states.mask.sum(1).tolist()
    assert states.hidden.shape == (4, int(features.lengths(items).max()), 32)
    assert (states.hidden[~states.mask] == 0).all()
    everything = features.gather(ALL)
    for row, item in enumerate(items.tolist()):
        length = int(features.lengths(items)[row])
        assert torch.equal(states.hidden[row, :length], everything.hidden[item - 1, :length])
    assert features.gather(torch.tensor([], dtype=torch.long)).hidden.shape == (0, 1, 32)


def test_a_block_is_plain_safetensors_and_mapped_not_read(home, item_tables, tiny_bert):
    recipe = recipe_of(tiny_bert, store_dtype="bfloat16")
    (folder,) = ensure_states(recipe, item_tables, home)
    features = open_states(recipe, item_tables, home)
    path = one_file(folder, "blocks")
    with safe_open(path, "pt") as file:
        assert torch.equal(file.get_tensor("h"), features.rows.blocks[0])
        assert file.get_tensor("offsets").diff().sum() == len(features.rows.blocks[0])
        note = file.metadata()
    exact = open_states(recipe_of(tiny_bert), item_tables, home).rows.blocks[0]
    error = exact - features.rows.blocks[0].float()
    share = float(note["errors"]) / float(note["squares"])
    assert share**0.5 == pytest.approx(float(error.norm() / exact.norm()), rel=1e-5)
    assert float(note["worst"]) == pytest.approx(
        float((error.norm(dim=1) / exact.norm(dim=1)).max()), rel=1e-5
    )
    features.rows.blocks[0][0] = 0  # copy-on-write: the file does not see it
    assert not torch.equal(load_file(path)["h"][0], features.rows.blocks[0][0])


def test_texts_given_directly_equal_the_stored_ones(home, item_tables, tiny_bert):
    for kind in ("float32", "bfloat16"):
        recipe = recipe_of(tiny_bert, store_dtype=kind)
        stored = open_states(recipe, item_tables, home).gather(ALL)
        given = states_of_texts(recipe, ITEMS).gather(ALL)
        assert torch.equal(given.mask, stored.mask)
        assert torch.equal(given.hidden, stored.hidden)
    assert states_of_texts(recipe, []).item_count == 1
    with pytest.raises(InputError, match="category"):
        states_of_texts(recipe, [{"title": "Rain"}])


def test_whatever_decides_a_state_is_in_its_key(tmp_path, home, item_tables, tiny_bert):
    first = recipe_of(tiny_bert)
    changed = [
        recipe_of(tiny_bert, template="{title}"),
        recipe_of(tiny_bert, length=11),
        recipe_of(tiny_bert, split=2),
        recipe_of(tiny_bert, store_dtype="bfloat16"),
        recipe_of(tiny_bert, precision="bfloat16"),
        recipe_of(write_model(tmp_path / "copy", "bert", initializer_range=0.03)),
    ]
    folders = ensure_states([first, *changed, first], item_tables, home)
    assert folders[0] == folders[-1]
    other_text = write_tables(tmp_path / "other", [*ITEMS[:-1], {"title": "x", "category": ""}])
    assert len(set(folders)) == len(folders) - 1 == len(folders_in(home))
    assert ensure_states(first, other_text, home) == folders[:1]  # its new text was added
    found = open_states(first, other_text, home).gather(ALL)
    new = states_of_texts(first, [{"title": "x", "category": ""}]).gather(ALL[:1])
    length = int(new.mask.sum())
    torch.testing.assert_close(found.hidden[6, :length], new.hidden[0])
    assert int(found.mask[6].sum()) == length


def test_several_layers_are_one_pass_and_equal_single_ones(
    tmp_path, home, item_tables, tiny_llama, monkeypatch
):
    recipes = [recipe_of(tiny_llama, split=split) for split in (2, 0, LAYERS)]
    pooled = LayersRecipe(tiny_llama, TEMPLATE, 12)
    passes = []
    run = build.compute_block
    monkeypatch.setattr(build, "compute_block", lambda *args: passes.append(args[1]) or run(*args))
    said = []
    together = ensure_states([*recipes, pooled], item_tables, home, said.append)
    assert [len(units) for units in passes] == [4]
    words = "computing hidden states after layer 0, 2, 3 and mean-pooled after layers 0 to 3"
    assert f"{words} of 7 texts" in said[0]
    assert ensure_states([*recipes, pooled], item_tables, home, said.append) == together
    assert len(said) == 2
    for one, recipe in zip(together, [*recipes, pooled], strict=True):
        (alone,) = ensure_states(recipe, item_tables, tmp_path / "alone")
        assert blocks_in(one) == blocks_in(alone)
    assert len(passes) == 5


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


def test_gathering_over_many_blocks_equals_one(tmp_path, home, item_tables, tiny_bert, monkeypatch):
    one = open_states(recipe_of(tiny_bert), item_tables, tmp_path / "one")
    monkeypatch.setattr(build, "block_size", lambda length, width: 1)
    many = open_states(recipe_of(tiny_bert), item_tables, home)
    assert (len(one.rows.blocks), len(many.rows.blocks)) == (1, 7)
    for items in ([3, 1, 3, 5], [2], [7, 6, 5, 4, 3, 2, 1], []):
        wanted, found = (f.gather(torch.tensor(items, dtype=torch.long)) for f in (one, many))
        assert torch.equal(wanted.mask, found.mask)
        torch.testing.assert_close(found.hidden, wanted.hidden, rtol=1e-5, atol=1e-6)


def test_ray_data_gives_what_this_process_gives(
    tmp_path, home, item_tables, tiny_bert, pairs, monkeypatch
):
    from legoray.rayinit import ensure_ray

    monkeypatch.setenv("LEGORAY_RAY_DATA", "always")
    ensure_ray(num_cpus=2)
    recipes = [recipe_of(tiny_bert, split=1), recipe_of(tiny_bert, split=2)]
    said = []
    folders = ensure_states(recipes, item_tables, home, said.append)
    assert any("computed by Ray Data" in message for message in said)
    broken = broken_model(tmp_path / "broken", tiny_bert)
    # what was free when Ray was chosen is taken when it is used
    pools = [spread._pool(), None]
    with monkeypatch.context() as patch:
        patch.setattr(spread, "_pool", lambda: pools.pop(0))
        with pytest.raises(InputError, match=r"item N4: .*Markets \(money\)"):
            ensure_states(recipe_of(broken), item_tables, home)
    monkeypatch.setenv("LEGORAY_RAY_DATA", "never")
    alone = ensure_states(recipes, item_tables, tmp_path / "alone")
    for folder, other, recipe in zip(folders, alone, recipes, strict=True):
        assert blocks_in(folder).keys() == blocks_in(other).keys()
        ours, theirs = (
            open_states(recipe, item_tables, place).gather(ALL).hidden
            for place in (home, tmp_path / "alone")
        )
        # threads are not the same in an actor: not to the bit
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


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


def test_a_tokenizer_of_another_model_is_named(tmp_path, home, item_tables, tiny_bert):
    folder = tmp_path / "mixed"
    write_model(folder, "bert", vocabulary=9)
    with pytest.raises(InputError, match=r"mixed: its tokenizer gives the token \d+, .* 9 tokens"):
        ensure_states(recipe_of(str(folder)), item_tables, home)


def test_a_list_that_was_half_written_is_swept(home, item_tables, tiny_bert):
    (folder,) = ensure_states(recipe_of(tiny_bert), item_tables, home)
    one_file(folder, "sets").unlink()
    (folder / "sets" / ".building-of-a-killed-process").write_bytes(b"x")
    ensure_states(recipe_of(tiny_bert), item_tables, home)
    assert [file.suffix for file in (folder / "sets").iterdir()] == [".safetensors"]


def test_a_state_that_is_not_a_number_stops_with_the_items_key_and_text(
    tmp_path, home, item_tables, tiny_bert
):
    folder = broken_model(tmp_path / "broken", tiny_bert)
    with pytest.raises(InputError) as caught:
        ensure_states(recipe_of(str(folder)), item_tables, home)
    assert "item N4: the hidden states of" in str(caught.value)
    assert "NaN or infinite for the text 'Markets (money)'" in str(caught.value)
    (unit,) = folders_in(home)
    assert [file.name for file in (home / "states" / unit).iterdir()] == [META]


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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"template": "{titel}"}, "did you mean 'title'?"),
        ({"template": "{title"}, "not well formed"),
        ({"split": 4}, "cannot be split after layer 4"),
        ({"split": -1}, "cannot be split after layer -1"),
        ({"model": "minilmm"}, "did you mean 'minilm'?"),
    ],
)
def test_a_wrong_recipe_is_refused(home, item_tables, tiny_bert, changes, said):
    with pytest.raises(InputError) as caught:
        open_states(recipe_of(**{"model": tiny_bert, **changes}), item_tables, home)
    assert said in str(caught.value)


def test_a_models_folder_notes_the_language_model_not_its_weights(
    tmp_path, home, item_tables, tiny_bert
):
    open_states(recipe_of(tiny_bert), item_tables, home).save_assets(tmp_path)
    assert [f.name for f in tmp_path.iterdir() if f.suffix == ".json"] == ["language_model.json"]
    assert (tmp_path / "language_model.json").stat().st_size < 2_000
