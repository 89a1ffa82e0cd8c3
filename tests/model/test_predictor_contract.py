"""What every click predictor must keep, whatever it computes."""

from __future__ import annotations

import pytest
import torch
from model_cases import HIDDEN, assert_gradients, cases, perturb, small_shape, user_state

from legoray.model.base import ClickPredictor, UserState
from legoray.model.registry import PREDICTOR, parse_part

SIZES = (4, 3)  # values of each categorical field


class Fielded:
    """A predictor and, where its settings name fields, some values of them."""

    def __init__(self, settings):
        part, config = parse_part("predictor", settings)
        sizes = SIZES[: len(getattr(config, "fields", []))]
        self.part = perturb(part(config, small_shape(fields=sizes))).eval()
        self.accepts = part.accepts
        self.fields = None
        if sizes:
            values = [torch.randint(0, size, (4, 3)) for size in sizes]
            self.fields = torch.stack(values, dim=-1)
            self.fields[:, :, 0] = torch.tensor([1, 2, 3, 0])[:, None]  # all values, and none
            self.fields[:, :, -1] = torch.tensor([1, 2, 0])

    def __call__(self, user, candidates, rows=slice(None), columns=slice(None)):
        count = candidates.shape[1] if columns == slice(None) else None
        own = None if self.fields is None else self.fields[rows][:, columns]
        return self.part(user, candidates, own if own is None else own[:, :count])


@pytest.fixture(params=cases("predictor"))
def predictor(request):
    return Fielded(request.param.config(""))


@pytest.fixture
def states(predictor):
    """One batch of users of each kind that the predictor accepts."""
    return [user_state(kind) for kind in sorted(predictor.accepts)]


def test_every_registered_predictor_has_a_case():
    assert {case.values[0].name for case in cases("predictor")} == set(PREDICTOR)


def test_it_gives_one_finite_score_per_candidate(predictor, states):
    assert isinstance(predictor.part, ClickPredictor)
    for user in states:
        for count in (1, 3):
            scores = predictor(user, torch.randn(4, count, HIDDEN))
            assert scores.shape == (4, count)
            assert torch.isfinite(scores).all()


def test_a_candidate_does_not_depend_on_the_others(predictor, states):
    candidates = torch.randn(4, 3, HIDDEN)
    for user in states:
        together = predictor(user, candidates)
        each = [slice(k, k + 1) for k in range(3)]
        alone = torch.cat([predictor(user, candidates[:, k], columns=k) for k in each], dim=1)
        torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-5)


def test_all_users_with_the_same_items_score_as_one_by_one(predictor, states):
    items = torch.randn(5, HIDDEN)
    for user in states:
        found = predictor.part.score_all(user, items)
        if found is None:
            continue
        wanted = predictor(user, items.expand(4, 5, HIDDEN))
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_products_of_vectors_have_a_quicker_way():
    for name in ("dot", "cosine", "bilinear"):
        part = Fielded({"name": name}).part
        assert part.score_all(user_state("vector"), torch.randn(5, HIDDEN)).shape == (4, 5)


def test_a_user_does_not_depend_on_the_others(predictor, states):
    candidates = torch.randn(4, 3, HIDDEN)
    for user in states:
        together = predictor(user, candidates)
        alone = [
            predictor(user.select(torch.tensor([b])), candidates[b : b + 1], slice(b, b + 1))
            for b in range(4)
        ]
        torch.testing.assert_close(torch.cat(alone), together, atol=1e-5, rtol=1e-5)


def test_nothing_under_a_sequence_s_mask_matters(predictor, states):
    candidates = torch.randn(4, 3, HIDDEN)
    for user in states:
        if user.mask is None:
            continue
        noisy = torch.where(user.mask[..., None], user.values, torch.tensor(float("nan")))
        wide = torch.cat([noisy, torch.randn(4, 2, HIDDEN)], dim=1)
        wide_mask = torch.cat([user.mask, torch.zeros(4, 2, dtype=torch.bool)], dim=1)
        found = predictor(UserState("sequence", wide, wide_mask), candidates)
        torch.testing.assert_close(found, predictor(user, candidates), atol=1e-5, rtol=1e-5)


def test_gradient_reaches_every_weight(predictor, states):
    for user in states:
        predictor.part.zero_grad()
        candidates = torch.randn(4, 3, HIDDEN, requires_grad=True)
        scores = predictor(user, candidates)
        assert_gradients(predictor.part, (scores * torch.randn_like(scores)).sum())
        assert torch.isfinite(candidates.grad).all()
