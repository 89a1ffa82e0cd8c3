"""Which compositions are valid is known before anything is built."""

from __future__ import annotations

import pytest

from legoray.config import ModelConfig
from legoray.data.recipes import IdRecipe, TokenRecipe
from legoray.errors import InputError
from legoray.model.base import Shape
from legoray.model.compose import check, compositions, explain
from legoray.model.recommender import build_recommender, recipes_of, seeded
from legoray.model.registry import BEHAVIOR, CONTENT, PREDICTOR
from legoray.yamlfile import parse_yaml


def model(content="id", behavior="pooling", predictor="dot", hidden_size=64, settings=None):
    parts = {"content": content, "behavior": behavior, "predictor": predictor}
    own = {"content": settings or {}}
    full = {kind: {"name": name, **own.get(kind, {})} for kind, name in parts.items()}
    return ModelConfig(hidden_size=hidden_size, **full)


def test_all_compositions_are_told_apart_from_declarations():
    vectors = [b for b in BEHAVIOR if b not in ("none", "poly-attention")]
    scorers = [p for p in PREDICTOR if p not in ("din", "miner")]
    expected = {(c, b, p) for c in CONTENT for b in vectors for p in scorers}
    expected |= {(c, "none", "din") for c in CONTENT}
    expected |= {(c, "poly-attention", "miner") for c in CONTENT}
    assert set(compositions()) == expected
    assert len(compositions()) == len(expected) == 17 * (13 * 15 + 2)


def test_valid_ones_have_no_problems():
    needed = {"vector": {"model": "minilm"}, "semantic-id": {"model": "minilm"}}
    for content, behavior, predictor in compositions():
        if content != "llm":
            config = model(content, behavior, predictor, settings=needed.get(content, {}))
            assert check(config) == []
            assert explain(content, behavior, predictor) is None


def test_an_invalid_one_says_why_and_what_would_fit():
    (problem,) = check(model(behavior="none"))
    text = str(problem)
    assert "'dot' reads one vector per user" in text
    assert "'none' gives the history item by item" in text
    assert "'none' goes with: din" in text
    assert "'dot' goes with: pooling, additive, attention, gru, lstur" in text
    reason = explain("id", "gru", "din")
    assert reason is not None
    assert "'gru' goes with: dot, cosine, bilinear, dnn" in reason


def test_invalid_ones_are_exactly_those_not_listed():
    listed = set(compositions())
    for content in CONTENT:
        for behavior in BEHAVIOR:
            for predictor in PREDICTOR:
                names = (content, behavior, predictor)
                assert (explain(*names) is None) == (names in listed)


def test_explaining_an_unknown_part_names_the_nearest():
    for names in (("idd", "gru", "dot"), ("id", "gruu", "dot"), ("id", "gru", "dott")):
        with pytest.raises(InputError, match="did you mean"):
            explain(*names)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            model("attention", hidden_size=50),
            "model.content: heads 8 do not divide hidden_size 50",
        ),
        (model(behavior="attention", hidden_size=60), "hidden_size 60; such as"),
        (model("attention", settings={"heads": 3}), "heads 3 do not divide hidden_size 64"),
    ],
)
def test_heads_must_divide_the_hidden_size(config, expected):
    assert any(expected in str(problem) for problem in check(config, at=("model",)))


def test_all_problems_come_at_once_with_their_lines():
    text = """\
hidden_size: 50
content: {name: cmn}
behavior:
  name: attention
predictor:
  name: din
  softmax: 3
"""
    document = parse_yaml(text, "m.yaml")
    problems = [str(p) for p in check(ModelConfig(**document.data), document)]
    assert len(problems) == 3
    assert problems[0].startswith("m.yaml:2: content: there is no content operator 'cmn'")
    assert problems[1].startswith("m.yaml:3: behavior: heads 8")
    assert problems[2].startswith("m.yaml:7: predictor.softmax")


def test_building_an_invalid_one_is_refused():
    with pytest.raises(InputError, match="goes with: din"):
        build_recommender(model(behavior="none"), Shape(64, 3))


def test_the_recipe_follows_the_part_and_the_data_set():
    assert recipes_of(model("id"), ("title",)).items == IdRecipe()
    assert recipes_of(model("cnn"), ("title",)).items == TokenRecipe("words", ("title",), 32, 2)
    own = model("cnn", settings={"attributes": ["abstract"], "length": 5, "min_count": 1})
    assert recipes_of(own, ("title",)).items == TokenRecipe("words", ("abstract",), 5, 1)
    other = model("cnn", settings={"tokenizer": "minilm", "min_count": 4})
    assert recipes_of(other, ("title",)).items == TokenRecipe("minilm", ("title",), 32, 1)
    with pytest.raises(InputError, match="no text attributes"):
        recipes_of(model("cnn"), ())


def test_seeds_decide_the_weights_and_leave_torch_alone():
    import torch

    before = torch.random.get_rng_state()
    first, second = (seeded(model(), Shape(64, 9), 5) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.content.table.weight, second.content.table.weight)
    total, trained = first.parameter_counts()
    assert total == trained == 9 * 64
