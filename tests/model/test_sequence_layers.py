"""Transformer and Fastformer layers against loops over rows, heads and positions."""

from __future__ import annotations

import math

import pytest
import torch
from model_cases import assert_gradients, perturb
from torch import nn
from torch.nn import functional as F

from legoray.model.fastformer import FastformerLayers
from legoray.model.transformer import LearnedPositions, TransformerLayers

SIZE, INNER, HEADS = 8, 12, 2
SIZES = {"size": SIZE, "heads": HEADS, "inner_size": INNER}
MASK = torch.tensor(
    [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 1, 0, 1, 1]], dtype=torch.bool
)
KINDS = [
    pytest.param(TransformerLayers, {}, id="transformer"),
    pytest.param(TransformerLayers, {"pre_norm": False, "activation": "gelu"}, id="post-norm"),
    pytest.param(TransformerLayers, {"causal": True}, id="causal"),
    pytest.param(FastformerLayers, {}, id="fastformer"),
    pytest.param(FastformerLayers, {"share_layers": False}, id="fastformer-own-layers"),
]


def make(kind, layers=2, dropout=0.3, **settings):
    return perturb(kind(layers=layers, dropout=dropout, **SIZES, **settings)).eval()


def linear(layer, x):
    out = layer.weight @ x
    return out if layer.bias is None else out + layer.bias


def normalized(layer, x):
    centred = x - x.mean()
    return centred / torch.sqrt((centred**2).mean() + layer.eps) * layer.weight + layer.bias


def feed(layer, x, activation):
    first, last = layer.layers[0], layer.layers[-1]
    return linear(last, activation(linear(first, x)))


def attention_by_loop(layer, rows, causal):
    """Attention of each of the present positions, one head at a time."""
    width = SIZE // HEADS
    found = []
    for i, x in enumerate(rows):
        seen = rows[: i + 1] if causal else rows
        joined = []
        for head in range(HEADS):
            part = slice(head * width, (head + 1) * width)
            q = linear(layer.query, x)[part]
            keys = [linear(layer.key, s)[part] for s in seen]
            values = [linear(layer.value, s)[part] for s in seen]
            energies = [torch.exp(q @ k / math.sqrt(width)) for k in keys]
            total = sum(energies)
            joined.append(sum(e / total * v for e, v in zip(energies, values, strict=True)))
        found.append(linear(layer.output, torch.cat(joined)))
    return found


def fastformer_by_loop(layer, rows):
    """The paper's three steps, one head and one position at a time."""
    width = SIZE // HEADS
    joined = [[] for _ in rows]
    for head in range(HEADS):
        part = slice(head * width, (head + 1) * width)
        queries = [linear(layer.query, x)[part] for x in rows]
        keys = [linear(layer.key, x)[part] for x in rows]
        whole_query = summary(queries, layer.query_weight[head])
        met = [whole_query * k for k in keys]
        whole_key = summary(met, layer.key_weight[head])
        for row, query in zip(joined, queries, strict=True):
            row.append(whole_key * query)
    queries = [linear(layer.query, x) for x in rows]
    return [
        linear(layer.transform, torch.cat(row)) + query
        for row, query in zip(joined, queries, strict=True)
    ]


def summary(rows, weight):
    energies = [torch.exp(weight @ row / math.sqrt(len(row))) for row in rows]
    return sum(e / sum(energies) * row for e, row in zip(energies, rows, strict=True))


def by_loop(stack, rows, layers):
    """What a stack gives for the present positions of one row."""
    fast = isinstance(stack, FastformerLayers)
    for number in range(layers):
        layer = stack.layers[number % len(stack.layers)]
        pre = fast or layer.pre_norm
        activation = F.gelu if fast or not pre else torch.relu  # as in `KINDS`
        read = [normalized(layer.attend_norm, x) for x in rows] if pre else rows
        mixed = (
            fastformer_by_loop(layer.attend, read)
            if fast
            else attention_by_loop(layer.attend, read, stack.causal)
        )
        rows = [x + y for x, y in zip(rows, mixed, strict=True)]
        if pre:
            rows = [
                x + feed(layer.feed_forward, normalized(layer.feed_norm, x), activation)
                for x in rows
            ]
        else:
            rows = [normalized(layer.attend_norm, x) for x in rows]
            rows = [
                normalized(layer.feed_norm, x + feed(layer.feed_forward, x, activation))
                for x in rows
            ]
    return (
        rows if isinstance(stack.norm, nn.Identity) else [normalized(stack.norm, x) for x in rows]
    )


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_each_present_position_is_what_a_loop_gives(kind, settings, layers):
    stack = make(kind, layers, **settings)
    values = torch.randn(4, 5, SIZE)
    found = stack(values, MASK)
    for row in range(4):
        expected = by_loop(stack, list(values[row][MASK[row]]), layers)
        for n, x in enumerate(found[row][MASK[row]]):
            torch.testing.assert_close(x, expected[n], atol=2e-5, rtol=1e-5)
    assert (found[~MASK] == 0).all()


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_nothing_under_the_mask_matters_not_even_nan(kind, settings):
    stack = make(kind, **settings)
    values = torch.randn(4, 5, SIZE)
    broken = values.masked_fill(~MASK[..., None], float("nan"))
    torch.testing.assert_close(stack(broken, MASK), stack(values, MASK), atol=0, rtol=0)
    wider = torch.cat([values, torch.full((4, 2, SIZE), float("inf"))], dim=1)
    found = stack(wider, F.pad(MASK, (0, 2)))
    torch.testing.assert_close(found[:, :5], stack(values, MASK))
    assert torch.isfinite(found).all()


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_gradients_are_finite_and_reach_every_weight_over_nan_padding(kind, settings):
    stack = make(kind, dropout=0.0, **settings).train()
    values = torch.randn(4, 5, SIZE).masked_fill(~MASK[..., None], float("nan"))
    found = stack(values, MASK)
    assert_gradients(stack, (found * torch.randn_like(found)).sum())


def test_only_a_causal_stack_is_blind_to_the_future():
    values = torch.randn(1, 5, SIZE)
    mask = torch.tensor([[0, 1, 1, 0, 1]], dtype=torch.bool)
    later = values.clone()
    later[:, 4] += 5.0
    for causal in (True, False):
        stack = make(TransformerLayers, causal=causal)
        same = torch.equal(stack(values, mask)[:, :4], stack(later, mask)[:, :4])
        assert same == causal
    stack = make(TransformerLayers, causal=True)
    without = torch.tensor([[0, 1, 1, 0, 0]], dtype=torch.bool)
    torch.testing.assert_close(stack(values, without)[:, :4], stack(values, mask)[:, :4])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("pre_norm", [False, True])
def test_a_transformer_layer_is_torchs_own(pre_norm, causal):
    stack = make(TransformerLayers, 1, causal=causal, pre_norm=pre_norm)
    own = nn.TransformerEncoderLayer(
        SIZE, HEADS, INNER, dropout=0.0, batch_first=True, norm_first=pre_norm
    ).eval()
    layer = stack.layers[0]
    attend = layer.attend
    with torch.no_grad():
        own.self_attn.in_proj_weight.copy_(
            torch.cat([attend.query.weight, attend.key.weight, attend.value.weight])
        )
        own.self_attn.in_proj_bias.copy_(
            torch.cat([attend.query.bias, torch.zeros(SIZE), attend.value.bias])
        )
    own.self_attn.out_proj.load_state_dict(attend.output.state_dict())
    own.linear1.load_state_dict(layer.feed_forward.layers[0].state_dict())
    own.linear2.load_state_dict(layer.feed_forward.layers[-1].state_dict())
    own.norm1.load_state_dict(layer.attend_norm.state_dict())
    own.norm2.load_state_dict(layer.feed_norm.state_dict())
    values = torch.randn(3, 5, SIZE)
    future = nn.Transformer.generate_square_subsequent_mask(5) if causal else None
    expected = stack.norm(own(values, src_mask=future))
    found = stack(values, torch.ones(3, 5, dtype=torch.bool))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_parameter_counts():
    def count(stack):
        return sum(p.numel() for p in stack.parameters())

    feed_forward = 2 * SIZE * INNER + SIZE + INNER
    norms = 2 * 2 * SIZE
    attention = 4 * SIZE**2 + 3 * SIZE  # queries, keys, values, output; keys have no bias
    assert count(make(TransformerLayers, 3)) == 3 * (attention + feed_forward + norms) + 2 * SIZE
    assert count(make(TransformerLayers, 3, pre_norm=False)) == 3 * (
        attention + feed_forward + norms
    )
    # queries (values too), keys and the last transformation; a vector per head for either weighting
    attention = 3 * SIZE**2 + 3 * SIZE + 2 * SIZE
    layer = attention + feed_forward + norms
    assert count(make(FastformerLayers, 3)) == layer + 2 * SIZE
    assert count(make(FastformerLayers, 3, share_layers=False)) == 3 * layer + 2 * SIZE


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_dropout_acts_in_training_only(kind, settings):
    stack = make(kind, **settings)
    values = torch.randn(4, 5, SIZE)
    assert torch.equal(stack(values, MASK), stack(values, MASK))
    stack.train()
    assert not torch.equal(stack(values, MASK), stack(values, MASK))


def test_positions_count_what_is_present():
    positions = perturb(LearnedPositions(5, SIZE))
    table = positions.table.weight
    values = torch.randn(4, 5, SIZE).masked_fill(~MASK[..., None], float("nan"))
    found = positions(values, MASK)
    for row in range(4):
        for n, (x, y) in enumerate(zip(values[row][MASK[row]], found[row][MASK[row]], strict=True)):
            torch.testing.assert_close(y, x + table[n + 1])
    assert (found[~MASK] == 0).all()
