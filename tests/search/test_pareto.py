"""The Pareto front: against a plain double loop, and what ties, limits and missing values do."""

from __future__ import annotations

import io
import math
from types import SimpleNamespace

import numpy as np
import pytest
import tinytrain
from rich.console import Console

from legoray.objectives import Objective, missing, non_dominated, objectives_of
from legoray.records import TrialRecord
from legoray.search.finals import finals_of
from legoray.search.fronttable import print_front
from legoray.search.opening import open_sweep
from legoray.search.pareto import front, knee, spread
from legoray.search.phases import Goal
from legoray.search.reuse import earlier_results
from legoray.search.scribe import Halt, Scribe
from legoray.spaceconfig import FinalConfig, ObjectiveConfig, SearchConfig

TWO = objectives_of([ObjectiveConfig(name="auc"), ObjectiveConfig(name="latency")], "auc")


def trial(number, auc, latency, status="completed", **more):
    record = TrialRecord(
        number=number, key=str(number), label="a+b+c", config={}, status=status,
        **more,
    )  # fmt: skip
    return record.model_copy(update={"best": {"auc": auc}, "costs": {"latency_ms": latency}})


def dominated_by_loop(points, modes):
    """The definition, in plain Python."""

    def dominates(a, b):
        better = [
            (x > y) if mode == "max" else (x < y) for x, y, mode in zip(a, b, modes, strict=True)
        ]
        worse = [
            (x < y) if mode == "max" else (x > y) for x, y, mode in zip(a, b, modes, strict=True)
        ]
        return any(better) and not any(worse)

    whole = [p for p in points if not any(math.isnan(v) for v in p)]
    return [
        not any(math.isnan(v) for v in p) and not any(dominates(other, p) for other in whole)
        for p in points
    ]


@pytest.mark.parametrize("modes", [("max",), ("min", "max"), ("max", "min", "min")])
@pytest.mark.parametrize("levels", [3, 1000])
def test_the_front_is_that_of_a_double_loop(modes, levels):
    dice = np.random.default_rng(len(modes) * levels)
    for _ in range(20):
        points = dice.integers(0, levels, (40, len(modes))).astype(float)  # few levels: many ties
        points[dice.random(points.shape) < 0.03] = np.nan
        assert non_dominated(points, modes).tolist() == dominated_by_loop(points.tolist(), modes)


def test_no_points_and_wrong_shapes():
    assert non_dominated([], ("max", "min")).tolist() == []
    with pytest.raises(ValueError, match="columns"):
        non_dominated([[1.0, 2.0, 3.0]], ("max", "min"))


def test_ties_and_duplicates_stay_together():
    records = [trial(0, 0.7, 3.0), trial(1, 0.6, 1.0), trial(2, 0.7, 3.0), trial(3, 0.7, 4.0)]
    assert [r.number for r in front(records, TWO)] == [0, 2, 1]


def test_only_whole_trials_of_the_search_are_compared():
    records = [
        trial(0, 0.6, 2.0),
        trial(1, 0.9, 1.0, "pruned"),
        trial(2, 0.9, 1.0, "failed"),
        trial(3, 0.9, 1.0, phase="final"),
        trial(4, math.nan, 1.0),
        trial(5, 0.9, math.inf),
    ]
    assert [r.number for r in front(records, TWO)] == [0]
    assert front([], TWO) == []
    assert missing(TWO, records[4].best, records[4].costs) == "its objective auc is nan"
    assert missing(TWO, {"auc": 0.5}, {}) == "its objective latency was not measured"


def test_a_limit_keeps_out_of_the_front():
    objectives = (Objective("auc", "max", 0.6), Objective("latency", "min", 2.0))
    records = [trial(0, 0.9, 5.0), trial(1, 0.7, 2.0), trial(2, 0.5, 0.1), trial(3, 0.6, 1.0)]
    assert [r.number for r in front(records, objectives)] == [1, 3]


def test_the_knee_is_nearest_to_the_best_of_all():
    members = front([trial(0, 1.0, 10.0), trial(1, 0.9, 2.0), trial(2, 0.0, 0.0)], TWO)
    assert knee(members, TWO).number == 1  # (0.1, 0.2) against (0, 1) and (1, 0)
    assert knee([], TWO) is None
    assert knee(members[:1], TWO).number == 0


def test_a_spread_takes_the_ends_before_what_lies_between():
    records = [trial(n, 1.0 - n / 10, 10.0 - n) for n in range(11)]
    records.append(trial(11, 1.0, 10.0))  # as the first one
    members = front(records, TWO)
    assert [r.number for r in spread(members, TWO, 3)] == [0, 10, 5]
    assert len(spread(members, TWO, 99)) == 12
    assert spread(members, TWO, 99)[-1].number == 11
    assert spread(members, TWO, 0) == []


def test_objectives_are_named_or_told_in_full():
    config = SearchConfig.model_validate(
        {"objectives": ["auc", {"name": "latency", "limit": 5.0}, "parameters", "logloss"]}
    )
    found = objectives_of(config.objectives, "auc")
    assert [(one.name, one.mode, one.limit) for one in found] == [
        ("auc", "max", None), ("latency", "min", 5.0), ("parameters", "min", None),
        ("logloss", "min", None),
    ]  # fmt: skip
    assert [one.name for one in objectives_of([], "mrr")] == ["mrr"]
    assert found[1].title == "latency (ms per 1,000 candidates)"


@pytest.fixture
def sweep(tmp_path):
    """A sweep of two objectives: three trials on its front, of which the last is beaten nowhere."""
    text = tinytrain.SPACE.replace("trials: 4", "objectives: [auc, latency]")
    space = tinytrain.TinySpace(tmp_path / "space.yaml", text)
    found = open_sweep(space, tmp_path / "sweep", tmp_path / "tables", tinytrain.MANIFEST)
    values = [(0.9, 9.0), (0.8, 5.0), (0.85, 6.0), (0.5, 1.0), (0.95, 0.5), (0.4, 9.5)]
    for number, (auc, latency) in enumerate(values):
        config = {"seed": 1, "n": number, "model": {"content": {"name": "id"}}}
        record = trial(number, auc, latency, "pruned" if number == 4 else "completed")
        found.records[number] = record.model_copy(update={"config": config})
    yield found
    found.close()


def test_finals_are_members_of_the_front_that_lie_apart(sweep):
    finals = finals_of(sweep, FinalConfig(top=3, seeds=1), "auc", "max")
    assert [final.config["n"] for final in finals] == [0, 3, 1]
    each = finals_of(sweep, FinalConfig(top=1, each="content", seeds=1), "auc", "max")
    assert [final.config["n"] for final in each] == [0]


def test_the_closing_lines_have_the_front_as_a_table(sweep):
    screen = io.StringIO()
    print_front(Console(file=screen, width=100), sweep)
    text = screen.getvalue()
    assert "Pareto front: 4 models of 5 that no other beats in every objective at once:" in text
    rows = [line.split("│")[1:-1] for line in text.splitlines() if "a+b+c" in line]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["0", "a+b+c", "0.9000", "9.00"],
        ["2", "a+b+c", "0.8500", "6.00"],
        ["1", "a+b+c ◆", "0.8000", "5.00"],
        ["3", "a+b+c", "0.5000", "1.00"],
    ]
    assert "ms per 1,000 candidates" in text
    sweep.info = sweep.info.model_copy(update={"objectives": []})
    print_front(Console(file=screen, width=100), sweep)
    assert screen.getvalue() == text, "one objective has no front"


def test_no_trial_within_a_limit_is_told(sweep):
    limit = ObjectiveConfig(name="latency", limit=0.1)
    sweep.info = sweep.info.model_copy(update={"objectives": [ObjectiveConfig(name="auc"), limit]})
    screen = io.StringIO()
    print_front(Console(file=screen, width=100), sweep)
    assert "No trial is within every limit (latency 0.1)" in screen.getvalue()


def test_a_trial_without_an_objective_has_failed(sweep):
    goal = Goal("auc", "max")
    scribe = Scribe(sweep, goal=goal, halt=Halt(), watchers=[])
    for number, costs in ((6, {}), (7, {"latency_ms": 2.0})):
        sweep.begin(str(number), "search", "a+b+c", {"seed": number}, {})
        outcome = {"epochs": [], "best": {"auc": 0.6}, "test": {}, "costs": costs, "reason": ""}
        one = SimpleNamespace(config={"number": number, "key": str(number), "resumed": 0})
        message = {"status": "completed", "outcome": outcome}
        scribe.on_trial_result(0, [], one, {"message": message, "done": True})
    assert sweep.records[6].status == "failed"
    assert sweep.records[6].reason == "its objective latency was not measured"
    assert sweep.records[7].status == "completed"


def test_costs_of_a_machine_are_measured_anew(sweep):
    said = []
    config = tinytrain.TinySpace(sweep.folder / "again.yaml", TIMED).config
    assert len(earlier_results(sweep, config, said.append)) == 0
    assert said == ["earlier results are not taken: latency must be measured here"]


TIMED = tinytrain.SPACE.replace("trials: 4", "objectives: [auc, latency, parameters]")
