"""Behavior operators against independent computations, one user without padding at a time."""

from __future__ import annotations

import pytest
import torch
from model_cases import HIDDEN, histories, past, perturb, small_shape
from test_content_reference import additive, heads_by_loop

from legoray.model.behavior.gru import compact
from legoray.model.registry import parse_part


def make(name, **settings):
    part, config = parse_part("behavior", {"name": name, **settings})
    return perturb(part(config, small_shape())).eval()


def check(operator, reference):
    history, mask = histories()
    expected = torch.stack([reference(h[m]) for h, m in zip(history, mask, strict=True)])
    torch.testing.assert_close(operator(past(history, mask)).values, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_pooling(pool):
    def reference(items):
        if not len(items):
            return torch.zeros(HIDDEN)
        return items.mean(0) if pool == "mean" else items.max(0).values

    check(make("pooling", pool=pool), reference)


def test_additive():
    operator = make("additive", attention_size=6)
    check(operator, lambda items: additive(items, operator.pool))


def test_attention():
    operator = make("attention", heads=4)
    check(operator, lambda items: additive(heads_by_loop(items, operator.mix), operator.pool))


def test_gru_equals_the_state_after_a_single_unpadded_sequence():
    operator = make("gru")

    def reference(items):
        if not len(items):
            return torch.zeros(HIDDEN)
        _, last = operator.gru(items[None])
        return last[0, 0]

    check(operator, reference)


def test_none_is_the_history_itself():
    history, mask = histories()
    state = make("none")(past(history, mask))
    assert torch.equal(state.values[mask], history[mask])
    assert torch.equal(state.mask, mask)


def test_compacting_keeps_the_order():
    values = torch.arange(6.0).reshape(1, 6, 1)
    mask = torch.tensor([[False, True, True, False, False, True]])
    moved, length = compact(values, mask)
    assert moved[0, :3, 0].tolist() == [1, 2, 5]
    assert length.tolist() == [3]


def test_attention_does_not_depend_on_the_order_and_gru_does():
    history, _ = histories()
    mask = torch.ones(4, 5, dtype=torch.bool)
    flipped = history.flip(1)
    for name in ("pooling", "additive", "attention"):
        operator = make(name)
        torch.testing.assert_close(
            operator(past(history, mask)).values,
            operator(past(flipped, mask)).values,
            atol=1e-5,
            rtol=1e-5,
        )
    gru = make("gru")
    found = [gru(past(vectors, mask)).values for vectors in (history, flipped)]
    assert not torch.allclose(*found)
