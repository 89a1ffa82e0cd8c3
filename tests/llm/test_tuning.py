"""What is trained of the upper layers: `tune: lora | full | head`."""

from __future__ import annotations

import copy

import pytest
import torch
from llm_cases import ITEMS, relative_error
from torch import nn

from legoray.config import build
from legoray.errors import InputError
from legoray.llm.load import load_base, load_tokenizer
from legoray.llm.store import states_of_texts
from legoray.model.base import Shape
from legoray.model.content.llm import LlmConfig, LlmOperator

ALL = torch.arange(1, len(ITEMS) + 1)
SHAPE = Shape(hidden_size=8, item_count=len(ITEMS) + 1)
POOLS = {"mean": lambda s: s.mean(0), "cls": lambda s: s[0], "last": lambda s: s[-1]}


def settings(model, **changes):
    return build(LlmConfig, {"model": model, "store": "float32", "template": "{title}", **changes})


def make(config):
    operator = LlmOperator(config, SHAPE).eval()
    recipe = LlmOperator.recipe(config, ("title",))
    return operator, states_of_texts(recipe, ITEMS).gather(ALL)


def by_hand(model, name, pooling):
    """Every text alone through the whole model, pooled: `[N, H]`, with a gradient."""
    tokenizer, pooled = load_tokenizer(name), []
    for row in ITEMS:
        ids = tokenizer(row["title"])["input_ids"] or [0]
        pooled.append(POOLS[pooling](model(input_ids=torch.tensor([ids])).last_hidden_state[0]))
    return torch.stack(pooled)


@pytest.mark.parametrize(
    ("model", "split", "pooling"),
    [("tiny_bert", 1, "mean"), ("tiny_bert", -1, "cls"), ("tiny_llama", -2, "last")],
)
def test_the_gradient_is_that_of_the_whole_model_and_so_are_the_names(
    request, model, split, pooling
):
    name = request.getfixturevalue(model)
    operator, inputs = make(settings(name, split=split, pooling=pooling, tune="full"))
    whole = copy.deepcopy(load_base(name).model).requires_grad_(True)
    vectors, expected = operator(inputs), operator.project(by_hand(whole, name, pooling))
    torch.testing.assert_close(vectors, expected, rtol=1e-4, atol=1e-5)
    vectors.sin().sum().backward()
    operator.project.zero_grad()
    expected.sin().sum().backward()
    named = dict(whole.named_parameters())
    state = operator.saved_state().keys() - {"project.weight", "project.bias"}
    kept = {key.removeprefix("model.") for key in state}
    first = 1 if split in (1, -2) else 2
    above = {n for n in named if any(f".{layer}." in f".{n}" for layer in range(first, 3))}
    assert kept == above | ({"norm.weight"} if model == "tiny_llama" else set())
    trained = [p for p in operator.parameters() if p.requires_grad]
    assert {id(p) for p in operator.encoder_parameters()} | {
        id(p) for p in operator.project.parameters()
    } == {id(p) for p in trained}
    own = dict(zip(sorted(kept), sorted_gradients(operator), strict=True))
    largest = max(float(gradient.abs().max()) for gradient in own.values())
    for key, gradient in own.items():
        torch.testing.assert_close(gradient, named[key].grad, rtol=1e-4, atol=1e-5 * largest)


def sorted_gradients(operator):
    """Gradients of the language model's own weights, in the order of their saved names."""
    named = {
        key: parameter.grad
        for key, parameter in operator._trained().items()
        if key.startswith("model.")
    }
    return [named[key] for key in sorted(named)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", ["tiny_bert", "tiny_llama"])
def test_every_weight_above_the_split_learns_in_this_operator_alone(request, model, precision):
    name = request.getfixturevalue(model)
    base = {k: v.clone() for k, v in load_base(name, precision).model.state_dict().items()}
    pooling = "last" if model == "tiny_llama" else "mean"
    config = settings(name, split=1, precision=precision, tune="full", pooling=pooling)
    operator, inputs = make(config)
    other, _ = make(config)
    start = {key: value.clone() for key, value in operator.saved_state().items()}
    assert {value.dtype for value in start.values()} == {torch.float32}
    target, losses = torch.randn(len(ITEMS), 8), []
    optimizer = torch.optim.Adam([p for p in operator.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(30):
        loss = nn.functional.mse_loss(operator.train()(inputs), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(not torch.equal(v, start[k]) for k, v in operator.saved_state().items())
    assert all(torch.equal(v, start[k]) for k, v in other.saved_state().items() if "model." in k)
    after = load_base(name, precision).model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in base.items())


def test_bfloat16_computes_shorter_what_float32_holds(tiny_llama):
    changes = {"split": 1, "tune": "full", "pooling": "last"}
    exact, inputs = make(settings(tiny_llama, **changes))
    short, _ = make(settings(tiny_llama, precision="bfloat16", **changes))
    short.project.load_state_dict(exact.project.state_dict())
    error = relative_error(short(inputs).detach(), exact(inputs).detach())
    assert 1e-5 < error < 0.05  # rounded, and not by much


def test_what_is_saved_comes_back_exactly_and_fits_the_whole_model(tiny_bert):
    config = settings(tiny_bert, split=1, tune="full")
    operator, inputs = make(config)
    with torch.no_grad():
        for tensor in operator.saved_state().values():
            tensor.add_(torch.randn_like(tensor), alpha=0.1)
    state = {name: tensor.clone() for name, tensor in operator.saved_state().items()}
    other, _ = make(config)
    assert not torch.equal(other(inputs), operator(inputs))
    other.load_saved_state(state)
    assert torch.equal(other(inputs), operator(inputs))
    with pytest.raises(ValueError, match="missing"):
        other.load_saved_state(dict(list(state.items())[:-1]))
    whole = copy.deepcopy(load_base(tiny_bert).model)
    own = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
    assert whole.load_state_dict(own, strict=False).unexpected_keys == []
    expected = operator.project(by_hand(whole, tiny_bert, "mean"))
    torch.testing.assert_close(operator(inputs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "tune", "adapted"),
    [
        ({}, None, True),
        ({"tune": "lora"}, "lora", True),
        ({"lora": None}, None, False),
        ({"tune": "head"}, "head", False),
        ({"tune": "full"}, "full", False),
        ({"tune": "head", "lora": None}, "head", False),
        ({"tune": "full", "lora": {"rank": 4}}, "full", False),
    ],
)
def test_the_two_settings_agree_and_survive_a_round_trip(given, tune, adapted):
    config = build(LlmConfig, given)
    assert (config.tune, config.lora is not None) == (tune, adapted)
    assert build(LlmConfig, config.model_dump()) == config


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tune": "lora", "lora": None}, "tune: lora trains adapters: leave `lora` out"),
        ({"tune": "full", "lora": {"rnak": 4}}, "did you mean 'rank'?"),
        ({"tune": "ful"}, "did you mean 'full'?"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(given, said):
    with pytest.raises(InputError) as caught:
        build(LlmConfig, given)
    assert said in str(caught.value)


def test_weights_without_a_gradient_are_refused_before_anything_is_loaded(tiny_bert, monkeypatch):
    monkeypatch.setattr("legoray.model.content.llm.load_base", None)
    (problem,) = LlmOperator.problems(settings(tiny_bert, precision="int8", tune="full"), 8)
    assert "tune full does not work on int8 weights" in problem
    assert LlmOperator.problems(settings(tiny_bert, precision="bfloat16", tune="full"), 8) == []
    assert LlmOperator.problems(settings(tiny_bert, precision="int8", tune="head"), 8) == []


def test_the_head_alone_leaves_the_layers_as_they_are(tiny_bert):
    operator, _ = make(settings(tiny_bert, split=1, tune="head"))
    assert operator.encoder_parameters() == []
    assert operator.saved_state().keys() == {"project.weight", "project.bias"}
