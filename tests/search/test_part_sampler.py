"""The sampler that adds up what parts are worth: its model by hand, and what it finds."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from optuna.trial import TrialState
from scipy.integrate import quad
from scipy.stats import norm
from space_cases import make_space

from legoray.search import worth
from legoray.search.asktell import AskTell, Measured
from legoray.search.partsampler import _at_the_end
from legoray.search.worth import Kinds, Known, promise, standard

KINDS = Kinds(("content", "behavior"), ("rate",))
ROWS = [
    {"content": "a", "behavior": "x", "rate": 0.1, "a.size": "2"},
    {"content": "a", "behavior": "y", "rate": 0.5, "a.size": "3"},
    {"content": "b", "behavior": "x", "rate": 0.9},
    {"content": "b", "behavior": "y", "rate": 0.2},
    {"content": "c", "behavior": "x", "rate": 0.4, "c.share": 0.3},
]
NEW = [
    {"content": "a", "behavior": "x", "rate": 0.3, "a.size": "3"},
    {"content": "c", "behavior": "y", "rate": 0.8, "c.share": 0.9},
    {"content": "d", "behavior": "z", "rate": 0.6},
]
VALUES = np.array([0.60, 0.62, 0.55, 0.58, 0.64])


def covariance(one, other, weights):
    """By plain loops, as the header of `worth` has it."""
    content, behavior, pairs, settings, shared, by_part = weights

    def alike(name):
        if name not in one or name not in other:
            return 0.0
        if isinstance(one[name], float):
            return math.exp(-(((one[name] - other[name]) / worth.REACH) ** 2) / 2)
        return float(one[name] == other[name])

    of_parts = sum(alike(name) for name in KINDS.parts) / 2
    of_pairs = sum(alike(a) * alike(b) for a, b in itertools.combinations(KINDS.parts, 2)) / 2
    rest = (set(one) | set(other)) - set(KINDS.parts) - set(KINDS.shared)
    of_settings = sum(alike(name) for name in rest)
    return (
        1.0 + content * alike("content") + behavior * alike("behavior") + pairs * of_pairs
        + settings * of_settings + shared * alike("rate") + by_part * alike("rate") * of_parts
    )  # fmt: skip


def improvement(mean, spread, best):
    """What is expected beyond the best, by an integral."""
    end = max(mean, best) + 12 * spread
    return quad(lambda value: (value - best) * norm.pdf(value, mean, spread), best, end)[0]


def promised(errors, pending):
    """`promise` by inverses of matrices and integrals, for all draws of the weights."""
    target, scale = standard(VALUES)
    dice = np.random.default_rng(0)
    medians = np.array([worth.PART, worth.PART, *worth.OTHERS, worth.ERROR])
    draws = medians * np.exp(worth.SPREAD * dice.standard_normal((worth.WEIGHTS, 7)))
    likely, found = [], []
    for *weights, error in draws:

        def gram(left, right, weights=weights):
            return np.array([[covariance(a, b, weights) for b in right] for a in left])

        noise = np.diag(error + errors / scale**2)
        own = gram(ROWS, ROWS) + noise
        likely.append(-0.5 * target @ np.linalg.inv(own) @ target - 0.5 * np.linalg.slogdet(own)[1])
        rows, values = [*ROWS, *pending], target
        if pending:
            values = np.append(values, gram(pending, ROWS) @ np.linalg.inv(own) @ target)
        noise = np.diag([*(error + errors / scale**2), *[error] * len(pending)])
        inverse = np.linalg.inv(gram(rows, rows) + noise)
        best = (gram(rows, rows) @ inverse @ values).max()
        across = gram(NEW, rows)
        means = across @ inverse @ values
        spreads = np.sqrt(np.diag(gram(NEW, NEW) - across @ inverse @ across.T))
        pairs = zip(means, spreads, strict=True)
        found.append([improvement(mean, spread, best) for mean, spread in pairs])
    shares = np.exp(np.array(likely) - max(likely))
    shares = np.where(shares / shares.sum() < worth.LEAST, 0.0, shares)
    return shares / shares.sum() @ np.array(found)


@pytest.mark.parametrize("pending", [[], [NEW[1], ROWS[0]]])
@pytest.mark.parametrize("errors", [0.0, 4e-4])
def test_promises_are_those_of_the_formulas(errors, pending):
    each = np.full(len(ROWS), errors)
    found = promise(KINDS, Known(ROWS, VALUES, each), pending, NEW)
    assert found == pytest.approx(promised(each, pending), rel=1e-5)


def test_what_runs_is_less_promising():
    known = Known(ROWS, VALUES, np.zeros(len(ROWS)))
    before, after = promise(KINDS, known, [], NEW), promise(KINDS, known, [NEW[1]], NEW)
    left = after / before
    assert left[1] < 0.7
    assert left[1] < left[0] < 1


def test_the_worst_values_are_moved_up():
    values = np.array([0.5, 0.6, 0.61, 0.62, 0.59])
    found, scale = standard(values)
    assert found.mean() == pytest.approx(0)
    assert found.std() == pytest.approx(1)
    assert np.argsort(found).tolist() == np.argsort(values).tolist()
    assert (found[1] - found[0]) * scale == pytest.approx(3 * 1.4826 * 0.01)
    assert np.isfinite(standard(np.array([0.5]))[0]).all()
    assert np.isfinite(standard(np.full(3, 0.5))[0]).all()


SPACE = """\
name: sums
data: data.yaml
model:
  hidden_size: 16
  content:
    choice: [{names}]
  behavior: {{choice: [{{name: pooling}}, {{name: additive}}, {{name: gru}}, {{name: lstur}}]}}
  predictor: {{choice: [{{name: dot}}, {{name: bilinear}}, {{name: dnn}}, {{name: fm}}]}}
train: {{epochs: {epochs}, learning_rate: {{log: [1e-4, 1e-2]}}}}
search: {{sampler: {{name: {sampler}}}}}
seed: {seed}
""".replace(
    "{names}",
    ", ".join(
        f"{{{{name: {name}}}}}"
        for name in ("id", "pooling", "weighted-pooling", "cnn", "gru", "attention", "additive")
    ),
)


def open_study(folder, sampler, seed=1, epochs=1):
    space = make_space(folder, SPACE.format(sampler=sampler, seed=seed, epochs=epochs))
    return AskTell(space, folder / "study.journal", name="s")


def truth(seed):
    """Each part and the learning rate add something of their own."""
    dice = random.Random(seed)
    values: dict[str, float] = {}

    def measured(config):
        found = 0.1 * -abs(math.log10(config["train"]["learning_rate"]) + 3)
        for kind in ("content", "behavior", "predictor"):
            name = f"{kind} {config['model'][kind]['name']}"
            found += values.setdefault(name, random.Random(f"{seed} {name}").gauss(0, 0.1))
        return 0.6 + 0.2 * found + dice.gauss(0, 0.005)

    return measured


def test_it_finds_more_than_chance_and_than_tpe(tmp_path):
    best = {}
    for sampler in ("parts", "tpe", "random"):
        found = []
        for seed in range(4):
            study = open_study(tmp_path / f"{sampler}{seed}", sampler, seed)
            measured = truth(seed)
            for _ in range(24):
                asked = study.ask()
                study.conclude(asked.number, "completed", value=measured(asked.config))
            found.append(study.study.best_value)
        best[sampler] = np.mean(found)
    assert best["parts"] > best["tpe"]
    assert best["parts"] > best["random"] + 0.01


def test_what_was_stopped_is_taken_to_go_on_as_the_others_did(tmp_path):
    study = open_study(tmp_path, "random", epochs=3)
    curves = [(0.50, 0.56, 0.58), (0.52, 0.54, 0.53), (0.48,), (0.49, 0.51), (0.6,)]
    for curve in curves:
        number = study.ask().number
        for epoch, value in enumerate(curve, start=1):
            study.report(number, epoch, {"auc": value})
        study.conclude(number, "completed" if len(curve) == 3 or curve[0] == 0.6 else "pruned")
    values, errors = _at_the_end(study.rows(), 1.0)
    second = [0.06, 0.02, 0.02]  # what the second epoch brought those that had one
    third = [0.02, 0.0]
    assert values[:2].tolist() == [0.58, 0.54]
    assert values[2] == pytest.approx(0.48 + np.mean(second) + np.mean(third))
    assert values[3] == pytest.approx(0.51 + np.mean(third))
    assert values[4] == 0.6  # ended by itself
    assert errors[[0, 1, 4]].tolist() == [0.0, 0.0, 0.0]
    assert errors[2] == pytest.approx(np.var(second) + np.var(third))
    assert errors[3] == pytest.approx(np.var(third))


def test_a_part_that_cannot_be_trained_is_left_alone(tmp_path):
    study = open_study(tmp_path, "parts")
    asked = [study.ask() for _ in range(8)]  # eight run at once
    assert len({str(one.params) for one in asked}) == 8
    for _ in range(20):
        one = asked.pop(0)
        if one.config["model"]["content"]["name"] in ("gru", "attention"):
            study.conclude(one.number, "infeasible", reason="out of memory")
        else:
            rate = math.log10(one.config["train"]["learning_rate"])
            study.conclude(one.number, "completed", value=0.6 - 0.01 * abs(rate + 3))
        asked.append(study.ask())
    contents = [row.params["model/content"] for row in study.rows()]
    assert sum(name in ("gru", "attention") for name in contents[12:]) <= 2
    assert TrialState.WAITING not in {row.state for row in study.rows()}


def test_several_objectives_spread_over_the_front(tmp_path):
    text = SPACE.format(sampler="parts", seed=1, epochs=1)
    text = text.replace(
        "{name: parts}}", "{name: parts}, objectives: [auc, {name: latency, limit: 8}]}"
    )
    study = AskTell(make_space(tmp_path, text), tmp_path / "study.journal", name="s")
    order = ["id", "pooling", "weighted-pooling", "cnn", "gru", "attention", "additive"]
    drawn = []
    for _ in range(40):
        asked = study.ask()
        place = order.index(asked.config["model"]["content"]["name"])
        drawn.append(place)
        goals = {"auc": 0.5 + 0.02 * place}, {"latency_ms": 3.0 + place}
        study.conclude(asked.number, "completed", measured=Measured(*goals))
    late = drawn[12:]
    assert late.count(6) < len(late) / 7  # over the limit
    found = {row.params["model/content"] for row in study.study.best_trials}
    assert found <= set(order[:6])
    assert len(found) >= 5
