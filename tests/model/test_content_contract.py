"""What every content operator must keep, whatever it computes."""

from __future__ import annotations

import pytest
import torch
from model_cases import HIDDEN, N, assert_gradients, cases, perturb, rows_of, with_garbage

from legoray.model.base import ContentOperator, Shape
from legoray.model.registry import CONTENT, parse_part

TEXT = ("title", "abstract")
ALL = torch.arange(1, N + 1)


@pytest.fixture(params=cases("content"))
def operator(request, tiny, features_of):
    """An operator in evaluation mode, its features, and how to make another like it."""
    part, config = parse_part("content", request.param.config(tiny))
    features = features_of(part.recipe(config, TEXT))
    shape = Shape(HIDDEN, features.item_count, input=features.sizes)
    own = part(config, shape)
    own.start_from(features)
    return perturb(own).eval(), features, lambda: part(config, shape)


def test_every_registered_operator_has_a_case():
    assert {case.values[0].name for case in cases("content")} == set(CONTENT)


def test_it_gives_one_finite_vector_per_item_even_without_text(operator):
    content, features, _ = operator
    assert isinstance(content, ContentOperator)
    vectors = content(features.gather(ALL))
    assert vectors.shape == (N, HIDDEN)
    assert torch.isfinite(vectors).all()


def test_padding_and_what_lies_under_it_change_nothing(operator):
    content, features, _ = operator
    inputs = features.gather(ALL)
    noisy = with_garbage(inputs, 3, features.sizes.vocabulary or 2)
    torch.testing.assert_close(content(noisy), content(inputs), atol=2e-5, rtol=1e-5)


def test_an_item_does_not_depend_on_the_others_in_the_batch(operator):
    content, features, _ = operator
    together = content(features.gather(ALL))
    alone = torch.cat([content(features.gather(item[None])) for item in ALL])
    torch.testing.assert_close(alone, together, atol=2e-5, rtol=1e-5)
    order = torch.randperm(N)
    shuffled = content(rows_of(features.gather(ALL), order))
    torch.testing.assert_close(shuffled, together[order], atol=2e-5, rtol=1e-5)


def test_gradient_reaches_what_is_trained_and_nothing_else(operator):
    content, features, _ = operator
    vectors = content(features.gather(ALL))
    assert_gradients(content, (vectors * torch.randn_like(vectors)).sum())


def test_the_same_seed_makes_the_same_operator(operator):
    _, features, make = operator
    outputs = []
    for _ in range(2):
        torch.manual_seed(3)
        content = make().train()
        outputs.append(content(features.gather(ALL)))
    torch.testing.assert_close(outputs[0], outputs[1], atol=0, rtol=0)
