"""Operators of stored and of several inputs against loops over one item at a time."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from model_cases import HIDDEN, ITEMS, N, filled, perturb
from torch.nn import functional as F

from legoray.config import ModelConfig
from legoray.data.recipes import IdRecipe, Joined, Tokens, VectorRecipe
from legoray.errors import InputError
from legoray.model.base import Shape
from legoray.model.compose import check
from legoray.model.content.iisan import chosen_layers
from legoray.model.content.sources import absolute
from legoray.model.features import features_of_texts
from legoray.model.inputs import Inputs
from legoray.model.io import load_state, model_state, save_model
from legoray.model.recommender import build_recommender, new_model, recipes_of
from legoray.model.registry import parse_part
from legoray.zoo.scorer import Scorer

ALL = torch.arange(1, N + 1)
TEXT = ("title", "abstract")


def make(features_of, name, *, size=HIDDEN, moved=True, **settings):
    """An operator in evaluation mode, its recipe and its features."""
    part, config = parse_part("content", {"name": name, **settings})
    assert part.problems(config, size) == []
    recipe = part.recipe(config, TEXT)
    features = features_of(recipe)
    own = part(config, Shape(size, features.item_count, input=features.sizes))
    own.start_from(features)
    return (perturb(own) if moved else own).eval(), recipe, features


def count(module):
    return sum(p.numel() for p in module.parameters())


def problems_of(name, **settings):
    part, config = parse_part("content", {"name": name, **settings})
    return " | ".join(part.problems(config, HIDDEN))


@pytest.fixture
def stored(tiny):
    return {
        "npy": f"{tiny}/stored/vectors.npy",
        "parquet": f"{tiny}/stored/vectors.parquet",
        "safetensors": f"{tiny}/stored/vectors.safetensors",
        "codes": f"{tiny}/stored/codes.parquet",
    }


# --- vector ---


@pytest.mark.parametrize("form", ["npy", "parquet", "safetensors"])
def test_a_projected_vector_is_one_linear_layer_of_it(features_of, stored, form):
    content, _, features = make(features_of, "vector", file=stored[form])
    vectors = torch.from_numpy(np.load(stored["npy"]))
    layer = content.project.layers[0]
    expected = torch.stack([layer.weight @ v + layer.bias for v in vectors])
    torch.testing.assert_close(content(features.gather(ALL)), expected)
    assert count(content) == 5 * HIDDEN + HIDDEN


def test_units_are_hidden_layers(features_of, stored):
    content, _, features = make(features_of, "vector", file=stored["npy"], units=[6, 3])
    first, second, last = (m for m in content.project.layers if hasattr(m, "weight"))
    rows = []
    for v in torch.from_numpy(np.load(stored["npy"])):
        inner = F.relu(second.weight @ F.relu(first.weight @ v + first.bias) + second.bias)
        rows.append(last.weight @ inner + last.bias)
    torch.testing.assert_close(content(features.gather(ALL)), torch.stack(rows))


def test_frozen_vectors_are_themselves_and_train_nothing(features_of, stored):
    content, _, features = make(features_of, "vector", size=5, file=stored["npy"], use="frozen")
    assert count(content) == 0
    assert torch.equal(content(features.gather(ALL)), torch.from_numpy(np.load(stored["npy"])))
    with pytest.raises(InputError, match=r"frozen vectors are 5 wide.*set hidden_size: 5"):
        make(features_of, "vector", file=stored["npy"], use="frozen")
    assert "has no layers" in problems_of("vector", file=stored["npy"], use="frozen", units=[4])


@pytest.mark.parametrize("size", [5, HIDDEN])
def test_tuned_vectors_start_as_they_are_stored_and_move(features_of, stored, size):
    content, recipe, features = make(
        features_of, "vector", size=size, moved=False, file=stored["parquet"], use="tuned"
    )
    assert isinstance(recipe.parts[0], IdRecipe)
    assert isinstance(recipe.parts[1], VectorRecipe)
    vectors = torch.from_numpy(np.load(stored["npy"]))
    inputs = features.gather(ALL)
    torch.testing.assert_close(content(inputs), content.project(vectors))
    assert count(content) == (N + 1) * 5 + (0 if size == 5 else 5 * size + size)
    optimizer = torch.optim.Adam(content.parameters(), lr=0.1)
    content(features.gather(ALL[:2])).square().sum().backward()
    optimizer.step()
    moved = (content.table.weight[1:] - vectors).abs().sum(dim=1) > 0
    assert moved.tolist() == [True, True] + [False] * (N - 2)
    # a new item has no row: it keeps the vector that it comes with
    new = Joined((torch.zeros(2, dtype=torch.int64), vectors[:2]))
    torch.testing.assert_close(content(new), content.project(vectors[:2]))


def test_a_tuned_vector_of_a_model_scores_new_texts(features_of, tiny, tmp_path):
    content, recipe, features = make(
        features_of, "vector", moved=False, model=tiny, length=8, use="tuned"
    )
    features.save_assets(tmp_path)
    new = features_of_texts(recipe, tmp_path, ITEMS)
    torch.testing.assert_close(content(new.gather(ALL)), content(features.gather(ALL)))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "exactly one of file, model must be given, found none of them"),
        ({"file": "/x.npy", "model": "minilm"}, "found file and model"),
        ({"file": "x.npy"}, "is a relative path; workers run elsewhere: write /"),
        ({"file": "/nowhere/x.npy"}, "no such file"),
        ({"file": "/nowhere/x.pkl"}, "expected .npy, .parquet, .safetensors"),
        ({"file": "$NO_SUCH_VARIABLE/x.npy"}, "needs the environment variable NO_SUCH_VARIABLE"),
        ({"model": "minilmm"}, "did you mean 'minilm'"),
        ({"model": "minilm", "length": 1000}, "reads 512 tokens"),
        ({"model": "minilm", "template": "{title"}, "not well formed"),
    ],
)
def test_settings_of_vectors_that_cannot_be(settings, said):
    assert said in problems_of("vector", **settings)
    if "exactly" in said or "found" in said:
        part, config = parse_part("content", {"name": "vector", **settings})
        with pytest.raises(InputError, match="exactly one"):
            part.recipe(config, TEXT)


def test_paths_may_begin_with_a_variable_or_the_home_folder(monkeypatch):
    monkeypatch.setenv("VECTORS", "/data/v")
    monkeypatch.setenv("HOME", "/home/me")
    assert absolute("$VECTORS/x.npy") == "/data/v/x.npy"
    assert absolute("~/x.npy") == "/home/me/x.npy"


# --- semantic-id ---


def test_a_semantic_id_is_the_sum_of_its_codes_embeddings(features_of, stored):
    content, _, features = make(features_of, "semantic-id", file=stored["codes"], levels=2, codes=3)
    codes = features.gather(ALL)
    expected = []
    for row in codes.tolist():
        total = torch.zeros(HIDDEN)
        for level, code in enumerate(row):
            total = total + content.tables[level].weight[code]
        expected.append(total)
    torch.testing.assert_close(content(codes), torch.stack(expected))
    assert count(content) == 2 * (3 + 1) * HIDDEN
    same = (codes[:, None] == codes[None]).all(dim=-1)
    vectors = content(codes)
    assert torch.equal(torch.cdist(vectors, vectors) < 1e-6, same)


def test_settings_of_codes_that_cannot_be(stored):
    both = problems_of("semantic-id", file=stored["codes"], vectors=stored["npy"])
    assert "exactly one of file, vectors, model must be given, found file and vectors" in both
    assert "expected .parquet" in problems_of("semantic-id", file=stored["npy"])
    assert "vectors 'v.npy' is a relative path" in problems_of("semantic-id", vectors="v.npy")


# --- iisan ---


@pytest.mark.parametrize("layers", ["all", "even", 2, 5])
def test_iisan_is_its_recursion(features_of, tiny, layers):
    content, _, features = make(
        features_of, "iisan", model=tiny, length=8, layers=layers, adapter_size=3
    )
    states = features.gather(ALL).float()
    chosen = {"all": [0, 1, 2], "even": [0, 2], 2: [0, 2], 5: [0, 2]}[layers]
    assert content.chosen == chosen

    def block(number, x):
        own = content.blocks[number]
        inner = own.down.weight @ x + own.down.bias
        inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        return x + own.up.weight @ inner + own.up.bias

    rows = []
    for item in states:
        side = block(0, item[chosen[0]])
        for i, layer in enumerate(chosen[1:]):
            share = 1 / (1 + math.exp(-content.gates[i].item()))
            side = block(i + 1, share * side + (1 - share) * item[layer])
        rows.append(content.project.weight @ side + content.project.bias)
    torch.testing.assert_close(content(states), torch.stack(rows), atol=1e-5, rtol=1e-5)
    blocks = len(chosen)
    per_block = 16 * 3 + 3 + 3 * 16 + 16
    assert count(content) == blocks * per_block + blocks - 1 + 16 * HIDDEN + HIDDEN


def test_the_last_layer_is_always_among_the_chosen():
    assert chosen_layers("all", 4) == [0, 1, 2, 3]
    assert chosen_layers("even", 7) == [0, 2, 4, 6]
    assert chosen_layers("even", 4) == [0, 2, 3]
    assert chosen_layers(3, 5) == [0, 3, 4]


def test_a_new_side_network_starts_close_to_the_mean_of_gates(features_of, tiny):
    content, _, features = make(features_of, "iisan", moved=False, model=tiny, length=8)
    states = features.gather(ALL).float()
    side = states[:, 0]
    for layer in (1, 2):
        side = (side + states[:, layer]) / 2
    torch.testing.assert_close(content(states), content.project(side), atol=0.1, rtol=0)


# --- hybrid ---


def test_hybrid_is_gated_per_dimension(features_of):
    content, _, features = make(features_of, "hybrid", text={"name": "cnn", "min_count": 1})
    inputs = features.gather(ALL)
    text = content.text(inputs.parts[0])
    rows = []
    for t, item in zip(text, ALL, strict=True):
        e = content.table.weight[item]
        g = torch.sigmoid(content.gate.weight @ torch.cat([t, e]) + content.gate.bias)
        rows.append(torch.stack([g[d] * t[d] + (1 - g[d]) * e[d] for d in range(HIDDEN)]))
    torch.testing.assert_close(content(inputs), torch.stack(rows))
    own = count(content) - count(content.text)
    assert own == (N + 1) * HIDDEN + 2 * HIDDEN * HIDDEN + HIDDEN


def test_items_that_were_never_met_are_like_new_ones(features_of, tmp_path):
    content, recipe, features = make(
        features_of, "hybrid", moved=False, text={"name": "cnn", "min_count": 1}
    )
    optimizer = torch.optim.AdamW(content.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        content(features.gather(ALL[:3])).square().sum().backward()
        optimizer.step()
    assert (content.table.weight[0] == 0).all()
    features.save_assets(tmp_path)
    new = features_of_texts(recipe, tmp_path, ITEMS).gather(ALL)
    assert new.parts[1].tolist() == [0] * N
    found, known = content(new), content(features.gather(ALL))
    assert torch.equal(found[3:], known[3:])  # never trained on
    assert not torch.allclose(found[:3], known[:3])


def test_a_language_model_inside_keeps_its_own_ways(features_of, tiny):
    settings = {"model": tiny, "split": 1, "length": 16}
    for name, nested in [
        ("hybrid", {"text": {"name": "llm", **settings}}),
        ("views", {"encoder": {"name": "llm", **settings}}),
        ("hybrid", {"text": {"name": "views", "encoder": {"name": "llm", **settings}}}),
    ]:
        content, _, features = make(features_of, name, **nested)
        own = content.encoder_parameters()
        lora = [p for n, p in content.named_parameters() if ".lora_" in n]
        assert {id(p) for p in own} == {id(p) for p in lora}
        assert len(lora) >= 4
        state = content.saved_state()
        frozen = [n for n, p in content.named_parameters() if not p.requires_grad]
        assert len(frozen) > 10
        trained = [p for p in content.parameters() if p.requires_grad]
        assert sum(t.numel() for t in state.values()) == sum(p.numel() for p in trained)
        other, _, _ = make(features_of, name, **nested)
        inputs = features.gather(ALL)
        assert not torch.allclose(content(inputs), other(inputs))
        other.load_saved_state({key: value.clone() for key, value in state.items()})
        assert torch.equal(content(inputs), other(inputs))
        with pytest.raises(ValueError, match="missing"):
            other.load_saved_state({k: v for k, v in state.items() if "project" not in k})
        with pytest.raises(ValueError, match="unexpected"):
            other.load_saved_state({**state, "strange": torch.zeros(1)})


def test_a_nested_models_problems_are_told_with_their_place():
    said = problems_of("hybrid", text={"name": "cnnn"})
    assert "text: there is no content operator 'cnnn'" in said
    said = problems_of("hybrid", text={"name": "llm", "model": "minilm", "length": 9999})
    assert "text: length 9999: minilm reads 512 tokens" in said
    assert "filterz" in problems_of("views", encoder={"name": "cnn", "filterz": 3})
    said = problems_of("views", encoder={"name": "attention", "heads": 3})
    assert said.startswith("encoder: heads 3 do not divide hidden_size 8")
    config = ModelConfig(
        hidden_size=HIDDEN,
        content={"name": "hybrid", "text": {"name": "attention", "heads": 3}},
        behavior={"name": "pooling"},
        predictor={"name": "dot"},
    )
    assert "text: heads 3" in str(check(config)[0])


# --- views ---


def test_views_are_naml(features_of):
    """Each text alone through its encoder, categories by ReLU, additive attention by loops."""
    content, _, features = make(
        features_of,
        "views",
        encoder={"name": "cnn", "min_count": 1, "embedding_size": 6},
        categories=["abstract"],
        category_size=5,
        attention_size=7,
    )
    inputs = features.gather(ALL)
    pool, rows = content.pool, []
    for item in range(N):
        views = []
        for encode, tokens in zip(content.encoders, inputs.parts[:2], strict=True):
            ids = tokens.ids[item][tokens.mask[item]]
            if len(ids):
                row = ids[None]
                alone = Tokens(row, torch.ones_like(row, dtype=torch.bool), row * 0)
                views.append(encode(alone)[0])
        code = inputs.parts[2][item, 0]
        if code:
            layer = content.category[0]
            views.append(F.relu(layer.weight @ content.tables[0].weight[code] + layer.bias))
        layer, query = pool.project, pool.query.weight[0]
        energies = [torch.exp(query @ torch.tanh(layer.weight @ v + layer.bias)) for v in views]
        total = sum((e * v for e, v in zip(energies, views, strict=True)), torch.zeros(HIDDEN))
        rows.append(total / sum(energies) if views else total)
    torch.testing.assert_close(content(inputs), torch.stack(rows), atol=1e-5, rtol=1e-5)


def test_words_are_shared_by_the_views_and_saved_once(features_of):
    encoder = {"name": "cnn", "min_count": 1, "embedding_size": 6, "attention_size": 4}
    content, recipe, features = make(features_of, "views", encoder=encoder, attention_size=7)
    words = features.sizes.parts[0].vocabulary
    assert recipe.parts[0].vocabulary == TEXT
    assert content.encoders[0].embed is content.encoders[1].embed
    one = HIDDEN * 6 * 3 + HIDDEN + (HIDDEN * 4 + 4) + 4  # convolution, attention
    views = HIDDEN * 7 + 7 + 7
    assert count(content) == words * 6 + 2 * one + views
    assert sum(t.numel() for t in content.saved_state().values()) == count(content)


def test_a_view_does_not_see_the_others(features_of):
    content, _, features = make(
        features_of, "views", encoder={"name": "cnn", "min_count": 1}, categories=["title"]
    )
    inputs = features.gather(ALL)
    before = [encode(own) for encode, own in zip(content.encoders, inputs.parts[:2], strict=True)]
    changed = copy.deepcopy(inputs.parts[1])
    changed.ids[changed.mask] = 1
    after = [
        encode(own)
        for encode, own in zip(content.encoders, (inputs.parts[0], changed), strict=True)
    ]
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1])


def test_a_single_view_has_no_attention_and_is_the_view(features_of):
    content, _, features = make(
        features_of, "views", encoder={"name": "cnn", "min_count": 1}, attributes=["title"]
    )
    inputs = features.gather(ALL)
    assert content.pool is None
    own = content.encoders[0](inputs.parts[0])
    own[~inputs.parts[0].mask.any(dim=1)] = 0
    torch.testing.assert_close(content(inputs), own)


@pytest.mark.parametrize("encoder", ["vector", "iisan", "semantic-id", "llm", "pooling", "gru"])
def test_many_operators_can_encode_a_view(features_of, tiny, encoder):
    settings = {} if encoder in ("pooling", "gru") else {"model": tiny, "length": 8}
    if encoder == "semantic-id":
        settings |= {"levels": 2, "codes": 3}
    content, _, features = make(features_of, "views", encoder={"name": encoder, **settings})
    vectors = content(features.gather(ALL))
    assert vectors.shape == (N, HIDDEN)
    assert torch.isfinite(vectors).all()


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        ({"name": "id"}, "encoder 'id' does not read one attribute's text"),
        ({"name": "hybrid"}, "does not read one attribute's text"),
        ({"name": "cnn", "attributes": ["title"]}, "encoder.attributes is set by views"),
        ({"name": "llm", "template": "{title}"}, "encoder.template is set by views"),
    ],
)
def test_encoders_that_cannot_encode_a_view(encoder, said):
    assert said in problems_of("views", encoder=encoder)


def test_a_vectors_file_cannot_encode_a_view(stored):
    said = problems_of("views", encoder={"name": "vector", "file": stored["npy"]})
    assert "does not read one attribute's text" in said


def test_a_whole_model_is_saved_and_loaded_with_shared_words(features_of):
    content = {"name": "views", "encoder": {"name": "cnn", "min_count": 1}}
    config = ModelConfig(
        hidden_size=HIDDEN,
        content=content,
        behavior={"name": "pooling"},
        predictor={"name": "dot"},
    )
    part, settings = parse_part("content", content)
    features = features_of(part.recipe(settings, TEXT))
    shape = Shape(HIDDEN, N + 1, input=features.sizes)
    first, second = (perturb(build_recommender(config, shape)).eval() for _ in range(2))
    state = model_state(first)
    assert sum(".embed." in key for key in state) == 1
    load_state(second, state)
    inputs = features.gather(ALL)
    assert torch.equal(first.encode_items(inputs), second.encode_items(inputs))


# --- new items ---

SCORING = [
    {"name": "vector", "model": "<tiny>", "length": 8, "use": "tuned"},
    {"name": "iisan", "model": "<tiny>", "length": 8},
    {"name": "semantic-id", "model": "<tiny>", "length": 8, "levels": 2, "codes": 3},
    {"name": "views", "encoder": {"name": "cnn", "min_count": 1}, "categories": ["title"]},
    {"name": "hybrid", "text": {"name": "llm", "model": "<tiny>", "split": 1, "length": 16}},
    {"name": "hybrid", "text": {"name": "views", "encoder": {"name": "cnn", "min_count": 1}}},
]


def saved_model(features_of, folder, content):
    """A model with this content operator, in evaluation mode, and its inputs; saved."""
    parts = {"behavior": {"name": "pooling"}, "predictor": {"name": "dot"}}
    config = ModelConfig(hidden_size=HIDDEN, content=content, **parts)
    recipes = recipes_of(config, TEXT)
    inputs = Inputs(features_of(recipes.items))
    model, shape = new_model(config, inputs, max_history=5, seed=1)
    told = {"config": config, "shape": shape, "recipes": recipes, "inputs": inputs}
    save_model(folder, model.eval(), **told, extra={})
    return model, inputs


@pytest.mark.parametrize("content", SCORING, ids=lambda content: content["name"])
def test_a_saved_model_scores_new_texts_as_it_would_known_ones(
    features_of, tiny, tmp_path, content
):
    model, inputs = saved_model(features_of, tmp_path / "best", filled(content, tiny))
    found = Scorer(tmp_path / "best").score([[ITEMS[0], ITEMS[4]]], [ITEMS])
    with torch.no_grad():  # numbers are zeros before training, as they are for new items
        table = model.encode_items(inputs.items.gather(ALL))
        user = table[[0, 4]].mean(dim=0)
    np.testing.assert_allclose(found[0], (table @ user).numpy(), atol=1e-5)


@pytest.mark.parametrize("use", ["projected", "tuned"])
def test_a_saved_model_of_a_file_says_that_it_cannot(features_of, stored, tmp_path, use):
    content = {"name": "vector", "file": stored["npy"], "use": use}
    saved_model(features_of, tmp_path / "best", content)
    with pytest.raises(InputError, match="cannot score"):
        Scorer(tmp_path / "best").score([[ITEMS[0]]], [ITEMS])
