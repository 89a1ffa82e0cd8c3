"""Drawing from a space: conditions hold, everything is reached, no draw is impossible."""

from __future__ import annotations

import pickle
from collections import Counter

import optuna
import pytest
from space_cases import FOUR, SPACE, edited, make_space

from legoray.config import TrialConfig
from legoray.model.compose import check
from legoray.search.asktell import plain_params
from legoray.search.cover import every
from legoray.search.samplers import make_sampler
from legoray.search.space import Rejected
from legoray.search.start import start_params
from legoray.spaceconfig import SamplerConfig


def draws(space, count, name="random", seed=0):
    """Configurations and parameters of `count` trials."""
    own = {"startup_trials": 10} if name in ("tpe", "parts") else {}
    sampler = make_sampler(SamplerConfig.model_validate({"name": name, **own}), seed, space)
    study = optuna.create_study(sampler=sampler)
    for number in range(count):
        trial = study.ask()
        config = TrialConfig.model_validate(space.sample(trial))
        study.tell(trial, (number * 37 % 11) / 11)
        yield config, trial.params


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    return make_space(tmp_path_factory.mktemp("space"))


@pytest.mark.parametrize("sampler", ["random", "tpe", "parts"])
def test_every_draw_is_a_valid_model(space, sampler):
    for config, _ in draws(space, 60, sampler):
        assert check(config.model) == []


def test_only_the_chosen_option_has_parameters(space):
    for config, params in draws(space, 60):
        content = config.model.content["name"]
        assert ("model/content.cnn/kernel_size" in params) == (content == "cnn")
        layers = "model/predictor.dcn/cross_layers" in params
        assert layers == (config.model.predictor["name"] == "dcn")


def test_every_option_is_drawn(space):
    labels = Counter(config.model.label() for config, _ in draws(space, 300))
    assert set(labels) == {"+".join(triple) for triple in space.fits.triples}
    assert len(labels) == 2 * (1 + 2 * 2)


def test_a_narrowed_choice_is_a_parameter_of_its_own(space):
    for config, params in draws(space, 40):
        name = "sequence" if config.model.behavior["name"] == "none" else "vector"
        assert params[f"model/predictor@{name}"] == config.model.predictor["name"]
        assert plain_params(params)["model/predictor"] == config.model.predictor["name"]


def test_a_choice_that_all_fit_keeps_its_name(tmp_path):
    space = make_space(tmp_path, edited("      - {name: none}\n", "", drop_din(SPACE)))
    for _, params in draws(space, 10):
        assert "model/predictor" in params


def drop_din(text):
    return edited("      - {name: din, softmax: {choice: [true, false]}}\n", "", text)


def test_values_keep_their_types_and_bounds(space):
    for config, _ in draws(space, 60):
        assert 1e-4 <= config.train.learning_rate <= 1e-2
        if config.model.content["name"] == "cnn":
            assert config.model.content["kernel_size"] in (3, 5)
            assert round(config.model.content["dropout"] * 10, 9) in (0, 1, 2)
        if config.model.predictor["name"] == "din":
            assert config.model.predictor["softmax"] in (True, False)


def test_defaults_are_written_out(space):
    for config, _ in draws(space, 20):
        if config.model.content["name"] == "cnn":
            assert config.model.content["length"] == 32


def test_the_order_of_options_changes_nothing(tmp_path):
    one = make_space(tmp_path / "one", FOUR)
    turned = FOUR.replace("{name: id}, {name: pooling}", "{name: pooling}, {name: id}")
    other = make_space(tmp_path / "other", turned)
    assert turned != FOUR
    assert list(draws(one, 20, "tpe")) == list(draws(other, 20, "tpe"))


def test_combinations_that_do_not_go_together_are_rejected(tmp_path):
    text = edited("hidden_size: 16", "hidden_size: {choice: [16, 18]}")
    space = make_space(tmp_path, edited("choice: [2, 4]}", "choice: [9, 4]}", text))
    sampler = make_sampler(SamplerConfig(name="random"), 0, space)
    study = optuna.create_study(sampler=sampler)
    reasons = [reason for _ in range(80) if (reason := rejection(space, study.ask()))]
    assert 0 < len(reasons) < 40
    assert all("heads" in reason for reason in reasons)


def rejection(space, trial):
    try:
        space.sample(trial)
    except Rejected as error:
        return str(error)
    return ""


def test_the_encoder_rate_is_drawn_for_language_models_alone(tmp_path):
    text = edited("epochs: 3", "encoder_learning_rate: {log: [1e-5, 1e-3]}")
    text = edited("- {name: id}", "- {name: llm, split: 6}", text)
    space = make_space(tmp_path, text)
    for config, params in draws(space, 30):
        read = config.model.content["name"] == "llm"
        assert ("train/encoder_learning_rate" in params) == read
        assert (config.train.encoder_learning_rate is not None) == read


def test_params_and_recipes(space):
    assert "model/content.cnn/kernel_size" in space.params
    assert "train/learning_rate" in space.params
    assert "train/epochs" not in space.params
    assert [type(recipe).__name__ for recipe in space.recipes()] == ["IdRecipe", "TokenRecipe"]


def test_recipes_are_those_of_every_combination(tmp_path):
    text = edited("kernel_size: {choice: [3, 5]}", "length: {choice: [8, 16]}")
    space = make_space(tmp_path, edited("dropout: {", "min_count: {int: [1, 2]} #", text))
    read = {(r.length, r.min_count) for r in space.recipes() if hasattr(r, "min_count")}
    assert read == {(8, 1), (8, 2), (16, 1), (16, 2)}


def test_every_configuration_of_a_small_space_can_be_listed(tmp_path):
    space = make_space(tmp_path, FOUR)
    labels = sorted(every(lambda pick: space.draw(pick).model.label(), exact=True))
    assert labels == ["id+additive+dot", "id+none+din", "pooling+additive+dot", "pooling+none+din"]


def test_a_continuous_space_cannot_be_listed(space):
    with pytest.raises(ValueError, match="continuous"):
        list(every(space.draw, exact=True))


def test_corners_hold_everything(space):
    corners = space.corners()
    assert len(corners) <= 8
    assert values(corners, "content", "name") == {"id", "cnn"}
    assert values(corners, "behavior", "name") == {"none", "additive", "attention"}
    assert values(corners, "predictor", "name") == {"dot", "dcn", "din"}
    assert values(corners, "content", "kernel_size", of="cnn") == {3, 5}
    assert values(corners, "content", "dropout", of="cnn") == {0.0, 0.2}
    assert values(corners, "behavior", "heads", of="attention") == {2, 4}
    assert values(corners, "predictor", "cross_layers", of="dcn") == {1, 3}
    assert values(corners, "predictor", "softmax", of="din") == {True, False}
    assert {config.train.learning_rate for config in corners} == {1e-4, 1e-2}
    assert corners == space.corners(), "the same every time"


def values(configs, kind, key, of=None):
    """The values that a part's setting has among configurations."""
    parts = [getattr(config.model, kind) for config in configs]
    return {part[key] for part in parts if of in (None, part["name"])}


def test_a_space_without_a_search_has_one_corner(tmp_path):
    text = FOUR.replace("{name: id}, {name: pooling}", "{name: id}")
    text = text.replace("{name: none}, {name: additive}", "{name: additive}")
    space = make_space(tmp_path, text.replace("{name: dot}, {name: din}", "{name: dot}"))
    (corner,) = space.corners()
    assert corner.model.label() == "id+additive+dot"


def test_starting_points_as_parameters(tmp_path):
    start = """start_with:
    - model: {content: {name: cnn, kernel_size: 5}, behavior: {name: additive}}
      train: {learning_rate: 1e-3}
    - model: {predictor: {name: din}}"""
    space = make_space(tmp_path, edited("trials: 5", start))
    first, second = start_params(space)
    assert first == {
        "model/content": "cnn",
        "model/content.cnn/kernel_size": 5,
        "model/behavior": "additive",
        "train/learning_rate": 1e-3,
    }
    assert second == {"model/behavior": "none", "model/predictor@sequence": "din"}


def test_a_space_can_be_pickled(space):
    again = pickle.loads(pickle.dumps(space))
    assert again.corners() == space.corners()
