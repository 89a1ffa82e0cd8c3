"""Blocks of rows of like length, and the layers that are computed in another way than written."""

import pytest
import torch
from torch import nn

from legoray.model.blocks import PLACES, blocks_of, cuts, in_blocks, last_places
from legoray.model.layers import MLP, AdditiveAttention, Dropout, masked_softmax


def test_blocks_hold_each_row_once_and_no_more_places_than_asked():
    lengths = torch.tensor([3, 0, 9, 1, 3, 2, 200, 5])
    found = list(cuts(sorted(lengths.clamp(min=1).tolist(), reverse=True), 10))
    assert [a for a, _, _ in found] == [0, *[b for _, b, _ in found][:-1]]
    assert found[-1][1] == len(lengths)
    assert all((stop - start) * width <= 10 or stop - start == 1 for start, stop, width in found)


def test_rows_come_back_in_their_order(monkeypatch):
    monkeypatch.setitem(PLACES, "cpu", 6)
    lengths = torch.randint(0, 5, (20,), generator=torch.Generator().manual_seed(0))
    seen = []

    def encode(rows, width):
        seen.append((rows, width))
        assert int(lengths[rows].max()) <= width
        return rows.float()[:, None]

    assert in_blocks(encode, lengths)[:, 0].tolist() == list(range(20))
    assert len(seen) > 3
    blocks, back = blocks_of(lengths)
    assert torch.cat([rows for rows, _ in blocks])[back].tolist() == list(range(20))


def test_last_places():
    mask = torch.tensor([[0, 1, 0, 1, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]]).bool()
    assert last_places(mask).tolist() == [4, 0, 1]


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.73])
def test_dropout_keeps_its_share_and_the_mean(probability):
    torch.manual_seed(0)
    layer = Dropout(probability)
    values = torch.ones(401, 503, requires_grad=True)
    found = layer(values)
    kept = float((found > 0).float().mean())
    assert kept == pytest.approx(1 - probability, abs=0.005)
    assert float(found.detach().mean()) == pytest.approx(1, abs=0.01)
    assert found.detach().unique().tolist() == pytest.approx([0, 1 / (1 - probability)], rel=1e-4)
    found.sum().backward()
    torch.testing.assert_close(values.grad, found.detach())
    neighbours = (found[:, 1:] > 0).float().mul((found[:, :-1] > 0).float()).mean()
    assert float(neighbours) == pytest.approx((1 - probability) ** 2, abs=0.01)


def test_dropout_is_repeatable_and_only_for_training():
    layer, values = Dropout(0.3), torch.randn(7, 5)
    draws = []
    for _ in range(2):
        torch.manual_seed(3)
        draws.append(layer(values))
    assert torch.equal(*draws)
    assert not torch.equal(layer(values), draws[0])
    assert layer.eval()(values) is values
    assert Dropout(0.0)(values) is values


def test_additive_attention_is_that_of_the_hyperbolic_tangent():
    torch.manual_seed(0)
    layer = AdditiveAttention(6, 9)
    nn.init.normal_(layer.project.bias)
    values, mask = 3 * torch.randn(4, 5, 6), torch.rand(4, 5) > 0.3
    scores = torch.tanh(values @ layer.project.weight.T + layer.project.bias)
    weights = masked_softmax((scores @ layer.query.weight.T)[..., 0], mask)
    torch.testing.assert_close(layer(values, mask), (weights[..., None] * values).sum(1))


@pytest.mark.parametrize("candidates", [1, 4])
def test_pairs_share_what_a_user_gives(candidates):
    torch.manual_seed(0)
    layers = MLP(size=7, units=[5, 3], score=True)
    users, others = torch.randn(6, 3), torch.randn(6, candidates, 4)
    pairs = torch.cat([users[:, None].expand(-1, candidates, -1), others], dim=-1)
    torch.testing.assert_close(layers.of_pairs(pairs, 3), layers(pairs))
