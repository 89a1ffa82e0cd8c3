"""Click predictors against plain loops over users, candidates and items."""

from __future__ import annotations

import pytest
import torch
from model_cases import HIDDEN, perturb, small_shape, user_state

from legoray.model.base import UserState
from legoray.model.registry import parse_part


def make(name, **settings):
    part, config = parse_part("predictor", {"name": name, **settings})
    return perturb(part(config, small_shape())).eval()


def check(predictor, user, reference):
    candidates = torch.randn(4, 3, HIDDEN)
    expected = torch.zeros(4, 3)
    for b in range(4):
        for k in range(3):
            one = user.values[b] if user.mask is None else user.values[b][user.mask[b]]
            expected[b, k] = reference(one, candidates[b, k])
    torch.testing.assert_close(predictor(user, candidates), expected, atol=1e-5, rtol=1e-5)


def by_hand(mlp, values):
    """An MLP's linear layers and ReLUs one after another."""
    linear = [layer for layer in mlp.layers if isinstance(layer, torch.nn.Linear)]
    for number, layer in enumerate(linear):
        values = layer.weight @ values + (0 if layer.bias is None else layer.bias)
        last = number == len(linear) - 1 and mlp.layers[-1] is layer
        values = values if last else values.clamp(min=0)
    return values


def test_dot():
    check(make("dot"), user_state("vector"), lambda u, c: sum(float(a * b) for a, b in zip(u, c)))  # noqa: B905


def test_dnn():
    predictor = make("dnn", units=[12, 6])
    check(predictor, user_state("vector"), lambda u, c: by_hand(predictor.mlp, torch.cat([u, c])))


@pytest.mark.parametrize("layers", [1, 3])
def test_dcn_recursion(layers):
    predictor = make("dcn", cross_layers=layers, units=[6])

    def reference(u, c):
        first = torch.cat([u, c])
        crossed = first
        for weight, bias in zip(predictor.weights, predictor.biases, strict=True):
            crossed = torch.outer(first, crossed) @ weight + bias + crossed
        joined = torch.cat([crossed, by_hand(predictor.deep, first)])
        return predictor.output.weight[0] @ joined + predictor.output.bias[0]

    check(predictor, user_state("vector"), reference)


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("attention_units", [[12], [12, 6]])
def test_din_by_loop(softmax, attention_units):
    predictor = make("din", units=[10], attention_units=attention_units, softmax=softmax)

    def weight(h, c):
        hidden = predictor.first(torch.cat([h, c, h - c, h * c])).clamp(min=0)
        return by_hand(predictor.rest, hidden)[0]

    def reference(history, c):
        pooled = torch.zeros(HIDDEN)
        if len(history):
            weights = torch.stack([weight(h, c) for h in history])
            weights = torch.softmax(weights, dim=0) if softmax else weights
            pooled = sum(w * h for w, h in zip(weights, history, strict=True))
        return by_hand(predictor.mlp, torch.cat([pooled, c, pooled * c]))

    check(predictor, user_state("sequence"), reference)


def test_din_refuses_a_sequence_without_a_mask():
    with pytest.raises(ValueError, match="mask"):
        make("din")(UserState("sequence", torch.randn(1, 2, HIDDEN)), torch.randn(1, 1, HIDDEN))
