"""What every sampler keeps on every kind of space, asked and told directly; and which ones fit."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler
from optuna.trial import TrialState
from space_cases import SPACE, edited, make_space, problems_of_space

from legoray.config import TrialConfig
from legoray.search.asktell import AskTell, Measured
from legoray.search.cma import Axis, CmaSampler
from legoray.search.samplers import PARZEN, sampler_notes, values_in
from legoray.search.space import key_of
from legoray.spaceconfig import SamplerConfig

FLAT = """\
name: flat
data: data.yaml
model:
  hidden_size: {choice: [8, 16]}
  content: {choice: [{name: id}, {name: pooling}]}
  behavior: {name: additive}
  predictor: {name: dot}
train:
  epochs: {int: [1, 6]}
  weight_decay: {float: [0.0, 0.4], step: 0.1}
  learning_rate: {log: [1e-4, 1e-2]}
search: {}
"""
SPACES = {"flat": FLAT, "conditional": SPACE.replace("search:\n  trials: 5\n", "search: {}\n")}
OWN = {
    "tpe": "startup_trials: 4", "parts": "startup_trials: 4, candidates: 40",
    "gp": "startup_trials: 7", "nsga2": "population: 4",
    "nsga3": "population: 4, divisions: 2", "cmaes": "startup_trials: 3, population: 4",
}  # fmt: skip
MANY = "objectives: [auc, latency, parameters]"


def search(sampler, kind="flat", more=""):
    settings = ", ".join(filter(None, [f"name: {sampler}", OWN.get(sampler, "")]))
    parts = [f"sampler: {{{settings}}}", *filter(None, [more or default_goals(sampler)])]
    return SPACES[kind].replace("search: {}", "search: {" + ", ".join(parts) + "}")


def default_goals(sampler):
    return MANY if sampler == "nsga3" else ""


def measured(config):
    """A made-up result: smooth in the numbers, decided by the configuration alone."""
    rate = math.log10(config["train"]["learning_rate"])
    auc = 0.8 - 0.05 * (rate + 3.2) ** 2 - 0.1 * config["train"]["weight_decay"]
    size = float(config["model"]["hidden_size"])
    costs = {"latency_ms": size / 10 + config["train"]["epochs"], "parameters": 100 * size}
    return Measured({"auc": auc}, costs)


def go(study, count):
    """Ask and tell: every fifth is pruned, every seventh cannot be trained."""
    keys = []
    for _ in range(count):
        found = study.ask()
        TrialConfig.model_validate(found.config)
        keys.append(key_of(found.config))
        result = measured(found.config)
        study.report(found.number, 1, result.best)
        if found.number % 5 == 4:
            study.conclude(found.number, "pruned")
        elif found.number % 7 == 6:
            study.conclude(found.number, "infeasible", reason="out of memory")
        else:
            study.conclude(found.number, "completed", measured=result)
    return keys


def open_study(folder, text):
    study = AskTell(make_space(folder, text), folder / "study.journal", name="s")
    study.resume()
    return study


def states(study):
    return [row.state for row in study.rows()]


SLOW = [("gp", "flat", ""), ("gp", "conditional", MANY)]
CASES = [
    pytest.param(sampler, kind, goals, id=f"{sampler}-{kind}-{'several' if goals else 'one'}")
    for sampler in ("tpe", "parts", "random", "gp", "nsga2", "nsga3", "cmaes")
    for kind in SPACES
    for goals in ("", MANY)
    if (sampler, kind, goals) not in SLOW
    and not (sampler == "nsga3" and not goals)
    and not (sampler == "cmaes" and goals)
]


@pytest.mark.parametrize(("sampler", "kind", "goals"), CASES)
def test_the_contract_of_samplers(tmp_path, sampler, kind, goals):
    """Valid and distinct proposals, the same ones for the same seed, and nothing left running."""
    text = search(sampler, kind, goals)
    first = open_study(tmp_path / "a", text)
    keys = go(first, 11)
    assert len(set(keys)) == 11
    assert go(open_study(tmp_path / "b", text), 11) == keys
    running = first.ask()  # of a process that dies here
    again = open_study(tmp_path / "a", text)
    assert again.ask().config == running.config
    again.close()
    again = open_study(tmp_path / "a", text)
    more = go(again, 3)
    assert key_of(running.config) == more[0]
    assert not set(more) & set(keys)
    assert again.done() == 14
    assert not {TrialState.RUNNING, TrialState.WAITING} & set(states(again))


@pytest.mark.parametrize("goals", ["", MANY])
def test_a_grid_goes_through_all_of_a_space(tmp_path, goals):
    text = search("grid", more=goals).replace("log: [1e-4, 1e-2]", "choice: [1e-4, 1e-3]")
    text = text.replace("{int: [1, 6]}", "2").replace("weight_decay: {float", "# {float")
    assert len(set(go(open_study(tmp_path, text), 5))) == 5
    again = open_study(tmp_path, text)
    go(again, 3)
    assert again.ask() is None
    assert "all configurations" in again.exhausted


def best_values(sampler, count=60):
    """The mean of the best quarter on a bowl in four numbers, two of them with steps."""
    study = optuna.create_study(sampler=sampler)
    for number in range(count):
        trial = study.ask()
        drawn = {
            name: trial.suggest_float(name, d.low, d.high, step=d.step, log=d.log)
            if isinstance(d, FloatDistribution)
            else trial.suggest_int(name, d.low, d.high, step=d.step)
            for name, d in NUMBERS.items()
        }
        assert 0 < drawn["rate"] <= 0.1
        value = (math.log10(drawn["rate"]) + 2.5) ** 2 + (drawn["decay"] - 0.3) ** 2
        value += (drawn["x"] - 0.7) ** 2 + (drawn["layers"] - 5) ** 2 / 9
        study.tell(trial, None if number % 9 == 8 else value, state=STATE.get(number % 9))
    assert len(study.get_trials(states=[TrialState.RUNNING])) == 0
    found = [t.value for t in study.get_trials(states=[TrialState.COMPLETE])]
    return float(np.mean(sorted(found)[: count // 4]))


NUMBERS = {
    "rate": FloatDistribution(1e-4, 1e-1, log=True), "x": FloatDistribution(-1.0, 1.0),
    "decay": FloatDistribution(0.0, 1.0, step=0.1), "layers": IntDistribution(1, 8),
}  # fmt: skip
STATE = {8: TrialState.PRUNED}


def test_cmaes_finds_better_numbers_than_chance():
    def cmaes(seed):
        rest = RandomSampler(seed=seed)
        return CmaSampler(
            NUMBERS, seed=seed, startup_trials=4, population=None, sigma=0.3, rest=rest
        )

    mine = [best_values(cmaes(seed)) for seed in range(4)]
    chance = [best_values(RandomSampler(seed=seed)) for seed in range(4)]
    assert np.mean(mine) < 0.5 * np.mean(chance)


def test_cmaes_goes_on_in_another_process_as_if_it_were_the_same(tmp_path):
    """Its state is not kept but replayed from what it drew, and nothing of it is a pickle."""
    text = search("cmaes")
    first = open_study(tmp_path, text)
    go(first, 12)
    again = open_study(tmp_path, text)
    first.ask(), again.ask()
    rows = [row for row in first.rows() if row.state.is_finished()]
    states = [s.study.sampler._replayed(rows, s.study.direction) for s in (first, again)]
    assert states[0].generation == states[1].generation >= 1
    assert np.array_equal(states[0].mean, states[1].mean)
    assert not np.allclose(states[0].mean, 0.5)
    kept = {name for row in rows for name in row.system_attrs}
    assert kept == {"legoray-cma:generation", "legoray-cma:point"}


def test_values_of_several_objectives_reach_the_study(tmp_path):
    text = search("random", more="objectives: [auc, {name: latency, limit: 5}]")
    study = open_study(tmp_path, text)
    good, slow, blind, lost = (study.ask().number for _ in range(4))
    study.report(good, 1, {"auc": 0.6})
    study.report(good, 2, {"auc": 0.7})
    study.conclude(good, "completed", measured=Measured({"auc": 0.7}, {"latency_ms": 4.0}))
    study.conclude(slow, "completed", measured=Measured({"auc": 0.8}, {"latency_ms": 9.0}))
    study.conclude(blind, "completed", measured=Measured({"auc": 0.8}, {}))
    study.conclude(lost, "completed", measured=Measured({"auc": 0.8}, {"latency_ms": math.nan}))
    rows = study.rows()
    assert rows[good].values == [0.7, 4.0]
    assert rows[good].user_attrs["epochs"] == {"1": 0.6, "2": 0.7}
    assert [list(rows[n].constraints.values()) for n in (good, slow)] == [[-1.0], [4.0]]
    assert [row.number for row in study.study.best_trials] == [good]
    assert [rows[n].user_attrs["outcome"] for n in (blind, lost)] == ["failed", "failed"]
    assert rows[blind].user_attrs["reason"] == "its objective latency was not measured"
    assert rows[lost].user_attrs["reason"] == "its objective latency is nan"


@pytest.mark.parametrize(
    ("sampler", "kind", "goals", "reason", "fitting"),
    [
        ("cmaes", "flat", MANY, "has one objective", "tpe, parts, random, gp, nsga2, nsga3"),
        (
            "nsga3",
            "flat",
            "trials: 5",
            "several objectives",
            "tpe, parts, random, gp, nsga2, cmaes",
        ),
        ("cmaes", "choices", "", "numbers that every", "tpe, parts, random"),
        ("gp", "choices", "", "models values that every", "tpe, parts, random"),
    ],
)
def test_a_sampler_that_does_not_fit_is_refused(tmp_path, sampler, kind, goals, reason, fitting):
    if kind == "choices":  # nothing but what stands below the choice of an operator
        text = search(sampler, "conditional").replace("{log: [1e-4, 1e-2]}", "1e-3")
        text = text.replace("      - {name: none}\n      - {name: additive}\n", "")
        start, end = text.index("  content:"), text.index("  behavior:")
        text = text[:start] + "  content: {name: id}\n" + text[end:]
        start, end = text.index("  behavior:"), text.index("train:")
        text = text[:start] + CONDITIONAL + text[end:]
    else:
        text = search(sampler, kind, goals)
    (problem,) = problems_of_space(tmp_path, text)
    assert reason in problem
    assert f"samplers that fit: {fitting}" in problem
    assert "search.sampler" in problem


CONDITIONAL = """\
  behavior: {name: attention, heads: 2}
  predictor: {name: dot}
"""


def test_what_a_sampler_cannot_model_is_told(tmp_path):
    def notes(sampler, kind, more=""):
        return sampler_notes(make_space(tmp_path, search(sampler, kind, more)))

    assert notes("tpe", "conditional") == []
    assert notes("gp", "flat", "scheduler: {name: none}") == []
    (split, learns) = notes("gp", "conditional")
    assert "gp models model/content, model/behavior, train/learning_rate;" in split
    assert "model/content.cnn/kernel_size" in split.partition(";")[2]
    assert split.endswith("are drawn by tpe, each by itself")
    assert "asha stops" in learns
    (split,) = notes("cmaes", "flat")
    assert "cmaes models train/epochs, train/weight_decay, train/learning_rate;" in split
    assert split.endswith("; model/hidden_size, model/content are drawn by tpe, each by itself")
    (learns, chance) = notes("nsga2", "flat", "trials: 4")
    assert "first 4 trials at random, and the search has 4" in chance


def test_values_of_some_configurations_are_told_from_those_of_all(tmp_path):
    values = values_in(make_space(tmp_path, SPACES["conditional"]))
    assert set(values.shared) == {"model/content", "model/behavior", "train/learning_rate"}
    assert "model/behavior.attention/heads" in values.others
    assert any(name.startswith("model/predictor") for name in values.others)


def test_settings_of_another_sampler_are_refused(tmp_path):
    text = search("random").replace("name: random", "name: random, population: 5")
    (problem,) = problems_of_space(tmp_path, text)
    assert "`population` is a setting of the samplers nsga2, nsga3, cmaes, not of random" in problem
    text = SPACES["flat"].replace("search: {}", "search: {scheduler: {name: median, reduction: 2}}")
    (problem,) = problems_of_space(tmp_path, text)
    assert "`reduction` is a setting of the schedulers asha, hyperband, not of median" in problem


@pytest.mark.parametrize(
    "distribution",
    [
        FloatDistribution(-1.0, 3.0), FloatDistribution(1e-4, 1e-1, log=True),
        FloatDistribution(0.0, 0.4, step=0.1), IntDistribution(2, 11, step=3),
        IntDistribution(1, 64, log=True),
    ],
)  # fmt: skip
def test_places_of_values_come_back(distribution):
    axis = Axis(distribution)
    for place in np.linspace(0, 1, 21):
        value = axis.value(place)
        assert distribution._contains(distribution.to_internal_repr(value))
        assert axis.value(axis.place(value)) == pytest.approx(value, rel=1e-12)
    ends = (axis.value(0.0), axis.value(1.0))
    assert ends == pytest.approx((distribution.low, distribution.high))


def test_defaults_are_those_of_the_literature():
    config = SamplerConfig()
    assert (config.name, PARZEN, config.crossover) == ("tpe", 24, 0.9)


def test_mistakes_in_objectives_are_all_told(tmp_path):
    goals = "objectives: [mrr, latncy, {name: parameters}, parameters, hit@3]"
    problems = problems_of_space(tmp_path, edited("trials: 5", goals))
    assert len(problems) == 4
    assert "the first objective must be what selects: 'auc'" in problems[0]
    assert "did you mean 'latency'?" in problems[1]
    assert "'parameters' stands twice" in problems[2]
    assert "'hit@3' is not measured" in problems[3]
