"""Pooled hidden states: of every layer in one pass, exact, shared, whole or not at all."""

from __future__ import annotations

import dataclasses
import multiprocessing
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from llm_cases import (
    ITEMS,
    LAYERS,
    flip_a_byte,
    relative_error,
    run_forked,
    write_model,
    write_tables,
)
from safetensors.torch import load_file, save_file

from legoray.data.recipes import LayersRecipe, VectorSource
from legoray.errors import DamagedError, InputError
from legoray.llm import build as module
from legoray.llm import pooled
from legoray.llm.load import load_base, load_tokenizer
from legoray.llm.units import last_layer_of, note_of


def open_pooled(*args, **options):
    """All rows of the mapped states."""
    return pooled.open_pooled(*args, **options).all()


def pooled_of_texts(*args, **options):
    return pooled.pooled_of_texts(*args, **options).all()


TEMPLATE = "{title} ({category})"
TEXTS = [f"{row['title']} ({row['category']})" for row in ITEMS]
POOLS = {
    "mean": lambda states: states.mean(dim=0),
    "cls": lambda states: states[0],
    "last": lambda states: states[-1],
}


def recipe_of(model, **changes):
    wanted = LayersRecipe(model, TEMPLATE, 12, "mean", "float32", "float32")
    return dataclasses.replace(wanted, **changes)


def folders_in(home):
    return sorted(f.name for f in (home / "states").iterdir() if f.name != ".locks")


def every_layer(name, length=12):
    """The library's own states of each text alone: per text a list of `[T, H]`."""
    base, tokenizer = load_base(name), load_tokenizer(name)
    found = []
    for text in TEXTS:
        ids = tokenizer(text, truncation=True, max_length=length)["input_ids"]
        with torch.no_grad():
            output = base.model(input_ids=torch.tensor([ids]), output_hidden_states=True)
        found.append([states[0] for states in output.hidden_states])
    return found


@pytest.mark.parametrize("pooling", list(POOLS))
@pytest.mark.parametrize("model", ["tiny_bert", "tiny_llama"])
def test_every_layer_equals_the_plain_forward(request, home, item_tables, model, pooling):
    name = request.getfixturevalue(model)
    found = open_pooled(recipe_of(name, pooling=pooling), item_tables, home)
    expected = torch.stack(
        [torch.stack([POOLS[pooling](layer) for layer in text]) for text in every_layer(name)]
    )
    assert found.shape == expected.shape == (len(ITEMS), LAYERS + 1, 32)
    assert relative_error(found, expected) < 1e-5


def test_rows_of_many_blocks_are_gathered_like_those_of_one(
    tmp_path, home, item_tables, tiny_bert, monkeypatch
):
    one = pooled.open_pooled(recipe_of(tiny_bert), item_tables, tmp_path / "one")
    monkeypatch.setattr(module, "block_size", lambda length, width: 2)
    many = pooled.open_pooled(recipe_of(tiny_bert), item_tables, home)
    assert (len(one.rows.blocks), len(many.rows.blocks)) == (1, 4)
    items = torch.tensor([6, 0, 0, 3])
    torch.testing.assert_close(many.take(items), one.all()[items], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(many.all(), one.all(), rtol=1e-5, atol=1e-6)
    assert many.take(items[:0]).shape == (0, LAYERS + 1, 32)


def test_minilm_too_and_bfloat16_costs_little(home, item_tables):
    exact = open_pooled(recipe_of("minilm"), item_tables, home)
    expected = torch.stack(
        [torch.stack([layer.mean(dim=0) for layer in text]) for text in every_layer("minilm")]
    )
    assert relative_error(exact, expected) < 1e-5
    stored = open_pooled(recipe_of("minilm", store_dtype="bfloat16"), item_tables, home)
    assert stored.dtype == torch.bfloat16
    assert relative_error(stored.float(), exact) < 0.01


def test_a_vector_is_the_last_layer_of_the_same(home, item_tables, tiny_bert):
    source = VectorSource(model=tiny_bert, template=TEMPLATE, length=12)
    alone = open_pooled(last_layer_of(source), item_tables, home, last=True)
    every = open_pooled(recipe_of(tiny_bert), item_tables, home)
    assert alone.dtype == torch.float32
    torch.testing.assert_close(alone[:, 0], every[:, -1])


def test_texts_given_directly_equal_the_stored_ones(home, item_tables, tiny_bert):
    for kind in ("float32", "bfloat16"):
        recipe = recipe_of(tiny_bert, store_dtype=kind)
        stored = open_pooled(recipe, item_tables, home)
        assert torch.equal(pooled_of_texts(recipe, ITEMS), stored)
        last = pooled_of_texts(recipe, ITEMS[2:4], last=True)
        torch.testing.assert_close(last, stored[2:4, -1:])
    assert pooled_of_texts(recipe, []).shape == (0, LAYERS + 1, 32)
    with pytest.raises(InputError, match="category"):
        pooled_of_texts(recipe, [{"title": "Rain"}])


def test_whatever_decides_a_vector_is_in_its_key(tmp_path, home, item_tables, tiny_bert):
    first = recipe_of(tiny_bert)
    changed = [
        recipe_of(tiny_bert, template="{title}"),
        recipe_of(tiny_bert, length=11),
        recipe_of(tiny_bert, pooling="cls"),
        recipe_of(tiny_bert, store_dtype="bfloat16"),
        recipe_of(tiny_bert, precision="bfloat16"),
        recipe_of(write_model(tmp_path / "copy", "bert", initializer_range=0.03)),
    ]
    for number, recipe in enumerate([first, *changed], 1):
        open_pooled(recipe, item_tables, home)
        assert len(folders_in(home)) == number
    open_pooled(first, item_tables, home, last=True)
    assert len(folders_in(home)) == len(changed) + 2
    other = write_tables(tmp_path / "other", [*ITEMS[:-1], {"title": "x", "category": ""}])
    assert torch.equal(
        open_pooled(first, other, home)[:6], open_pooled(first, item_tables, home)[:6]
    )
    assert len(folders_in(home)) == len(changed) + 2


def test_other_weights_or_tokens_in_the_same_folder_are_another_model(
    tmp_path, home, item_tables, tiny_bert
):
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    first = open_pooled(recipe_of(str(folder)), item_tables, home).clone()
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] += 0.5
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    second = open_pooled(recipe_of(str(folder)), item_tables, home)
    assert not torch.allclose(first, second)
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text + "\n")
    open_pooled(recipe_of(str(folder)), item_tables, home)
    assert len(folders_in(home)) == 3


def test_it_is_computed_once_and_then_mapped(home, item_tables, tiny_bert, monkeypatch):
    said = []
    first = open_pooled(recipe_of(tiny_bert), item_tables, home, say=said.append)
    assert "computing hidden states mean-pooled after layers 0 to 3 of 7 texts" in said[0]
    monkeypatch.setattr(module, "compute_block", None)
    second = open_pooled(recipe_of(tiny_bert), item_tables, home, say=said.append)
    assert torch.equal(first, second)
    assert len(said) == 2
    first.zero_()  # neither the file nor another reader sees it
    assert torch.equal(open_pooled(recipe_of(tiny_bert), item_tables, home), second)


def test_a_damaged_file_is_named_and_what_to_do(home, item_tables, tiny_bert):
    open_pooled(recipe_of(tiny_bert), item_tables, home)
    (path,) = (home / "states").glob("[!.]*/blocks/*.safetensors")
    flip_a_byte(path)
    with pytest.raises(DamagedError, match=f"delete {path}"):
        open_pooled(recipe_of(tiny_bert), item_tables, home)
    path.unlink()
    assert len(open_pooled(recipe_of(tiny_bert), item_tables, home)) == len(ITEMS)


def test_builders_at_the_same_time_build_once(home, item_tables, tiny_bert):
    said = multiprocessing.get_context("fork").SimpleQueue()

    def work():
        open_pooled(recipe_of(tiny_bert), item_tables, home, say=said.put)
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
            pool.submit(open_pooled, recipe_of(tiny_bert), item_tables, home, say=said.append)
            for _ in range(3)
        ]
        for done in work:
            done.result()
    assert sum("computing" in message for message in said) == 1


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
        open_pooled(recipe_of(str(folder)), item_tables, home)
    assert "item N4: the hidden states of" in str(caught.value)
    assert "NaN or infinite for the text 'Markets (money)'" in str(caught.value)
    assert not any((home / "states").rglob("*.safetensors"))


def test_a_store_that_cannot_be_written_is_named(tmp_path, item_tables, tiny_bert):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        open_pooled(recipe_of(tiny_bert), item_tables, tmp_path / "file")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"template": "{titel}"}, "did you mean 'title'?"),
        ({"template": "{title"}, "not well formed"),
        ({"model": "minilmm"}, "did you mean 'minilm'?"),
    ],
)
def test_a_wrong_recipe_is_refused(home, item_tables, tiny_bert, changes, said):
    with pytest.raises(InputError) as caught:
        open_pooled(recipe_of(**{"model": tiny_bert, **changes}), item_tables, home)
    assert said in str(caught.value)


def test_a_family_that_cannot_run_its_embeddings_alone_starts_at_its_first_layer(
    tmp_path, home, item_tables
):
    name = write_model(tmp_path / "deberta", "deberta-v2")
    assert open_pooled(recipe_of(name), item_tables, home).shape == (len(ITEMS), LAYERS, 32)


def test_layers_of_different_widths_are_refused(tmp_path, home, item_tables):
    name = write_model(tmp_path / "opt", "opt")
    with pytest.raises(InputError, match="different widths"):
        open_pooled(recipe_of(name), item_tables, home)
    assert open_pooled(recipe_of(name), item_tables, home, last=True).shape == (len(ITEMS), 1, 16)


def test_the_note_says_which_model_it_was(tiny_bert):
    note = note_of(recipe_of(tiny_bert))
    assert note["id"] == tiny_bert
    assert note["recipe"]["pooling"] == "mean"
    assert len(note["weights_sha256"]) == len(note["tokenizer_sha256"]) == 64
