"""The store of hidden states: exact, whatever way it is filled."""

from __future__ import annotations

import pytest
import torch
from llm_cases import (
    ITEMS,
    LAYERS,
    plain_forward,
    relative_error,
    write_model,
    write_tables,
)
from safetensors import safe_open
from safetensors.torch import load_file
from store_cases import (
    ALL,
    TEMPLATE,
    TEXTS,
    blocks_in,
    broken_model,
    folders_in,
    one_file,
    recipe_of,
)

from legoray.data.recipes import LayersRecipe
from legoray.errors import InputError
from legoray.llm import build, spread
from legoray.llm.load import load_base, load_tokenizer
from legoray.llm.split import run_view, upper_view
from legoray.llm.store import ensure_states, open_states, states_of_texts
from legoray.llm.units import META


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


def test_a_tokenizer_of_another_model_is_named(tmp_path, home, item_tables, tiny_bert):
    folder = tmp_path / "mixed"
    write_model(folder, "bert", vocabulary=9)
    with pytest.raises(InputError, match=r"mixed: its tokenizer gives the token \d+, .* 9 tokens"):
        ensure_states(recipe_of(str(folder)), item_tables, home)


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
