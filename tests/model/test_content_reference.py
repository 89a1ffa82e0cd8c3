"""Content operators against independent computations, one unpadded item at a time."""

from __future__ import annotations

import math

import pytest
import torch
from model_cases import HIDDEN, N, perturb
from torch.nn import functional as F

from legoray.data.recipes import TokenRecipe
from legoray.model.base import Shape
from legoray.model.registry import parse_part

ALL = torch.arange(1, N + 1)
RECIPE = TokenRecipe("words", ("title", "abstract"), 8, 1)


@pytest.fixture
def features(features_of):
    return features_of(RECIPE)


def make(features, name, **settings):
    part, config = parse_part("content", {"name": name, "min_count": 1, "length": 8, **settings})
    assert part.recipe(config, ("title", "abstract")) == RECIPE
    shape = Shape(HIDDEN, features.item_count, input=features.sizes)
    return perturb(part(config, shape)).eval()


def each_item(features, reference):
    """The reference's vectors, from the true tokens (and their attributes) of one item each."""
    tokens = features.gather(ALL)
    rows = [
        reference(ids[mask], attribute[mask])
        for ids, mask, attribute in zip(tokens.ids, tokens.mask, tokens.attribute, strict=True)
    ]
    return torch.stack(rows)


def additive(values, layer):
    """Additive attention by a loop over the values."""
    if not len(values):
        return torch.zeros(values.shape[1])
    weight, bias, query = layer.project.weight, layer.project.bias, layer.query.weight[0]
    energies = [torch.exp(query @ torch.tanh(weight @ v + bias)) for v in values]
    return sum(e / sum(energies) * v for e, v in zip(energies, values, strict=True))


def heads_by_loop(values, layer):
    """Multi-head self-attention by loops over heads and positions."""
    width = layer.query.out_features // layer.heads
    rows = []
    for x in values:
        joined = []
        for head in range(layer.heads):
            part = slice(head * width, (head + 1) * width)
            q = layer.query.weight[part] @ x + layer.query.bias[part]
            keys = values @ layer.key.weight[part].T
            weights = torch.softmax(keys @ q / math.sqrt(width), dim=0)
            joined.append(weights @ (values @ layer.value.weight[part].T + layer.value.bias[part]))
        rows.append(torch.cat(joined))
    return torch.stack(rows) if rows else torch.zeros(0, layer.query.out_features)


@pytest.mark.parametrize("combine", ["mean", "concat", "sum"])
@pytest.mark.parametrize("pool", ["mean", "max"])
def test_pooling(features, pool, combine):
    content = make(features, "pooling", pool=pool, combine=combine, embedding_size=6)

    def reference(ids, attribute):
        pooled = []
        for number in (0, 1):
            words = content.embed.table.weight[ids[attribute == number]]
            if len(words):
                pooled.append(words.mean(0) if pool == "mean" else words.max(0).values)
            elif combine != "mean":
                pooled.append(torch.zeros(6))
        if combine == "concat":
            joined = torch.cat(pooled)
        else:
            joined = sum(pooled, torch.zeros(6))
            joined = joined / max(len(pooled), 1) if combine == "mean" else joined
        return content.project.weight @ joined + content.project.bias

    torch.testing.assert_close(content(features.gather(ALL)), each_item(features, reference))


@pytest.mark.parametrize(("kernel_size", "filters"), [(3, None), (5, 6), (4, None), (1, 3)])
def test_cnn(features, kernel_size, filters):
    content = make(features, "cnn", kernel_size=kernel_size, filters=filters)

    def reference(ids, attribute):
        words = content.embed.table.weight[ids]
        before = (kernel_size - 1) // 2
        padded = F.pad(words.T, (before, kernel_size - 1 - before))
        if len(ids):
            convolved = F.conv1d(padded[None], content.convolve.weight, content.convolve.bias)[0].T
        else:
            convolved = torch.zeros(0, content.convolve.out_channels)
        return content.project(additive(torch.relu(convolved), content.pool))

    found = content(features.gather(ALL))
    torch.testing.assert_close(found, each_item(features, reference), atol=1e-5, rtol=1e-5)


def test_attention(features):
    content = make(features, "attention", heads=2, embedding_size=6)

    def reference(ids, attribute):
        words = content.embed.table.weight[ids]
        return additive(heads_by_loop(words, content.mix), content.pool)

    found = content(features.gather(ALL))
    torch.testing.assert_close(found, each_item(features, reference), atol=1e-5, rtol=1e-5)


def test_id():
    part, config = parse_part("content", {"name": "id", "embedding_size": 5})
    content = perturb(part(config, Shape(HIDDEN, N + 1)))
    expected = [
        content.project.weight @ content.table.weight[i] + content.project.bias for i in ALL
    ]
    torch.testing.assert_close(content(ALL), torch.stack(expected))


@pytest.mark.parametrize("name", ["pooling", "cnn", "attention"])
def test_first_vectors_differ_between_items_yet_are_not_large(features, name):
    part, config = parse_part("content", {"name": name, "min_count": 1, "length": 8})
    content = part(config, Shape(64, N + 1, input=features.sizes)).eval()
    vectors = content(features.gather(torch.tensor([1, 2, 5, 8, 9]))).detach()
    assert 0.02 < float(vectors.std(dim=0).mean()) < 1
    assert float(vectors.abs().max()) < 3


def test_dropout_acts_in_training_only(features):
    content = make(features, "cnn", dropout=0.5)
    inputs = features.gather(ALL)
    assert torch.equal(content(inputs), content(inputs))
    content.train()
    assert not torch.equal(content(inputs), content(inputs))


@pytest.mark.parametrize("name", ["cnn", "attention"])
def test_many_items_are_encoded_by_length_as_if_they_were_not(features, name):
    content = make(features, name)
    items = torch.randint(1, N + 1, (400,))
    few = content(features.gather(ALL))
    torch.testing.assert_close(content(features.gather(items)), few[items - 1])
