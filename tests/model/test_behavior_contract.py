"""What every behavior operator must keep, whatever it computes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from model_cases import HIDDEN, N, assert_gradients, cases, histories, past, perturb, small_shape

from legoray.model.base import BehaviorOperator
from legoray.model.registry import BEHAVIOR, parse_part

ALL = torch.arange(1, N + 1)
COUNT = 3


class Operator:
    """An operator, called with vectors and a mask; what else it reads is filled in."""

    def __init__(self, settings, features_of):
        part, config = parse_part("behavior", settings)
        recipe = part.recipe(config, ("title", "abstract"))
        features = features_of(recipe) if recipe else None
        sizes = {"history_input": features.sizes} if features else {}
        self.inputs = features.gather(ALL) if features else None
        self.part = perturb(part(config, small_shape(**sizes))).eval()
        self.produces = part.produces
        self.candidates = torch.randn(4, COUNT, HIDDEN) if part.looks_at_candidates else None

    def history(self, vectors, mask):
        return past(vectors, mask, self.inputs)

    def __call__(self, vectors, mask, rows=slice(None)):
        return self.of(self.history(vectors, mask), rows)

    def of(self, history, rows=slice(None)):
        """The state of a history, whose rows stand for these of the four users."""
        if self.candidates is None:
            return self.part(history)
        return self.part(history, self.candidates[rows])


@pytest.fixture(params=cases("behavior"))
def operator(request, features_of):
    return Operator(request.param.config(""), features_of)


def masked(state):
    """The state's values with whatever lies under its mask taken away."""
    return state.values if state.mask is None else state.values * state.mask[..., None]


def some(history, rows):
    """Some users of a history."""
    return replace(
        history,
        vectors=history.vectors[rows],
        mask=history.mask[rows],
        users=history.users[rows],
        items=history.items[rows],
    )


def test_every_registered_operator_has_a_case():
    assert {case.values[0].name for case in cases("behavior")} == set(BEHAVIOR)


def test_it_gives_the_declared_kind_of_state_and_finite_values(operator):
    assert isinstance(operator.part, BehaviorOperator)
    vectors, mask = histories()
    state = operator(vectors, mask)
    assert state.kind == operator.produces
    shapes = {"vector": (HIDDEN,), "interests": state.values.shape[-2:], "sequence": (5, HIDDEN)}
    own = (4,) if operator.candidates is None else (4, COUNT)
    assert state.values.shape == (*own, *shapes[state.kind])
    assert state.values.shape[-1] == HIDDEN
    assert torch.isfinite(state.values).all()
    assert (state.mask is not None) == (state.kind == "sequence")


def test_nothing_under_the_mask_matters_not_even_nan(operator):
    vectors, mask = histories()
    expected = masked(operator(vectors, mask))
    for garbage in (1e6, float("nan"), float("inf")):
        noisy = torch.where(mask[..., None], vectors, torch.tensor(garbage))
        torch.testing.assert_close(masked(operator(noisy, mask)), expected)
    history = operator.history(vectors, mask)
    other = torch.where(mask, history.items, torch.randint(0, N + 1, mask.shape))
    torch.testing.assert_close(masked(operator.of(replace(history, items=other))), expected)


def test_more_padding_changes_nothing(operator):
    vectors, mask = histories()
    wide = torch.cat([vectors, torch.randn(4, 3, HIDDEN)], dim=1)
    wide_mask = torch.cat([mask, torch.zeros(4, 3, dtype=torch.bool)], dim=1)
    expected = masked(operator(vectors, mask))
    found = masked(operator(wide, wide_mask))
    if operator.produces == "sequence":
        found = found[:, :5]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_holes_in_the_mask_are_as_if_the_items_stood_together(operator):
    history = operator.history(*histories())
    there = history.mask[3]
    together = replace(
        some(history, slice(3, 4)),
        vectors=history.vectors[3][there][None],
        mask=torch.ones(1, 3, dtype=torch.bool),
        items=history.items[3][there][None],
    )
    own = operator.of(together, slice(3, 4)).values[0]
    found = operator.of(history).values[3]
    if operator.produces == "sequence":
        found = found[there]
    torch.testing.assert_close(found, own, atol=1e-6, rtol=1e-5)


def test_a_user_does_not_depend_on_the_others_in_the_batch(operator):
    history = operator.history(*histories())
    together = masked(operator.of(history))
    each = [slice(b, b + 1) for b in range(4)]
    alone = torch.cat([masked(operator.of(some(history, row), row)) for row in each])
    torch.testing.assert_close(alone, together, atol=1e-6, rtol=1e-5)


def test_a_history_of_one_and_none_work(operator):
    one = torch.randn(1, 1, HIDDEN)
    for present in (True, False):
        state = operator(one, torch.tensor([[present]]), slice(0, 1))
        assert torch.isfinite(state.values).all()


def test_gradient_reaches_every_weight_and_the_items_that_are_there(operator):
    vectors, mask = histories()
    vectors.requires_grad_()
    values = operator(vectors, mask).values
    assert_gradients(operator.part, (values * torch.randn_like(values)).sum())
    if operator.inputs is not None:  # it need not look at the vectors
        return
    assert vectors.grad is not None
    assert torch.isfinite(vectors.grad).all()
    assert (vectors.grad[~mask] == 0).all()


def test_training_gives_finite_gradients_and_one_penalty_per_user_if_any(operator):
    operator.part.train()
    vectors, mask = histories()
    state = operator(vectors.requires_grad_(), mask)
    total = (state.values * torch.randn_like(state.values)).sum()
    if state.penalty is not None:
        assert state.penalty.shape == (4,)
        assert torch.isfinite(state.penalty).all()
        total = total + state.penalty.sum()
    total.backward()
    for name, parameter in operator.part.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


def test_in_evaluation_there_is_no_penalty(operator):
    assert operator(*histories()).penalty is None


def test_selecting_rows_selects_users(operator):
    vectors, mask = histories()
    rows = torch.tensor([3, 0])
    state = operator(vectors, mask).select(rows)
    torch.testing.assert_close(masked(state), masked(operator(vectors, mask))[rows])
