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

from legoray.data.recipes import StateRecipe
from legoray.errors import InputError
from legoray.llm import build
from legoray.llm.load import load_base, load_tokenizer
from legoray.llm.split import run_view, upper_view
from legoray.llm.statefile import META, STATES
from legoray.llm.store import ensure_states, open_states, states_of_texts

ALL = torch.arange(1, len(ITEMS) + 1)
TEMPLATE = "{title} ({category})"
TEXTS = [f"{row['title']} ({row['category']})" for row in ITEMS]


def recipe_of(model, **changes):
    wanted = StateRecipe(model, 1, TEMPLATE, 12, "float32", "float32")
    return dataclasses.replace(wanted, **changes)


def folders_in(home):
    return sorted(f.name for f in (home / "states").iterdir() if not f.name.startswith(".locks"))


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
    assert (features.item_count, features.sizes.width) == (8, features.hidden.shape[1])
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


def test_the_file_is_plain_safetensors_and_mapped_not_read(home, item_tables, tiny_bert):
    (folder,) = ensure_states(recipe_of(tiny_bert, store_dtype="bfloat16"), item_tables, home)
    features = open_states(recipe_of(tiny_bert, store_dtype="bfloat16"), item_tables, home)
    with safe_open(folder / STATES, "pt") as file:
        assert torch.equal(file.get_tensor("h"), features.hidden)
        assert torch.equal(file.get_tensor("offsets"), features.offsets)
    features.hidden[0] = 0  # copy-on-write: the file does not see it
    assert not torch.equal(load_file(folder / STATES)["h"][0], features.hidden[0])


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
    folders += ensure_states(first, other_text, home)
    assert len(set(folders)) == len(folders) - 1 == len(folders_in(home))
    same_text = write_tables(tmp_path / "same")
    assert ensure_states(first, same_text, home) == folders[:1]


def test_several_layers_are_one_pass_and_equal_single_ones(
    tmp_path, home, item_tables, tiny_llama, monkeypatch
):
    recipes = [recipe_of(tiny_llama, split=split) for split in (2, 0, LAYERS)]
    passes = []
    run = build.run_texts
    monkeypatch.setattr(
        build, "run_texts", lambda *args, **kwargs: passes.append(args[2]) or run(*args, **kwargs)
    )
    said = []
    together = ensure_states(recipes, item_tables, home, said.append)
    assert len(passes) == 1
    assert "computing hidden states after layer 0, 2, 3 of 7 texts" in said[0]
    assert ensure_states(recipes, item_tables, home, said.append) == together
    assert len(said) == 2
    alone = [ensure_states(r, item_tables, tmp_path / "alone")[0] for r in recipes]
    assert len(passes) == 4
    for one, other in zip(together, alone, strict=True):
        assert (one / STATES).read_bytes() == (other / STATES).read_bytes()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: os.truncate(f / STATES, 300), "300 bytes, expected"),
        (lambda f: os.truncate(f / STATES, 0), "0 bytes, expected"),
        (lambda f: flip_a_byte(f / STATES), "its checksum is wrong"),
        (lambda f: (f / STATES).unlink(), "no such file"),
        (lambda f: (f / META).unlink(), "no such file"),
        (lambda f: (f / META).write_text("{"), "is damaged"),
        (lambda f: (f / META).write_text("{}"), "is damaged"),
    ],
)
def test_a_damaged_folder_is_named_and_what_to_do(home, item_tables, tiny_bert, damage, said):
    (folder,) = ensure_states(recipe_of(tiny_bert), item_tables, home)
    damage(folder)
    with pytest.raises(InputError) as caught:
        open_states(recipe_of(tiny_bert), item_tables, home)
    assert said in str(caught.value)
    assert f"delete the folder {folder}" in str(caught.value)
    shutil.rmtree(folder)
    assert open_states(recipe_of(tiny_bert), item_tables, home).item_count == 8


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


def test_a_killed_build_leaves_nothing_that_passes_for_whole(home, item_tables, tiny_bert):
    def work():
        run = build.run_texts

        def dies(*args, **kwargs):
            run(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)

        build.run_texts = dies
        ensure_states(recipe_of(tiny_bert), item_tables, home)

    (code,) = run_forked(work, 1)
    assert code == -signal.SIGKILL
    assert [name.startswith(".building-") for name in folders_in(home)] == [True]
    said = []
    (folder,) = ensure_states(recipe_of(tiny_bert), item_tables, home, said.append)
    assert "computing" in said[0]
    assert folders_in(home) == [folder.name]


def test_a_state_that_is_not_a_number_stops_with_the_items_key_and_text(
    tmp_path, home, item_tables, tiny_bert
):
    folder = tmp_path / "broken"
    shutil.copytree(tiny_bert, folder)
    weights = load_file(folder / "model.safetensors")
    markets = load_tokenizer(tiny_bert)("Markets")["input_ids"][1]
    weights["embeddings.word_embeddings.weight"][markets, 0] = float("inf")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError) as caught:
        ensure_states(recipe_of(str(folder)), item_tables, home)
    assert "item N4: the hidden states of" in str(caught.value)
    assert "NaN or infinite for the text 'Markets (money)'" in str(caught.value)
    assert folders_in(home) == []


def test_a_full_disk_is_known_before_anything_is_computed(
    home, item_tables, tiny_bert, monkeypatch
):
    usage = shutil.disk_usage("/")._replace(free=70_000_000)
    monkeypatch.setattr(build.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(build, "file_size", lambda *sizes: 9_000_000_000)
    with pytest.raises(InputError, match="need 9,000 MB, 70 MB are free"):
        ensure_states(recipe_of(tiny_bert), item_tables, home)
    assert folders_in(home) == []


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
