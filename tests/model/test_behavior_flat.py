"""Behavior operators that read a whole history as one text, against loops over its tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from model_cases import HIDDEN, N, histories, past
from test_behavior_more import (
    ADDITIVE,
    FASTFORMER,
    TRANSFORMER,
    D,
    H,
    make,
    size_of,
)
from test_content_reference import additive

from legoray.model.behavior.flat import flatten
from legoray.model.registry import parse_part

ALL = torch.arange(1, N + 1)
FLAT = ["flatten-transformer", "flatten-fastformer"]
ZERO = torch.zeros(HIDDEN)


def opened(features_of, name, **settings):
    """An operator on a flattened history of the small data set, and the history."""
    settings = {"min_count": 1, "length": 4, "embedding_size": 6, "heads": 2, **settings}
    part, config = parse_part("behavior", {"name": name, **settings})
    features = features_of(part.recipe(config, ("title", "abstract")))
    operator = make(name, features, **settings)
    return operator, past(*histories(), features.gather(ALL))


def flat_by_loop(history, b):
    """`(id, place in its item, age of its item)` of each token of a user, oldest item first."""
    numbers = [int(n) for n, there in zip(history.items[b], history.mask[b], strict=True) if there]
    found = []
    for spot, number in enumerate(numbers):
        ids = history.inputs.ids[number - 1][history.inputs.mask[number - 1]].tolist()
        found += [(word, n, len(numbers) - spot) for n, word in enumerate(ids, start=1)]
    return found


def test_a_flattened_history_has_all_its_tokens_in_order_and_no_padding(features_of):
    _, history = opened(features_of, FLAT[0])
    ids, places, age, count = flatten(history)
    expected = [flat_by_loop(history, b) for b in range(4)]
    assert count.tolist() == [len(tokens) for tokens in expected]
    assert 3 in history.items[0]  # an item without any text
    for b, tokens in enumerate(expected):
        triples = torch.stack([ids[b], places[b], age[b]], dim=1)
        assert [tuple(t) for t in triples[: len(tokens)].tolist()] == tokens
        assert (triples[len(tokens) :] == 0).all()


@pytest.mark.parametrize("embedding_size", [6, HIDDEN])
@pytest.mark.parametrize("name", FLAT)
def test_flattened(features_of, name, embedding_size):
    operator, history = opened(features_of, name, embedding_size=embedding_size, layers=2)
    flat = operator.flat
    expected = []
    for b in range(4):
        tokens = flat_by_loop(history, b)
        values = [
            flat.project(flat.embed.table.weight[word])
            + flat.places.weight[place]
            + flat.ages.weight[age]
            for word, place, age in tokens
        ]
        if not values:
            expected.append(ZERO)
            continue
        mixed = flat.mix(torch.stack(values)[None], torch.ones(1, len(values)).bool())
        expected.append(additive(mixed[0], flat.pool))
    torch.testing.assert_close(
        operator(history).values, torch.stack(expected), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("name", FLAT)
def test_a_flattened_history_has_its_order_and_needs_its_items(features_of, name):
    operator, history = opened(features_of, name)
    found = operator(history).values
    items = history.items.clone()
    items[0, :2] = items[0, :2].flip(0)
    assert not torch.allclose(operator(replace(history, items=items)).values[0], found[0])
    assert (found[2] == 0).all()
    for lacking in (replace(history, items=None), replace(history, inputs=None)):
        with pytest.raises(ValueError, match="reads tokens"):
            operator(lacking)


@pytest.mark.parametrize("name", FLAT)
def test_a_history_of_items_without_text_gives_zeros(features_of, name):
    operator, history = opened(features_of, name)
    silent = replace(history, items=torch.full_like(history.items, 3))
    assert (operator(silent).values == 0).all()
    # not one token in the whole batch
    nothing = type(history.inputs)(*(part[2:3, :0] for part in (silent.tokens().ids,) * 3))
    nothing = replace(nothing, mask=nothing.mask.bool())
    none = replace(silent, inputs=nothing, items=torch.ones_like(silent.items))
    assert (operator(none).values == 0).all()


@pytest.mark.parametrize("name", FLAT)
def test_a_flattened_history_starts_from_word_vectors_when_asked(features_of, tmp_path, name):
    file = tmp_path / "vectors.txt"
    file.write_text("rain 0.25 -1.5 0.75 2.0\ngoal 1.0 0.0 -0.5 0.125\n")
    settings = {"name": name, "min_count": 1, "length": 4, "embedding_size": 4}
    settings["embeddings"] = {"file": str(file)}
    part, config = parse_part("behavior", settings)
    features = features_of(part.recipe(config, ("title", "abstract")))
    operator = make(features=features, **settings)
    operator.start_from(features)
    row = features.tokenizer.token_to_id("goal")
    assert operator.flat.embed.table.weight[row].tolist() == [1.0, 0.0, -0.5, 0.125]
    history = past(*histories(), features.gather(ALL))
    assert torch.isfinite(operator(history).values).all()


@pytest.mark.parametrize("name", FLAT)
def test_parameters_of_flattened_operators(features_of, name):
    operator, _ = opened(features_of, name, inner_size=12)
    vocabulary = operator.flat.embed.table.num_embeddings
    tables = vocabulary * 6 + 6 * D + D + (2 * 4 + 1) * D + (H + 1) * D
    layers = TRANSFORMER if name == "flatten-transformer" else FASTFORMER
    assert size_of(operator) == tables + layers + 2 * D + ADDITIVE
