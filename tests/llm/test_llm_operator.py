"""The `llm` operator beyond what the contract suite asks of every part."""

from __future__ import annotations

import pytest
import torch
from llm_cases import ITEMS, plain_forward, random_model, relative_error
from torch import nn

from legoray.config import build
from legoray.data.recipes import States
from legoray.errors import InputError
from legoray.llm.load import load_base, load_tokenizer
from legoray.llm.store import states_of_texts
from legoray.model.base import Shape
from legoray.model.content.llm import LlmConfig, LlmOperator

ALL = torch.arange(1, len(ITEMS) + 1)
SHAPE = Shape(hidden_size=8, item_count=len(ITEMS) + 1)


def settings(model, **changes):
    return build(LlmConfig, {"model": model, "store": "float32", "template": "{title}", **changes})


def inputs_of(config):
    return states_of_texts(LlmOperator.recipe(config, ("title",)), ITEMS).gather(ALL)


def pooled_by_hand(states, kind):
    return {"mean": lambda s: s.mean(0), "cls": lambda s: s[0], "last": lambda s: s[-1]}[kind](
        states
    )


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize(
    ("model", "split"), [("tiny_bert", 0), ("tiny_bert", -1), ("tiny_llama", 1), ("tiny_llama", 3)]
)
def test_it_is_the_plain_model_pooled_and_projected(request, model, split, pooling):
    name = request.getfixturevalue(model)
    config = settings(name, split=split, pooling=pooling)
    operator = LlmOperator(config, SHAPE).eval()  # fresh adapters add nothing
    whole = (
        plain_forward(
            load_base(name).model, load_tokenizer(name), [row["title"] for row in ITEMS], 32
        )
        if model == "tiny_bert"
        else _llama_forward(name)
    )
    expected = operator.project(torch.stack([pooled_by_hand(s, pooling) for s in whole]))
    torch.testing.assert_close(operator(inputs_of(config)), expected, rtol=1e-4, atol=1e-5)


def _llama_forward(name):
    """Its tokenizer gives an empty title no token; the store puts one in."""
    model, tokenizer = load_base(name).model, load_tokenizer(name)
    outputs = []
    for row in ITEMS:
        ids = tokenizer(row["title"])["input_ids"] or [0]
        with torch.no_grad():
            outputs.append(model(input_ids=torch.tensor([ids])).last_hidden_state[0])
    return outputs


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8", "nf4"])
def test_it_learns_and_the_language_model_stays_as_it_is(tiny_bert, precision):
    before = {k: v.clone() for k, v in load_base(tiny_bert, precision).model.state_dict().items()}
    config = settings(tiny_bert, split=1, precision=precision, lora={"rank": 4, "dropout": 0.1})
    operator = LlmOperator(config, SHAPE).train()
    frozen = {n: p.clone() for n, p in operator.named_parameters() if not p.requires_grad}
    start = {n: p.clone() for n, p in operator.saved_state().items()}
    inputs, target = inputs_of(config), torch.randn(len(ITEMS), 8)
    trained = [p for p in operator.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.02)
    losses = []
    for _ in range(25):
        loss = nn.functional.mse_loss(operator(inputs), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(not torch.equal(v, start[n]) for n, v in operator.saved_state().items())
    assert all(torch.equal(p, frozen[n]) for n, p in operator.named_parameters() if n in frozen)
    after = load_base(tiny_bert, precision).model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_nothing_leaks_between_two_operators(tiny_bert):
    config = settings(tiny_bert, split=0)
    torch.manual_seed(1)
    first = LlmOperator(config, SHAPE).eval()
    inputs = inputs_of(config)
    expected = first(inputs)
    torch.manual_seed(1)
    second = LlmOperator(settings(tiny_bert, split=0, lora={"rank": 2}), SHAPE)
    with torch.no_grad():
        for parameter in second.parameters():
            if parameter.requires_grad:
                parameter.add_(1)
    assert torch.equal(first(inputs), expected)
    torch.manual_seed(1)
    assert torch.equal(LlmOperator(config, SHAPE).eval()(inputs), expected)


@pytest.mark.parametrize("precision", ["float32", "int8", "nf4"])
@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_what_is_saved_is_small_and_comes_back_exactly(tiny_bert, precision, pooling):
    config = settings(tiny_bert, split=-2, precision=precision, pooling=pooling)
    operator = LlmOperator(config, SHAPE).eval()
    with torch.no_grad():
        for tensor in operator.saved_state().values():
            tensor.normal_()
    state = {name: tensor.clone() for name, tensor in operator.saved_state().items()}
    heads = {n for n in state if n.startswith(("project.", "pool."))}
    assert len(heads) == (2 if pooling == "mean" else 5)
    assert {n.split(".")[1] for n in state.keys() - heads} == {"1", "2"}
    other = LlmOperator(config, SHAPE).eval()
    inputs = inputs_of(config)
    assert not torch.equal(other(inputs), operator(inputs))
    other.load_saved_state(state)
    assert torch.equal(other(inputs), operator(inputs))
    with pytest.raises(ValueError, match="missing"):
        other.load_saved_state(dict(list(state.items())[1:]))


def test_without_lora_and_at_the_top_only_the_head_is_trained(tiny_bert):
    for changes in ({"lora": None, "split": 1}, {"split": 3}):
        operator = LlmOperator(settings(tiny_bert, **changes), SHAPE)
        trained = [n for n, p in operator.named_parameters() if p.requires_grad]
        assert trained == ["project.weight", "project.bias"]
        assert operator.encoder_parameters() == []
    assert len(LlmOperator(settings(tiny_bert, split=1), SHAPE).encoder_parameters()) == 8


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "attention"])
def test_items_without_a_token_and_no_items_at_all_are_finite(tiny_bert, pooling):
    operator = LlmOperator(settings(tiny_bert, pooling=pooling), SHAPE).eval()
    states = States(torch.randn(3, 5, 32), torch.arange(5) < torch.tensor([[0], [5], [2]]))
    assert torch.isfinite(operator(states)).all()
    none = States(torch.zeros(0, 1, 32), torch.zeros(0, 1, dtype=torch.bool))
    assert operator(none).shape == (0, 8)


def test_eight_bit_layers_keep_their_path_through_train_and_eval(tiny_bert):
    config = settings(tiny_bert, split=1, precision="int8")
    operator = LlmOperator(config, SHAPE)
    inputs = inputs_of(config)
    first = operator.eval()(inputs)
    operator.train()
    assert torch.equal(operator.eval()(inputs), first)


def test_the_recipe_counts_the_split_from_the_bottom(tiny_bert):
    recipe = LlmOperator.recipe(settings(tiny_bert, split=-1, template=None), ("title", "category"))
    assert (recipe.split, recipe.template, recipe.precision) == (
        2,
        "{title}. {category}",
        "float32",
    )
    assert recipe == LlmOperator.recipe(
        settings(tiny_bert, split=2, template=None), ("title", "category")
    )
    with pytest.raises(InputError, match="split 4 is out of range"):
        LlmOperator.recipe(settings(tiny_bert, split=4), ("title",))
    with pytest.raises(InputError, match="give a template"):
        LlmOperator.recipe(settings(tiny_bert, template=None), ())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"split": 4}, "split 4 is out of range"),
        ({"split": -4}, "-3 to -1 counted from the top"),
        ({"model": "minilmm"}, "did you mean 'minilm'?"),
        ({"lora": {"targets": ["querry"]}}, "did you mean 'query'?"),
        ({"template": "{title"}, "not well formed"),
        ({"template": ""}, "names no attribute"),
        ({"length": 65}, "reads 64 tokens"),
        ({"split": -1, "lora": {"layers": 2}}, "lora.layers 2: 1 are trained"),
        ({"precision": "int8", "lora": {"dora": True}}, "lora.dora does not work on int8"),
    ],
)
def test_problems_are_named_before_anything_is_loaded(tiny_bert, changes, said, monkeypatch):
    monkeypatch.setattr("legoray.model.content.llm.load_base", None)
    (problem,) = LlmOperator.problems(settings(**{"model": tiny_bert, **changes}), 8)
    assert said in problem


def test_a_family_that_cannot_run_without_layers_says_so(tmp_path):
    random_model("deberta-v2").config.save_pretrained(tmp_path)
    (problem,) = LlmOperator.problems(settings(str(tmp_path), split=0), 8)
    assert "1 to 3, or -2 to -1" in problem
    assert LlmOperator.problems(settings(str(tmp_path), split=1), 8) == []


def test_several_problems_are_named_at_once(tiny_bert):
    wrong = settings(tiny_bert, length=99, template="x", lora={"targets": ["q"]})
    assert len(LlmOperator.problems(wrong, 8)) == 3
    assert LlmOperator.problems(LlmConfig(), 8) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lora": {"rank": 0}}, "lora.rank"),
        ({"lora": {"alpha": 0.0}}, "lora.alpha"),
        ({"lora": {"dropout": 1.0}}, "lora.dropout"),
        ({"lora": {"rnak": 8}}, "did you mean 'rank'?"),
        ({"precision": "int4"}, "did you mean 'int8'?"),
        ({"pooling": "max"}, "pooling"),
        ({"length": 0}, "length"),
        ({"split": "top"}, "split"),
        ({"modle": "minilm"}, "did you mean 'model'?"),
    ],
)
def test_wrong_settings_are_refused(given, said):
    with pytest.raises(InputError) as caught:
        build(LlmConfig, given)
    assert said in str(caught.value)


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize(
    ("model", "pooling", "split"),
    [("tiny_llama", "last", -1), ("tiny_llama", "last", 0), ("tiny_bert", "cls", -1)],
)
def test_a_head_of_one_token_is_that_of_the_whole_layers(request, model, pooling, split, precision):
    config = settings(
        request.getfixturevalue(model), pooling=pooling, split=split, precision=precision
    )
    operator = LlmOperator(config, SHAPE).eval()
    with torch.no_grad():
        for tensor in operator.encoder_parameters():
            tensor.normal_(std=0.1)
    assert operator.one_query is not None
    inputs, trained = inputs_of(config), [p for p in operator.parameters() if p.requires_grad]
    found = operator(inputs)
    gradients = torch.autograd.grad(found.square().sum(), trained)
    operator.one_query = None  # the whole layers
    expected = operator(inputs)

    assert relative_error(found.detach(), expected.detach()) < 1e-5
    largest = torch.autograd.grad(expected.square().sum(), trained)
    for ours, theirs in zip(gradients, largest, strict=True):
        assert relative_error(ours, theirs) < 1e-4
