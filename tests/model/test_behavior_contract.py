"""What every behavior operator must keep, whatever it computes."""

from __future__ import annotations

import pytest
import torch
from model_cases import HIDDEN, assert_gradients, cases, histories, perturb, small_shape

from legoray.model.base import BehaviorOperator
from legoray.model.registry import BEHAVIOR, parse_part


@pytest.fixture(params=cases("behavior"))
def operator(request):
    part, config = parse_part("behavior", request.param.config(""))
    return perturb(part(config, small_shape())).eval()


def masked(state):
    """The state's values with whatever lies under its mask taken away."""
    return state.values if state.mask is None else state.values * state.mask[..., None]


def test_every_registered_operator_has_a_case():
    assert {case.values[0].name for case in cases("behavior")} == set(BEHAVIOR)


def test_it_gives_the_declared_kind_of_state_and_finite_values(operator):
    assert isinstance(operator, BehaviorOperator)
    history, mask = histories()
    state = operator(history, mask)
    assert state.kind == operator.produces
    shapes = {"vector": (4, HIDDEN), "sequence": (4, 5, HIDDEN)}
    assert state.values.shape == shapes[state.kind]
    assert torch.isfinite(state.values).all()
    assert (state.mask is not None) == (state.kind == "sequence")


def test_nothing_under_the_mask_matters_not_even_nan(operator):
    history, mask = histories()
    expected = masked(operator(history, mask))
    for garbage in (1e6, float("nan"), float("inf")):
        noisy = torch.where(mask[..., None], history, torch.tensor(garbage))
        torch.testing.assert_close(masked(operator(noisy, mask)), expected)


def test_more_padding_changes_nothing(operator):
    history, mask = histories()
    wide = torch.cat([history, torch.randn(4, 3, HIDDEN)], dim=1)
    wide_mask = torch.cat([mask, torch.zeros(4, 3, dtype=torch.bool)], dim=1)
    expected = masked(operator(history, mask))
    found = masked(operator(wide, wide_mask))
    if operator.produces == "sequence":
        found = found[:, :5]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_holes_in_the_mask_are_as_if_the_items_stood_together(operator):
    history, mask = histories()
    together = history[3][mask[3]][None]
    own = operator(together, torch.ones(1, 3, dtype=torch.bool)).values[0]
    found = operator(history, mask).values[3]
    if operator.produces == "sequence":
        found = found[mask[3]]
    torch.testing.assert_close(found, own, atol=1e-6, rtol=1e-5)


def test_a_user_does_not_depend_on_the_others_in_the_batch(operator):
    history, mask = histories()
    together = masked(operator(history, mask))
    alone = torch.cat([masked(operator(history[b : b + 1], mask[b : b + 1])) for b in range(4)])
    torch.testing.assert_close(alone, together, atol=1e-6, rtol=1e-5)


def test_a_history_of_one_and_none_work(operator):
    one = torch.randn(1, 1, HIDDEN)
    for present in (True, False):
        state = operator(one, torch.tensor([[present]]))
        assert torch.isfinite(state.values).all()


def test_gradient_reaches_every_weight_and_the_items_that_are_there(operator):
    history, mask = histories()
    history.requires_grad_()
    values = operator(history, mask).values
    assert_gradients(operator, (values * torch.randn_like(values)).sum())
    assert history.grad is not None
    assert torch.isfinite(history.grad).all()
    assert (history.grad[~mask] == 0).all()


def test_selecting_rows_selects_users(operator):
    history, mask = histories()
    rows = torch.tensor([3, 0])
    state = operator(history, mask).select(rows)
    torch.testing.assert_close(masked(state), masked(operator(history, mask))[rows])
