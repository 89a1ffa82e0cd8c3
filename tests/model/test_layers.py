"""Shared layers at their edges."""

from __future__ import annotations

import pytest
import torch

from legoray.model.layers import (
    MLP,
    SelfAttention,
    dense,
    embedding,
    heads_problems,
    inner_products,
    last_of,
    masked_max,
    masked_mean,
    masked_softmax,
    pair_layer,
    scoring,
)


def test_masked_softmax_gives_zeros_and_no_nan_gradient_without_anything_to_attend_to():
    scores = torch.tensor([[1.0, float("nan")], [2.0, 3.0]], requires_grad=True)
    mask = torch.tensor([[False, False], [True, True]])
    weights = masked_softmax(scores, mask)
    assert weights[0].tolist() == [0, 0]
    torch.testing.assert_close(weights[1], torch.softmax(torch.tensor([2.0, 3.0]), 0))
    (weights * torch.tensor([1.0, 2.0])).sum().backward()
    assert scores.grad[0].tolist() == [0, 0]
    assert torch.isfinite(scores.grad).all()


def test_masked_softmax_is_exact_for_extreme_scores():
    weights = masked_softmax(torch.tensor([[-1e4, -1e4, 1e4]]), torch.tensor([[True, True, False]]))
    assert weights.tolist() == [[0.5, 0.5, 0.0]]


def test_masked_mean_and_max_ignore_the_rest_and_give_zeros_for_nothing():
    values = torch.tensor([[[-1.0], [-3.0], [9.0]], [[1.0], [2.0], [3.0]]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert masked_mean(values, mask).tolist() == [[-2], [0]]
    assert masked_max(values, mask).tolist() == [[-1], [0]]


def test_self_attention_of_a_wholly_masked_row_has_finite_values_and_gradients():
    layer = SelfAttention(size=4, output_size=4, heads=2)
    values = torch.randn(2, 3, 4, requires_grad=True)
    mask = torch.tensor([[True, False, True], [False, False, False]])
    layer(values, mask).sum().backward()
    assert torch.isfinite(values.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


def test_layers_keep_the_scale_of_what_they_read():
    vectors = embedding(1000, 64, 0.4).weight[1:].detach()
    assert float(vectors.std()) == pytest.approx(0.4, rel=0.05)
    assert float(dense(64, 64)(vectors).detach().std()) == pytest.approx(0.4, rel=0.2)


def test_mlp_without_an_output_ends_with_its_last_units():
    mlp = MLP(size=4, units=[6, 5])
    assert mlp(torch.randn(2, 3, 4)).shape == (2, 3, 5)
    assert mlp.output_size == 5


def test_scores_are_not_rounded_to_bfloat16():
    vectors, layer = torch.randn(2, 50, 8), scoring(8)
    near = torch.full((2, 1, 8), 3.0) + torch.randn(2, 1, 8) * 0.1
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(vectors), inner_products(vectors, near), MLP(size=8, units=[], score=True)
        assert found[2](vectors).dtype == torch.float32
        low = inner_products(vectors.bfloat16(), near.bfloat16())
    torch.testing.assert_close(found[0], layer(vectors), atol=0, rtol=0)
    torch.testing.assert_close(found[1], vectors @ near.transpose(1, 2), atol=0, rtol=0)
    assert low.dtype == torch.float32
    exact = vectors.bfloat16().double() @ near.bfloat16().double().transpose(1, 2)
    torch.testing.assert_close(low.double(), exact, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("count", "length"), [(2, 5), (5, 2), (3, 3), (1, 1)])
def test_a_layer_of_pairs_is_the_layer_of_the_three_side_by_side(count, length):
    items, candidates = torch.randn(4, length, 6), torch.randn(4, count, 6)
    layer = dense(18, 7)
    found = pair_layer(items, candidates, layer.weight.chunk(3, dim=1), torch.arange(7.0))
    for k in range(count):
        for n in range(length):
            h, c = items[:, n], candidates[:, k]
            expected = layer(torch.cat([h, c, h * c], dim=1)) + torch.arange(7.0)
            torch.testing.assert_close(found[:, k, n], expected, atol=1e-5, rtol=1e-5)


def test_the_last_state_is_the_one_after_the_last_step_or_zeros():
    states = torch.arange(1.0, 13.0).reshape(2, 3, 2)
    assert last_of(states, torch.tensor([2, 0])).tolist() == [[3.0, 4.0], [0.0, 0.0]]
    assert last_of(states, torch.tensor([3, 1])).tolist() == [[5.0, 6.0], [7.0, 8.0]]


def test_heads_problems_name_numbers_that_fit():
    assert heads_problems(8, 64) == []
    assert heads_problems(7, 64) == ["heads 7 do not divide hidden_size 64; such as [4, 8] would"]
