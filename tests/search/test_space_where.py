"""Conditions, cases and ranges that other values move: all that draws from a space obeys them."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from space_cases import SPACE, edited, make_space, problems_of_space

from legoray.search.asktell import AskTell
from legoray.search.cover import complete, listing, valid_share
from legoray.search.space import SHARE
from legoray.search.start import start_params
from legoray.search.start_from import start_notes

HEAD = "model:\n"
RATE = "learning_rate: {log: [1e-4, 1e-2]}"
LAYERS = "cross_layers: {int: [1, 3]}"

CASE = """learning_rate:
    case: content
    cnn: {log: [1e-3, 1e-2]}
    id: 5e-4"""
MOVED = "cross_layers: {int: [1, behavior.heads - 1]}"


def where(*conditions: str, text: str = SPACE) -> str:
    lines = "".join(f"  - {condition}\n" for condition in conditions)
    return edited(HEAD, f"where:\n{lines}{HEAD}", text)


def rate(text: str) -> str:
    return edited(RATE, f"learning_rate: {text}")


def layers(text: str) -> str:
    return edited(LAYERS, f"cross_layers: {text}")


def drawn(space, count=60, seed=3):
    """Configurations of `count` drawings at random."""
    dice = random.Random(seed)
    found = [complete(space, {}, dice)[0] for _ in range(count)]
    return [drawing.config for drawing in found]


def asked(space, folder, count, name="random"):
    """Configurations that a study of the space proposes, with what was picked for each."""
    search = space.config.search
    sampler = search.sampler.model_validate({"name": name})
    search = search.model_copy(update={"sampler": sampler})
    object.__setattr__(space, "config", space.config.model_copy(update={"search": search}))
    study = AskTell(space, folder / f"{name}.journal", name="s")
    study.resume()
    found = []
    while len(found) < count and (suggestion := study.ask()):
        study.report(suggestion.number, 1, {"auc": 0.5 + 0.01 * (len(found) % 7)})
        study.conclude(suggestion.number, "completed")
        found.append(suggestion)
    return found, study


def fine(config) -> bool:
    """What the two conditions below say, in Python."""
    model = config["model"] if isinstance(config, dict) else config.model.model_dump()
    train = config["train"] if isinstance(config, dict) else config.train.model_dump()
    heads = model["behavior"].get("heads")
    small = heads is None or heads <= model["hidden_size"] // 8
    return small and (model["predictor"]["name"] != "dcn" or train["learning_rate"] < 1e-3)


CONDITIONS = (
    "behavior.heads <= hidden_size // 8",
    'not (predictor == "dcn" and train.learning_rate >= 1e-3)',
)


@pytest.mark.parametrize("name", ["random", "tpe", "nsga2", "cmaes"])
def test_samplers_propose_what_fulfils_the_conditions(tmp_path, name):
    start = """trials: 5
  start_with: [{model: {predictor: {name: dcn}}, train: {learning_rate: 2e-4}}]"""
    space = make_space(tmp_path, edited("trials: 5", start, where(*CONDITIONS)))
    found, study = asked(space, tmp_path, 18, name)
    assert len(found) == 18, study.exhausted
    assert all(fine(suggestion.config) for suggestion in found)
    assert found[0].config["model"]["predictor"]["name"] == "dcn"
    assert {s.config["model"]["behavior"].get("heads") for s in found} == {None, 2}
    assert {s.config["model"]["predictor"]["name"] for s in found} == {"dot", "dcn", "din"}


def test_corners_starts_and_the_grid_obey_too(tmp_path):
    grid = edited(RATE, "learning_rate: {choice: [2e-4, 5e-3]}", where(*CONDITIONS))
    space = make_space(tmp_path, edited("heads: {choice: [2, 4]}", "heads: {choice: [1, 2]}", grid))
    assert all(fine(config) for config in space.corners())
    listed = listing(space)
    assert listed is not None
    free = make_space(
        tmp_path / "free", grid.replace(grid[grid.index("where:") : grid.index(HEAD)], "")
    )
    every = listing(free)
    # of dcn (3 sizes, 3 behaviors without `none`) one of the two rates is out
    assert 0 < len(listed) < len(every)
    found, _ = asked(space, tmp_path, 10_000, "grid")
    assert len(found) == len(listed)
    assert all(fine(suggestion.config) for suggestion in found)
    told = problems_of_space(
        tmp_path / "start",
        edited("trials: 5", "start_with: [{model: {predictor: {name: dcn}}, "
               "train: {learning_rate: 5e-3}}]", where(*CONDITIONS)),
    )  # fmt: skip
    assert len(told) == 1
    assert "not valid here" in told[0]
    assert "does not hold" in told[0]


def test_conditions_on_parts_alone_narrow_the_choices_so_that_nothing_is_rejected(tmp_path):
    text = where('not (content == "cnn" and behavior.name == "additive")', 'predictor != "dcn"')
    space = make_space(tmp_path, text)
    assert {c.model.predictor["name"] for c in space.corners()} == {"dot", "din"}
    pairs = Counter((c.model.content["name"], c.model.behavior["name"]) for c in drawn(space))
    assert ("cnn", "additive") not in pairs
    assert len(pairs) == 5
    found, study = asked(space, tmp_path, 30, "tpe")
    assert len(found) == 30
    assert all("outcome" not in row.user_attrs for row in study.rows()), "nothing was rejected"


def test_a_setting_that_is_absent_makes_a_condition_hold(tmp_path):
    space = make_space(tmp_path, where("content.kernel_size == 5", "behavior.heads == 2"))
    configs = drawn(space)
    assert {c.model.content["name"] for c in configs} == {"id", "cnn"}
    assert {c.model.content.get("kernel_size") for c in configs} == {None, 5}
    assert {c.model.behavior["name"] for c in configs} == {"none", "additive", "attention"}


def test_defaults_count_in_conditions(tmp_path):
    told = problems_of_space(tmp_path, where("train.batch_size * train.accumulate < 64"))
    assert told == [
        f"{tmp_path}/space.yaml:4: where[0]: no configuration of this space fulfils "
        "'train.batch_size * train.accumulate < 64' (4000 were drawn)"
    ]


def test_conditions_that_nothing_fulfils_together_are_named(tmp_path):
    text = where("train.learning_rate < 1e-3", "train.learning_rate * 2 > 1e-2")
    told = problems_of_space(tmp_path, text)
    assert len(told) == 2
    assert all("together with the other conditions" in line for line in told)
    assert "'train.learning_rate < 1e-3'" in told[0]


def test_a_narrow_space_is_found_searched_and_told(tmp_path):
    text = rate("{log: [1e-4, 1e-2]}\n  batch_size: {int: [1, 512]}")
    text = where("train.batch_size * 3 == 768", "train.max_history == 50", text=text)
    space = make_space(tmp_path, text)
    assert valid_share(space) < 0.02
    (note,) = start_notes(space)
    assert "less than 1% of what is drawn" in note
    assert "smaller ranges" in note
    found, study = asked(space, tmp_path, 6, "tpe")
    assert len(found) == 6, study.exhausted
    assert {s.config["train"]["batch_size"] for s in found} == {256}


def test_a_case_gives_each_value_its_own_range_or_constant(tmp_path):
    space = make_space(tmp_path, edited(RATE, CASE))
    rates = {}
    for config in drawn(space):
        rates.setdefault(config.model.content["name"], []).append(config.train.learning_rate)
    assert set(rates["id"]) == {5e-4}
    assert all(1e-3 <= rate <= 1e-2 for rate in rates["cnn"])
    corners = {(c.model.content["name"], c.train.learning_rate) for c in space.corners()}
    assert {("cnn", 1e-3), ("cnn", 1e-2), ("id", 5e-4)} <= corners
    found, _ = asked(space, tmp_path, 12, "tpe")
    for suggestion in found:
        cnn = suggestion.config["model"]["content"]["name"] == "cnn"
        assert ("train/learning_rate.cnn" in suggestion.params) == cnn
    assert "train/learning_rate.cnn" in space.params


def test_cases_of_numbers_of_truth_values_and_of_subtrees(tmp_path):
    text = edited("hidden_size: 16", "hidden_size: {choice: [16, 32]}")
    text = edited("epochs: 3", """epochs: {case: hidden_size, 16: {choice: [1, 2]}, 32: 7}
  clip_norm: {case: content.dropout > 0.1, true: null, else: 2.5}
  weight_decay: {case: model/predictor, din: {case: train.epochs, 7: 0.5, else: 0.25}, else: 0}
""", text)  # fmt: skip
    space = make_space(tmp_path, text)
    for config in drawn(space):
        model, train = config.model, config.train
        assert train.epochs == 7 if model.hidden_size == 32 else train.epochs in (1, 2)
        noisy = model.content.get("dropout", 0) > 0.1
        assert train.clip_norm == (None if noisy else 2.5)
        din = model.predictor["name"] == "din"
        assert train.weight_decay == ((0.5 if train.epochs == 7 else 0.25) if din else 0)


def test_a_range_that_another_value_moves(tmp_path):
    text = edited("heads: {choice: [2, 4]}", "heads: {choice: [2, 4, 8]}", edited(LAYERS, MOVED))
    text = edited("      - {name: none}\n      - {name: additive}\n", "", text)
    text = edited("      - {name: din, softmax: {choice: [true, false]}}\n", "", text)
    space = make_space(tmp_path, text)
    seen = Counter(
        (c.model.behavior["heads"], c.model.predictor["cross_layers"])
        for c in drawn(space, 150)
        if c.model.predictor["name"] == "dcn"
    )
    assert set(seen) == {(2, 1), *((4, n) for n in (1, 2, 3)), *((8, n) for n in range(1, 8))}
    corners = {
        c.model.predictor["cross_layers"]
        for c in space.corners()
        if "cross_layers" in c.model.predictor
    }
    assert 1 in corners
    found, study = asked(space, tmp_path, 12, "tpe")
    found += asked(space, tmp_path, 12, "cmaes")[0]
    path = "model/predictor.dcn/cross_layers"
    for suggestion in found:
        layers = suggestion.config["model"]["predictor"].get("cross_layers")
        assert suggestion.params.get(path) == layers, "the value is told, not its share"
        assert layers is None or layers < suggestion.config["model"]["behavior"]["heads"]
    ends = {
        row.distributions[path + SHARE] for row in study.rows() if path + SHARE in row.distributions
    }
    assert len(ends) == 1, "the sampler's own range never moves"


def test_a_start_within_a_range_that_moves(tmp_path):
    start = """start_with:
    - model: {behavior: {heads: 4}, predictor: {name: dcn, cross_layers: 3}}
    - model: {predictor: {name: dcn, cross_layers: 2}}"""
    text = edited(LAYERS, MOVED, edited("trials: 5", start))
    text = edited("      - {name: none}\n      - {name: additive}\n", "", text)
    text = edited("      - {name: din, softmax: {choice: [true, false]}}\n", "", text)
    text = edited(
        "{name: attention, heads: {choice: [2, 4]}}",
        "{name: attention, heads: {choice: [2, 4]}}",
        text,
    )
    space = make_space(
        tmp_path, text.replace("behavior: {heads: 4}", "behavior: {name: attention, heads: 4}")
    )
    first, second = start_params(space)
    path = "model/predictor.dcn/cross_layers"
    assert path not in first
    assert second["model/behavior.attention/heads"] == 4, "two layers need it"
    found, _ = asked(space, tmp_path, 2)
    assert [s.params[path] for s in found] == [3, 2]
    bad = text.replace("{heads: 4}", "{name: attention, heads: 2}")
    told = problems_of_space(tmp_path / "bad", bad)
    assert "is 3, here it goes from 1 to 1" in told[0]


def test_a_start_says_what_its_case_allows(tmp_path):
    start = "start_with: [{model: {content: {name: %s}}, train: {learning_rate: %s}}]"
    fits = edited(RATE, CASE, edited("trials: 5", start % ("cnn", "2e-3")))
    (params,) = start_params(make_space(tmp_path, fits))
    assert params["train/learning_rate.cnn"] == 2e-3
    for content, rate in (("cnn", "5e-4"), ("id", "2e-3")):
        bad = edited(RATE, CASE, edited("trials: 5", start % (content, rate)))
        (told,) = problems_of_space(tmp_path / content, bad)
        assert ":28: search.start_with[0].train.learning_rate: is" in told, told


def test_presets_obey_conditions_and_cases(tmp_path):
    text = """name: p
data: data.yaml
where: predictor.name != "din"
model: {preset: {choice: [naml, nrms, din-text]}}
train: {epochs: {case: preset, naml: 2, else: 3}}
"""
    space = make_space(tmp_path, text)
    assert {(c.model.preset, c.train.epochs) for c in space.corners()} == {("naml", 2), ("nrms", 3)}


MISTAKES = {
    "unknown name": (where("content.kernelsize == 3"), ":4: where[0]", "'content.kernel_size'"),
    "no formula": (where("content.kernel_size <"), ":4: where[0]", "character 22"),
    "says nothing": (where("content.kernel_size + 1"), ":4: where[0]", "true or false"),
    "types": (where('content.name < 3'), ":4: where[0]", "does not work on"),
    "no text": (where("3"), ":4: where[0]", "is 3"),
    "unknown in a case": (rate("{case: contnt, else: 1e-3}"), ":23:", "'content'"),
    "never": (rate("{case: content, cn: 1e-3, else: 1e-3}"), ":23:", "'cnn'?"),
    "no line": (rate("{case: content, cnn: 1e-3}"), ":23:", "no line for id"),
    "absent": (rate("{case: content.kernel_size, 3: 1e-3, 5: 1e-2}"), ":23:",
               "configurations without content.kernel_size"),
    "only a case": (rate("{case: content}"), ":23:", "no line beside"),
    "another word": (rate("{switch: content, cnn: 1}"), ":23:", "use 'case'"),
    "wrong in a case": (edited(RATE, CASE.replace("5e-4", "5")), ":26:", "less than or equal to 1"),
    "end unknown": (layers("{int: [1, predictor.layer]}"), ":19:", "no setting"),
    "end no formula": (layers("{int: [1, 'a +']}"), ":19:", "character 4"),
    "fraction": (layers("{float: [1, hidden_size]}"), ":19:", "valid integer"),
    "empty": (layers("{int: [hidden_size, 3]}"), ":19:", "from 16 to 3"),
    "itself": (layers("{int: [1, predictor.cross_layers]}"), ":19:", "itself"),
    "part": (edited("content:\n    choice:", "content:\n    case: hidden_size\n    else:"),
             "model.content", "does not depend"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_told_with_its_place(tmp_path, case):
    text, *words = MISTAKES[case]
    told = problems_of_space(tmp_path, text)
    assert len(told) == 1, told
    for word in words:
        assert word in told[0], told[0]
