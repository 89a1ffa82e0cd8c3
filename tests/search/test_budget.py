"""Budgets: trials, epochs, hours, or whichever comes first, over all processes of a sweep."""

from __future__ import annotations

import io

import pytest
import tinytrain
from ray.tune.search import Searcher
from rich.console import Console

from legoray.errors import InputError
from legoray.search import budget as budgets
from legoray.search.budget import Budget, Clock, budget_of, left
from legoray.search.display import Board
from legoray.search.opening import open_sweep
from legoray.search.phases import Goal, Phases
from legoray.search.sweep import Sweep
from legoray.spaceconfig import SearchConfig

GOAL = Goal("auc", "max")


def opened(tmp_path, text=tinytrain.SPACE) -> Sweep:
    space = tinytrain.TinySpace(tmp_path / "space.yaml", text)
    return open_sweep(space, tmp_path / "sweep", tmp_path / "tables", tinytrain.MANIFEST)


@pytest.fixture
def sweep(tmp_path):
    found = opened(tmp_path)
    yield found
    found.close()


def phases(sweep, budget, count=6, epochs=3):
    configs = [tinytrain.config(0.01 * (n + 1), epochs) for n in range(count)]
    study = tinytrain.Listed(configs)
    return Phases(sweep, study, goal=GOAL, budget=budget, home="/h", finals=lambda: []), study


def train(sweep, searcher, trial_id, number, epochs, status="completed"):
    """What the scribe writes of a trial, and what Tune tells of it."""
    values = [{"epoch": float(n), "auc": 0.5} for n in range(1, epochs + 1)]
    sweep.change(number, epochs=values, best=values[-1] if values else {}, status=status)
    if status != "running":
        searcher.on_trial_complete(trial_id, {})


@pytest.mark.parametrize(
    ("given", "budget", "text"),
    [
        ({}, Budget(20), "20 trials"),
        ({"epochs": 1}, Budget(None, 1), "1 epoch"),
        ({"hours": 2.5}, Budget(None, None, 2.5), "2.5 hours"),
        (
            {"trials": 50, "epochs": 400, "hours": 1.0},
            Budget(50, 400, 1.0),
            "50 trials, 400 epochs or 1 hour",
        ),
    ],
)
def test_what_a_file_says(given, budget, text):
    search = SearchConfig(**given)
    assert budget_of(search) == budget
    assert str(budget) == text
    assert budget_of(search, 3).trials == 3, "the command line goes before the file"


def test_epochs_end_a_search_without_going_past_them_by_more_than_a_trial(sweep):
    searcher, _ = phases(sweep, Budget(epochs=7))
    numbers = [searcher.suggest(name)["number"] for name in ("a", "b", "c")]
    assert searcher.suggest("d") is None, "the three that run may use up nine epochs"
    train(sweep, searcher, "a", numbers[0], 1, "pruned")
    train(sweep, searcher, "b", numbers[1], 1, "pruned")
    fourth = searcher.suggest("d")["number"]  # 2 trained and 3 to come leave room for another
    assert searcher.suggest("e") is None
    train(sweep, searcher, "c", numbers[2], 3)
    train(sweep, searcher, "d", fourth, 3)
    assert searcher.suggest("e") == Searcher.FINISHED
    assert searcher.why == "epochs"
    assert budgets.trained_epochs(sweep) == 8
    assert not left(sweep, Budget(epochs=7))
    assert left(sweep, Budget(epochs=9))


def test_the_first_limit_that_is_reached_ends_it(sweep):
    searcher, _ = phases(sweep, Budget(trials=1, epochs=100, hours=1.0))
    train(sweep, searcher, "a", searcher.suggest("a")["number"], 3)
    assert searcher.suggest("b") == Searcher.FINISHED
    assert searcher.why == "trials"


def test_hours_count_over_all_processes(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(budgets.time, "monotonic", lambda: now[0])
    sweep = opened(tmp_path)
    searcher, _ = phases(sweep, Budget(hours=1.0))
    train(sweep, searcher, "a", searcher.suggest("a")["number"], 3)
    running = searcher.suggest("b")["number"]
    train(sweep, searcher, "b", running, 1, "running")
    now[0] += 3000.0
    searcher.on_trial_result("b", {"epoch": 1})
    now[0] += 4.0  # since the last note: this much is lost when the process is killed
    assert sweep.info.spent == 3000.0
    sweep.close()
    again = opened(tmp_path)
    again.interrupt()
    searcher, _ = phases(again, Budget(hours=1.0))
    now[0] += 601.0
    order = searcher.suggest("c")
    assert (order["number"], order["resumed"]) == (running, 1), "what has begun is finished"
    assert searcher.suggest("d") is None
    assert searcher.why == "hours"
    train(again, searcher, "c", running, 3)
    assert searcher.suggest("d") == Searcher.FINISHED
    assert again.info.ended == "hours"
    assert not left(again, Budget(hours=1.0))
    assert left(again, Budget(hours=2.0))
    again.close()


def test_the_time_of_the_finals_is_not_the_searchs(sweep):
    clock = Clock(sweep)
    clock.stop()
    seconds = sweep.info.spent
    clock.stop()
    assert sweep.info.spent == seconds == round(clock.seconds, 3)
    assert Clock(sweep, over=True).seconds == pytest.approx(seconds)


def test_another_budget_is_no_other_sweep(tmp_path):
    sweep = opened(tmp_path)
    config = tinytrain.config(0.1)
    sweep.begin("key", "search", "a", config, {})
    sweep.close()
    more = tinytrain.SPACE.replace("{trials: 4}", "{epochs: 9, hours: 2}")
    opened(tmp_path, more).close()
    with pytest.raises(InputError, match="search: has changed"):
        opened(tmp_path, more.replace("{epochs", "{concurrent: 2, epochs"))


def test_the_time_that_is_left(sweep):
    searcher, _ = phases(sweep, Budget(epochs=9))
    assert budgets.seconds_left(sweep, Budget(epochs=9), 1) is None
    assert budgets.seconds_left(sweep, Budget(hours=1.0), 1) == 3600.0
    train(sweep, searcher, "a", searcher.suggest("a")["number"], 3)
    sweep.change(0, costs={"seconds": 30.0})
    assert budgets.seconds_left(sweep, Budget(epochs=9), 2) == 30.0, "6 epochs of 10 s, two at once"
    sweep.set_state("searching", spent=3590.0)
    assert budgets.seconds_left(sweep, Budget(epochs=9, hours=1.0), 2) == 10.0
    board = Board(
        Console(file=io.StringIO()), sweep, goal=GOAL, trials=None, finals=0, slots=2,
        budget=Budget(epochs=9),
    )  # fmt: skip
    assert board.headline().startswith("1 trials done")
    assert "about 30 s left" in board.headline()
