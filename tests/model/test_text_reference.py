"""The text operators beyond the basic ones, against loops over one unpadded item at a time."""

from __future__ import annotations

import math

import pytest
import torch
from model_cases import HIDDEN, N, perturb
from torch import nn

from legoray.data.recipes import TokenRecipe, Tokens
from legoray.model.base import Shape
from legoray.model.registry import parse_part

ALL = torch.arange(1, N + 1)
RECIPE = TokenRecipe("words", ("title", "abstract"), 8, 1)
SMALL = {"transformer": {"heads": 2}, "fastformer": {"heads": 2}}
NAMES = ["weighted-pooling", "cnn-concat", "multi-kernel-cnn", "additive", "gru"]
NAMES += ["transformer", "fastformer"]


@pytest.fixture
def features(features_of):
    return features_of(RECIPE)


def make(features, name, **settings):
    part, config = parse_part("content", {"name": name, "min_count": 1, "length": 8, **settings})
    assert part.recipe(config, ("title", "abstract")) == RECIPE
    shape = Shape(HIDDEN, features.item_count, input=features.sizes)
    return perturb(part(config, shape)).eval()


def check(features, content, reference):
    """`content` gives each item what `reference` makes of its true tokens and their attributes."""
    tokens = features.gather(ALL)
    found = content(tokens)
    for n in range(N):
        mask = tokens.mask[n]
        expected = reference(tokens.ids[n][mask], tokens.attribute[n][mask])
        torch.testing.assert_close(found[n], expected, atol=2e-5, rtol=1e-5)


def words_of(content, ids):
    return [content.embed.table.weight[i] for i in ids]


def linear(layer, x):
    return layer.weight @ x + layer.bias


def additive(values, layer, size):
    """Additive attention by a loop over the values."""
    if not values:
        return torch.zeros(size)
    query = layer.query.weight[0]
    energies = [torch.exp(query @ torch.tanh(linear(layer.project, v))) for v in values]
    return sum(e / sum(energies) * v for e, v in zip(energies, values, strict=True))


def windows(values, layer, starts):
    """ReLU of a convolution for windows that begin at `starts`; zeros beyond the ends."""
    width = layer.weight.shape[2]
    found = []
    for start in starts:
        total = layer.bias.clone()
        for step in range(width):
            if 0 <= start + step < len(values):
                total = total + layer.weight[:, :, step] @ values[start + step]
        found.append(total.clamp(min=0))
    return found


@pytest.mark.parametrize("combine", ["mean", "concat", "sum"])
@pytest.mark.parametrize("weights", ["softmax", "softplus"])
def test_weighted_pooling(features, weights, combine):
    content = make(features, "weighted-pooling", weights=weights, combine=combine, embedding_size=6)

    def share(score):
        return math.exp(score) if weights == "softmax" else math.log(1 + math.exp(score))

    def reference(ids, attribute):
        pooled = []
        for number in (0, 1):
            own = ids[attribute == number].tolist()
            raw = [share(float(content.weight.weight[i, 0].detach())) for i in own]
            if own:
                pairs = zip(raw, words_of(content, own), strict=True)
                pooled.append(sum(w / sum(raw) * e for w, e in pairs))
            elif combine != "mean":
                pooled.append(torch.zeros(6))
        joined = torch.cat(pooled) if combine == "concat" else sum(pooled, torch.zeros(6))
        if combine == "mean":
            joined = joined / max(len(pooled), 1)
        return linear(content.project, joined)

    check(features, content, reference)


def test_weighted_pooling_starts_as_the_mean_and_weighs_words_after(features):
    part, config = parse_part("content", {"name": "weighted-pooling", "min_count": 1, "length": 8})
    content = part(config, Shape(HIDDEN, N + 1, input=features.sizes)).eval()
    tokens = Tokens(
        torch.tensor([[2, 3, 2]]), torch.ones(1, 3, dtype=torch.bool), torch.zeros(1, 3).long()
    )
    table = content.embed.table.weight
    expected = linear(content.project, (2 * table[2] + table[3]) / 3)
    torch.testing.assert_close(content(tokens)[0], expected)
    with torch.no_grad():
        content.weight.weight[3] = math.log(2)  # twice the weight of the others
    expected = linear(content.project, (2 * table[2] + 2 * table[3]) / 4)
    torch.testing.assert_close(content(tokens)[0], expected)


@pytest.mark.parametrize("weights", ["softmax", "softplus"])
def test_weighted_pooling_is_finite_at_extreme_weights(features, weights):
    content = make(features, "weighted-pooling", weights=weights)
    for extreme in (-300.0, 300.0):
        with torch.no_grad():
            content.weight.weight.fill_(extreme)
        content.zero_grad()
        vectors = content(features.gather(ALL))
        vectors.sum().backward()
        assert torch.isfinite(vectors).all()
        assert all(torch.isfinite(p.grad).all() for p in content.parameters())


@pytest.mark.parametrize(("kernel_size", "filters"), [(3, None), (5, 6), (4, 3), (1, None)])
def test_cnn_concat(features, kernel_size, filters):
    content = make(features, "cnn-concat", kernel_size=kernel_size, filters=filters)
    before = (kernel_size - 1) // 2

    def reference(ids, attribute):
        views = []
        for number in (0, 1):
            words = words_of(content, ids[attribute == number])
            layer = content.convolve[number]
            contexts = windows(words, layer, [n - before for n in range(len(words))])
            views.append(additive(contexts, content.pool[number], filters or HIDDEN))
        return linear(content.project, torch.cat(views))

    check(features, content, reference)


def test_cnn_concat_keeps_the_attributes_apart(features):
    content = make(features, "cnn-concat")
    mask = torch.ones(1, 4, dtype=torch.bool)
    attribute = torch.tensor([[0, 0, 1, 1]])
    with torch.no_grad():
        content.project.weight[:, HIDDEN:] = 0  # of the two halves, only the title's is left
    one = content(Tokens(torch.tensor([[2, 3, 4, 5]]), mask, attribute))
    two = content(Tokens(torch.tensor([[2, 3, 7, 8]]), mask, attribute))
    torch.testing.assert_close(one, two, atol=0, rtol=0)


@pytest.mark.parametrize("sizes", [[3, 4, 5], [1], [2, 9]])
def test_multi_kernel_cnn(features, sizes):
    content = make(features, "multi-kernel-cnn", kernel_sizes=sizes, filters=7)

    def reference(ids, attribute):
        words = words_of(content, ids)
        strongest = []
        for width, layer in zip(sizes, content.convolve, strict=True):
            found = windows(words, layer, range(max(len(words) - width, 0) + 1)) if words else []
            strongest.append(torch.stack(found).amax(0) if found else torch.zeros(7))
        return linear(content.project, torch.cat(strongest))

    check(features, content, reference)


def test_multi_kernel_cnn_reads_no_window_that_reaches_beyond_the_text(features):
    content = make(features, "multi-kernel-cnn", kernel_sizes=[2], filters=1, embedding_size=1)
    with torch.no_grad():  # the difference of neighbours: after the last word it would be large
        content.convolve[0].weight.copy_(torch.tensor([[[1.0, -1.0]]]))
        content.convolve[0].bias.zero_()
        content.embed.table.weight[2:5] = torch.tensor([[1.0], [2.0], [9.0]])
        content.project.weight.fill_(1.0)
        content.project.bias.zero_()
    tokens = Tokens(
        torch.tensor([[2, 3, 4, 0], [4, 0, 0, 0]]),
        torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]], dtype=torch.bool),
        torch.zeros(2, 4).long(),
    )
    assert content(tokens)[:, 0].tolist() == [0.0, 9.0]  # one word alone is filled up with zeros


@pytest.mark.parametrize("size", [6, HIDDEN])
def test_additive(features, size):
    content = make(features, "additive", embedding_size=size)
    assert isinstance(content.project, nn.Identity) == (size == HIDDEN)

    def reference(ids, attribute):
        pooled = additive(words_of(content, ids), content.pool, size)
        return pooled if size == HIDDEN else linear(content.project, pooled)

    check(features, content, reference)


@pytest.mark.parametrize("pool", ["last", "additive"])
def test_gru(features, pool):
    content = make(features, "gru", pool=pool, embedding_size=6)
    gru = content.gru

    def reference(ids, attribute):
        state, states = torch.zeros(HIDDEN), []
        for x in words_of(content, ids):
            own = (gru.weight_ih_l0 @ x + gru.bias_ih_l0).chunk(3)
            old = (gru.weight_hh_l0 @ state + gru.bias_hh_l0).chunk(3)
            reset, update = torch.sigmoid(own[0] + old[0]), torch.sigmoid(own[1] + old[1])
            state = (1 - update) * torch.tanh(own[2] + reset * old[2]) + update * state
            states.append(state)
        return state if pool == "last" else additive(states, content.pool, HIDDEN)

    check(features, content, reference)


def encoder_of(layers, config_layers):
    """torch's own encoder with the same weights."""
    own = nn.TransformerEncoderLayer(
        HIDDEN, 2, 4 * HIDDEN, dropout=0.0, batch_first=True, norm_first=True
    )
    encoder = nn.TransformerEncoder(own, config_layers, enable_nested_tensor=False)
    with torch.no_grad():
        for mine, theirs in zip(layers.layers, encoder.layers, strict=True):
            query, key, value = mine.attend.query, mine.attend.key, mine.attend.value
            theirs.self_attn.in_proj_weight.copy_(
                torch.cat([query.weight, key.weight, value.weight])
            )
            theirs.self_attn.in_proj_bias.copy_(
                torch.cat([query.bias, torch.zeros(HIDDEN), value.bias])
            )
            theirs.self_attn.out_proj.load_state_dict(mine.attend.output.state_dict())
            theirs.linear1.load_state_dict(mine.feed_forward.layers[0].state_dict())
            theirs.linear2.load_state_dict(mine.feed_forward.layers[-1].state_dict())
            theirs.norm1.load_state_dict(mine.attend_norm.state_dict())
            theirs.norm2.load_state_dict(mine.feed_norm.state_dict())
    return encoder.eval()


@pytest.mark.parametrize(("pool", "size"), [("additive", 6), ("mean", HIDDEN)])
def test_transformer(features, pool, size):
    content = make(features, "transformer", heads=2, pool=pool, embedding_size=size)
    encoder = encoder_of(content.layers, 2)
    positions = content.positions.table.weight

    def reference(ids, attribute):
        if not len(ids):
            return torch.zeros(HIDDEN)
        words = words_of(content, ids)
        entered = words if size == HIDDEN else [linear(content.enter, w) for w in words]
        read = torch.stack([w + positions[n] for n, w in enumerate(entered, start=1)])
        contexts = content.layers.norm(encoder(read[None])[0])
        if pool == "mean":
            return contexts.mean(dim=0)
        return additive(list(contexts), content.pool, HIDDEN)

    check(features, content, reference)


def fastformer_layer(layer, x):
    """One Fastformer layer for the rows of `x`, head after head, from the paper's equations."""
    read = layer.attend_norm(x)
    attend = layer.attend
    query, key = attend.query(read), attend.key(read)
    heads = []
    for head, part in enumerate(torch.arange(HIDDEN).chunk(attend.heads)):
        q, k, v = query[:, part], key[:, part], query[:, part]
        alpha = torch.softmax(q @ attend.query_weight[head] / math.sqrt(len(part)), dim=0)
        p = (alpha[:, None] * q).sum(0) * k
        beta = torch.softmax(p @ attend.key_weight[head] / math.sqrt(len(part)), dim=0)
        heads.append((beta[:, None] * p).sum(0) * v)
    x = x + attend.transform(torch.cat(heads, dim=1)) + query
    return x + layer.feed_forward(layer.feed_norm(x))


@pytest.mark.parametrize(("share", "size"), [(True, 6), (False, HIDDEN)])
def test_fastformer(features, share, size):
    content = make(
        features, "fastformer", heads=2, layers=3, share_layers=share, embedding_size=size
    )
    positions = content.positions.table.weight
    layers = content.layers.layers
    assert len(layers) == (1 if share else 3)

    def reference(ids, attribute):
        if not len(ids):
            return torch.zeros(HIDDEN)
        x = content.enter(torch.stack(words_of(content, ids))) + positions[1 : len(ids) + 1]
        for number in range(3):
            x = fastformer_layer(layers[0 if share else number], x)
        return additive(list(content.layers.norm(x)), content.pool, HIDDEN)

    check(features, content, reference)


@pytest.mark.parametrize("name", ["multi-kernel-cnn", "gru", "transformer", "fastformer"])
def test_the_order_of_words_matters(features, name):
    content = make(features, name, **SMALL.get(name, {}))
    mask = torch.ones(2, 3, dtype=torch.bool)
    tokens = Tokens(torch.tensor([[2, 3, 4], [4, 3, 2]]), mask, torch.zeros(2, 3).long())
    one, two = content(tokens)
    assert (one - two).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["weighted-pooling", "additive"])
def test_the_order_of_words_does_not_matter(features, name):
    content = make(features, name)
    mask = torch.ones(2, 3, dtype=torch.bool)
    tokens = Tokens(torch.tensor([[2, 3, 4], [4, 3, 2]]), mask, torch.zeros(2, 3).long())
    one, two = content(tokens)
    torch.testing.assert_close(one, two)


@pytest.mark.parametrize("name", ["transformer", "fastformer"])
def test_heads_that_do_not_share_the_hidden_size_are_named(name):
    part, config = parse_part("content", {"name": name, "heads": 3})
    assert part.problems(config, HIDDEN) == [
        "heads 3 do not divide hidden_size 8; such as [2, 4] would"
    ]
    assert part.problems(config, 9) == []


def test_parameter_counts(features):
    words, size, hidden, length = features.sizes.vocabulary, 6, HIDDEN, 16

    def count(name, **settings):
        content = make(features, name, embedding_size=size, **settings)
        return sum(p.numel() for p in content.parameters()) - words * size

    def pool(width, attention):
        return width * attention + attention + attention

    assert count("weighted-pooling") == words + size * hidden + hidden
    assert count("weighted-pooling", combine="concat") == words + 2 * size * hidden + hidden
    convolution = 3 * size * 5 + 5
    assert count("cnn-concat", filters=5, attention_size=4) == (
        2 * (convolution + pool(5, 4)) + 2 * 5 * hidden + hidden
    )
    assert count("multi-kernel-cnn", kernel_sizes=[2, 4], filters=5) == (
        (2 + 4) * size * 5 + 2 * 5 + 2 * 5 * hidden + hidden
    )
    assert count("additive", attention_size=4) == pool(size, 4) + size * hidden + hidden
    gru = 3 * (hidden * size + hidden * hidden + 2 * hidden)
    assert count("gru") == gru
    assert count("gru", pool="additive", attention_size=4) == gru + pool(hidden, 4)
    enter = size * hidden + hidden + (length + 1) * hidden  # words and positions
    feed_forward = 2 * hidden * 12 + 12 + hidden
    norms = 2 * 2 * hidden
    settings = {"heads": 2, "layers": 3, "inner_size": 12}
    layer = 4 * hidden**2 + 3 * hidden + feed_forward + norms
    assert count("transformer", pool="mean", **settings) == enter + 3 * layer + 2 * hidden
    layer = 3 * hidden**2 + 3 * hidden + 2 * hidden + feed_forward + norms
    assert count("fastformer", attention_size=4, **settings) == (
        enter + layer + 2 * hidden + pool(hidden, 4)
    )


@pytest.mark.parametrize("name", NAMES)
def test_first_vectors_differ_between_items_yet_are_not_large(features, name):
    part, config = parse_part("content", {"name": name, "min_count": 1, "length": 8})
    content = part(config, Shape(64, N + 1, input=features.sizes)).eval()
    vectors = content(features.gather(torch.tensor([1, 2, 5, 8, 9]))).detach()
    assert 0.02 < float(vectors.std(dim=0).mean()) < 1
    assert float(vectors.abs().max()) < 3


@pytest.mark.parametrize("name", NAMES)
def test_dropout_acts_in_training_only(features, name):
    content = make(features, name, dropout=0.5, **SMALL.get(name, {}))
    inputs = features.gather(ALL)
    assert torch.equal(content(inputs), content(inputs))
    content.train()
    assert not torch.equal(content(inputs), content(inputs))


@pytest.mark.parametrize("name", NAMES)
def test_many_items_are_encoded_by_length_as_if_they_were_not(features, name):
    content = make(features, name, **SMALL.get(name, {}))
    items = torch.randint(1, N + 1, (400,))
    few = content(features.gather(ALL))
    torch.testing.assert_close(
        content(features.gather(items)), few[items - 1], atol=2e-5, rtol=1e-5
    )
