"""Every valid composition of the tables, as a whole model."""

from __future__ import annotations

import pytest
import torch
from model_cases import HIDDEN, N, assert_gradients, batch_of, first_case, perturb

from legoray.config import ModelConfig
from legoray.model.base import Batch
from legoray.model.compose import compositions
from legoray.model.io import load_model, save_model
from legoray.model.recommender import build_recommender, recipe_of, seeded, shape_of

TEXT = ("title", "abstract")
DISTINCT = torch.tensor([2, 3, 5, 7, 9])  # item 3 has no text


class Composition:
    """One composition: its configuration, features, and a batch."""

    def __init__(self, names, tiny, features_of):
        kinds = ("content", "behavior", "predictor")
        parts = {k: first_case(k, n).config(tiny) for k, n in zip(kinds, names, strict=True)}
        self.config = ModelConfig(hidden_size=HIDDEN, **parts)
        self.recipe = recipe_of(self.config, TEXT)
        self.features = features_of(self.recipe)
        self.shape = shape_of(self.config, self.features, max_history=10)
        self.batch = batch_of(self.features, DISTINCT)

    def build(self):
        return perturb(build_recommender(self.config, self.shape)).eval()


@pytest.fixture(params=compositions(), ids="+".join)
def composition(request, tiny, features_of):
    return Composition(request.param, tiny, features_of)


def test_scores_with_cached_vectors_equal_scores_without(composition):
    model, batch = composition.build(), composition.batch
    with torch.no_grad():
        items = model.encode_items(composition.features.gather(torch.arange(1, N + 1)))
        table = torch.cat([torch.zeros(1, HIDDEN), items])
        numbers = torch.cat([torch.zeros(1, dtype=torch.long), DISTINCT])
        history = numbers[batch.history]
        users = model.encode_users(table[history], history > 0)
        order = torch.tensor([3, 1, 0, 2, 0])  # users may be scored in any order, and repeatedly
        cached = model.score(users.select(order), table[numbers[batch.candidates[order]]])
        torch.testing.assert_close(cached, model(batch)[order], atol=1e-5, rtol=1e-5)


def test_an_empty_history_and_one_of_everything_give_finite_scores(composition):
    model = composition.build()
    assert torch.isfinite(model(composition.batch)).all()
    one = composition.features.gather(torch.tensor([4]))
    for history in (1, 0):
        batch = Batch(one, torch.tensor([[history]]), torch.tensor([[1]]), torch.ones(1, 1))
        scores = model(batch)
        assert scores.shape == (1, 1)
        assert torch.isfinite(scores).all()


def test_a_row_does_not_depend_on_the_others(composition):
    model, batch = composition.build(), composition.batch
    together = model(batch)
    for row in range(4):
        own = Batch(
            batch.items,
            batch.history[row : row + 1],
            batch.candidates[row : row + 1],
            batch.labels[row : row + 1],
        )
        torch.testing.assert_close(model(own)[0], together[row], atol=1e-5, rtol=1e-5)


def test_more_padding_changes_no_score(composition):
    model, batch = composition.build(), composition.batch
    wider = torch.nn.functional.pad(batch.history, (0, 4))
    found = model(Batch(batch.items, wider, batch.candidates, batch.labels))
    torch.testing.assert_close(found, model(batch), atol=1e-5, rtol=1e-5)


def test_gradient_reaches_every_trained_weight_and_no_frozen_one(composition):
    model = composition.build()
    scores = model(composition.batch)
    assert_gradients(model, (scores * torch.randn_like(scores)).sum())


def test_it_survives_a_round_trip_to_disk(composition, tmp_path):
    model, batch = composition.build(), composition.batch
    folder = tmp_path / "best"
    save_model(
        folder,
        model,
        config=composition.config,
        shape=composition.shape,
        recipe=composition.recipe,
        features=composition.features,
        extra={"epoch": 3},
    )
    loaded = load_model(folder)
    assert loaded.config == composition.config
    assert loaded.shape == composition.shape
    assert loaded.recipe == composition.recipe
    assert loaded.extra == {"epoch": 3}
    assert not loaded.recommender.training
    torch.testing.assert_close(loaded.recommender(batch), model(batch), atol=0, rtol=0)


def trained(composition, seed):
    """The scores of a model after two steps of training."""
    model = seeded(composition.config, composition.shape, seed).train()
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(2):
        scores = model(composition.batch)
        loss = torch.nn.functional.cross_entropy(scores, torch.zeros(4, dtype=torch.long))
        if loss.requires_grad:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses), model.eval()(composition.batch)


def test_training_is_repeatable_on_a_seed(composition):
    first, second, other = (trained(composition, seed) for seed in (1, 1, 2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[1], other[1])


def test_bfloat16_autocast_works_forward_and_backward(composition):
    model, batch = composition.build(), composition.batch
    expected = model(batch).detach()
    with torch.autocast("cpu", torch.bfloat16):
        scores = model(batch)
    scores.float().square().sum().backward()
    scale = expected.abs().max().clamp(min=1)
    assert ((scores.float() - expected).abs().max() / scale) < 0.1
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
