"""The parts of the Tune run that need no Ray: schedulers, phases, records, board, closing lines."""

from __future__ import annotations

import io
import math
import time
from types import SimpleNamespace

import pytest
import tinytrain
from ray.tune.search import Searcher
from rich.console import Console

from legoray.records import TrialRecord
from legoray.search.closing import closing
from legoray.search.display import Board, span
from legoray.search.finals import finals_of, ranked, summaries, winner
from legoray.search.opening import open_sweep
from legoray.search.phases import Budget, Goal, Phases
from legoray.search.scheduler import make_scheduler
from legoray.search.scribe import Halt, Scribe
from legoray.search.slots import lost_a_peer
from legoray.search.tuner import _scheduler
from legoray.spaceconfig import FinalConfig, SchedulerConfig, SearchConfig

GOAL = Goal("auc", "max")


@pytest.fixture
def sweep(tmp_path):
    space = tinytrain.TinySpace(tmp_path / "space.yaml", tinytrain.SPACE)
    found = open_sweep(space, tmp_path / "sweep", tmp_path / "tables", tinytrain.MANIFEST)
    yield found
    found.close()


class FakeTrial:
    """What schedulers look at of Tune's trials."""

    def __init__(self, number: int, phase: str = "search", status: str = "RUNNING") -> None:
        self.trial_id, self.config, self.status = str(number), {"phase": phase}, status


trial = FakeTrial


def decide(scheduler, one, epoch, value):
    controller = SimpleNamespace(get_live_trials=lambda: [trial(77, status="PENDING")])
    return scheduler.on_trial_result(controller, one, {"epoch": epoch, "value": value})


def record(number: int, values: list[float], status: str = "completed", **more) -> TrialRecord:
    epochs = [{"epoch": e, "auc": v} for e, v in enumerate(values, 1)]
    best = max(epochs, key=lambda e: e["auc"], default={})
    config = more.pop("config", {"seed": 1, "n": number})
    return TrialRecord(
        number=number, key=str(number), label="a+b+c", config=config, status=status,
        epochs=epochs, best=best, started=1.0, ended=3.0, **more,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["asha", "hyperband", "median", "none"])
def test_schedulers_stop_what_falls_behind_and_never_the_finals(name):
    own = {"reduction": 2} if name in ("asha", "hyperband") else {}
    config = SchedulerConfig(name=name, **own)
    scheduler = make_scheduler(config, 4, GOAL, [])
    stopped = set()
    for number in range(12):
        one = trial(number)
        scheduler.on_trial_add(None, one)
        for epoch in (1, 2, 3):
            decision = decide(scheduler, one, epoch, float(-number))
            if decision == "STOP":
                stopped.add(number)
                break
            assert decision != "PAUSE"
    assert 0 not in stopped
    assert bool(stopped) == (name != "none")
    final = trial(99, "final")
    scheduler.on_trial_add(None, final)
    assert decide(scheduler, final, 1, -1e9) == "CONTINUE"
    odd = trial(98)
    scheduler.on_trial_add(None, odd)
    assert decide(scheduler, odd, 1, math.nan) == "CONTINUE"


def test_a_resumed_search_compares_with_the_trials_before(sweep):
    earlier = [record(n, [0.8, 0.9]) for n in range(3)]
    for before, expected in ((earlier, "STOP"), ([], "CONTINUE")):
        scheduler = make_scheduler(SchedulerConfig(), 4, GOAL, before)
        one = trial(7)
        scheduler.on_trial_add(None, one)
        assert decide(scheduler, one, 1, 0.5) == expected


def test_a_resumed_trial_has_been_judged_by_the_epochs_that_it_has(sweep):
    """ASHA's first rung holds what the trial had at that epoch, before it was interrupted."""
    sweep.records[5] = record(5, [0.8, 0.9], status="interrupted")
    search = SearchConfig(scheduler=SchedulerConfig(grace_epochs=1, reduction=2))
    scheduler = _scheduler(sweep, SimpleNamespace(search=search, epochs=8, goal=GOAL))
    again = trial(5)
    again.config["number"] = 5
    scheduler.on_trial_add(None, again)
    other = trial(6)
    scheduler.on_trial_add(None, other)
    assert decide(scheduler, other, 1, 0.7) == "STOP"
    assert decide(scheduler, again, 3, 0.9) == "CONTINUE"


def test_the_median_rule_goes_on_after_trials_that_it_would_have_stopped():
    """The past trials came to their end, whatever the rule thinks of them in another order."""
    earlier = [record(n, [0.9 - n / 10] * 4) for n in range(6)]
    config = SchedulerConfig(name="median", grace_epochs=1)
    scheduler = make_scheduler(config, 4, GOAL, earlier)
    one = trial(7)
    scheduler.on_trial_add(None, one)
    assert decide(scheduler, one, 1, 0.1) == "STOP"


def test_the_smaller_is_better_where_the_metric_says_so():
    scheduler = make_scheduler(SchedulerConfig(), 4, Goal("logloss", "min"), [])
    good, bad = trial(1), trial(2)
    for one in (good, bad):
        scheduler.on_trial_add(None, one)
    assert decide(scheduler, good, 1, 0.2) == "CONTINUE"
    assert decide(scheduler, bad, 1, 0.9) == "STOP"


def phases(sweep, configs, trials=None, finals=()):
    study = tinytrain.Listed(configs)
    budget = Budget(trials or len(configs))
    found = Phases(sweep, study, goal=GOAL, budget=budget, home="/h", finals=lambda: list(finals))
    return found, study


def end(sweep, searcher, trial_id, number, **changes):
    sweep.change(number, status="completed", ended=1.0, **changes)
    searcher.on_trial_complete(trial_id, {})


def test_finals_wait_for_the_last_trial_of_the_search(sweep):
    searcher, study = phases(sweep, [tinytrain.config(0.1), tinytrain.config(0.2)])
    searcher._plan = lambda: finals_of(sweep, FinalConfig(top=1, seeds=2), "auc", "max")
    orders = [searcher.suggest("a"), searcher.suggest("b")]
    assert [o["phase"] for o in orders] == ["search", "search"]
    assert searcher.suggest("c") is None
    end(sweep, searcher, "a", 0, best={"auc": 0.5}, epochs=[{"epoch": 1, "auc": 0.5}])
    assert searcher.suggest("c") is None
    end(sweep, searcher, "b", 1, best={"auc": 0.7}, epochs=[{"epoch": 1, "auc": 0.7}])
    finals = [searcher.suggest("c"), searcher.suggest("d")]
    assert [f["phase"] for f in finals] == ["final", "final"]
    assert '"test":true' in finals[0]["job"]
    assert searcher.suggest("e") == Searcher.FINISHED
    assert [t["status"] for t in study.told] == ["completed", "completed"]
    assert sweep.info.state == "finals"


def test_a_result_that_the_study_never_heard_of_is_told_and_not_trained_again(sweep):
    searcher, _ = phases(sweep, [tinytrain.config(0.1)])
    searcher.suggest("a")
    sweep.change(0, status="completed", best={"auc": 0.5}, epochs=[{"epoch": 1, "auc": 0.5}])
    again, study = phases(sweep, [tinytrain.config(0.1), tinytrain.config(0.2)], trials=2)
    order = again.suggest("b")
    assert order["number"] == 1
    told = {"epoch": 1, "auc": 0.5, "status": "completed", "reason": ""}
    assert study.told == [{"error": False, **told, "best": {"auc": 0.5}, "costs": {}}]


def test_an_interrupted_trial_goes_on_under_its_number(sweep):
    searcher, _ = phases(sweep, [tinytrain.config(0.1)])
    searcher.suggest("a")
    sweep.change(0, epochs=[{"epoch": 1, "auc": 0.5}], best={"epoch": 1, "auc": 0.5})
    sweep.interrupt()
    again, study = phases(sweep, [tinytrain.config(0.1)])
    order = again.suggest("b")
    assert (order["number"], order["resumed"], order["best"]) == (0, 1, 0.5)
    assert study.told == []
    assert sweep.records[0].status == "running"


def test_the_scribe_notes_epochs_ends_and_reasons(sweep):
    searcher, _ = phases(sweep, [tinytrain.config(0.1 * n) for n in range(1, 4)])
    orders = [searcher.suggest(str(n)) for n in range(3)]
    seen = []
    scribe = Scribe(sweep, goal=GOAL, halt=Halt(), watchers=[seen.append])

    def tell(number, message, done=False):
        one = SimpleNamespace(config=orders[number])
        scribe.on_trial_result(0, [], one, {"message": message, "done": done})

    metrics = {"epoch": 1, "auc": 0.6, "train_seconds": 2.0, "evaluate_seconds": 1.0}
    tell(0, {"status": "running", "metrics": metrics, "takes": 2, "node": "n/1"})
    tell(0, {"status": "running", "metrics": {"epoch": 2, "auc": 0.5}}, done=True)
    tell(1, {"status": "infeasible", "reason": "NaN"}, done=True)
    tell(2, {"status": "failed", "reason": "KeyError: x", "trace": "a\nb"}, done=True)
    first, second, third = sweep.of("search")
    assert (first.status, first.best["auc"], first.costs["seconds"]) == ("pruned", 0.6, 3.0)
    assert (second.status, second.reason) == ("infeasible", "NaN")
    assert third.status == "failed"
    assert (sweep.model_folder(third.key) / "error.json").exists()
    assert len(seen) == 4


def test_ranking_puts_the_stopped_last_and_finals_get_seeds_of_their_own(sweep):
    records = [
        record(0, [0.6]), record(1, [0.9], "pruned"), record(2, [0.7]), record(3, [], "failed"),
    ]  # fmt: skip
    assert [r.number for r in ranked(records, "auc", "max")] == [2, 0, 1]
    assert [r.number for r in ranked(records, "auc", "min")] == [0, 2, 1]
    sweep.records = {r.number: r for r in records}
    finals = finals_of(sweep, FinalConfig(top=2, seeds=2), "auc", "max")
    assert [(f.config["n"], f.config["seed"]) for f in finals] == [(2, 2), (2, 3), (0, 2), (0, 3)]
    assert len({f.key for f in finals}) == 4


def test_finals_of_each_content_operator(sweep):
    def of(name):
        return {"seed": 1, "model": {"content": {"name": name}}}

    sweep.records = {
        0: record(0, [0.6], config=of("id")), 1: record(1, [0.9], config=of("cnn")),
        2: record(2, [0.8], config=of("cnn")), 3: record(3, [0.7], config=of("id")),
    }  # fmt: skip
    finals = finals_of(sweep, FinalConfig(top=1, each="content", seeds=1), "auc", "max")
    assert [f.config["model"]["content"]["name"] for f in finals] == ["cnn", "id"]
    assert finals[1].key != sweep.records[3].key


def test_summaries_and_the_winner(sweep):
    values = {2: 0.60, 3: 0.64}
    finals = [
        record(10 + s, [v], phase="final", config={"seed": s, "n": 2}, test={"auc": v - 0.1})
        for s, v in values.items()
    ]
    worse = record(20, [0.61], phase="final", config={"seed": 2, "n": 0}, test={"auc": 0.9})
    sweep.records = {r.number: r for r in [*finals, worse]}
    best = summaries(sweep, "auc")[0]
    assert best.mean["auc"] == pytest.approx(0.52)
    assert best.std["auc"] == pytest.approx(0.02 * math.sqrt(2))
    assert winner(sweep, "auc", "max").number == 13  # by validation, whatever the test says


def test_the_board_says_what_a_person_wants_to_know(sweep):
    console = Console(file=io.StringIO(), width=200)
    board = Board(console, sweep, goal=GOAL, trials=5, finals=2, slots=2)
    running = record(3, [0.4], "running", params={"train/learning_rate": 0.01})
    running = running.model_copy(
        update={"started": time.time(), "config": {"train": {"epochs": 4}}}
    )
    sweep.records = {
        0: record(0, [0.6]), 1: record(1, [0.5], "pruned"),
        2: record(2, [], "infeasible", reason="NaN"), 3: running,
    }  # fmt: skip
    assert "3 of 5 trials done · 1 running · 1 stopped early · 1 infeasible" in board.headline()
    assert "left" in board.headline()
    assert "auc 0.6000  trial 0  a+b+c" in board.best()
    console.print(board.render())
    assert "epoch 2 of 4" in console.file.getvalue()
    for one in sweep.records.values():
        board.watch(one)
        board.watch(one)
    lines = console.file.getvalue().splitlines()
    assert sum("trial   2" in line and "infeasible  2.0 s  NaN" in line for line in lines) == 1
    assert sum("trial   0" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21, "3.2 s"), (30, "30 s"), (240, "4 min"), (7200, "2.0 h")]
)
def test_spans(seconds, text):
    assert span(seconds) == text


def test_the_closing_lines(sweep):
    console = Console(file=io.StringIO(), width=120)
    finals = [
        record(
            4 + s,
            [0.6],
            phase="final",
            config={"seed": s, "n": 2},
            test={
                "auc": 0.5 + s / 100,
                "auc/cold-item": 0.3 + s / 100,
                "groups/all": 90.0,
                "groups/cold-item": 17.0,
            },
        )
        for s in (1, 2, 3)
    ]
    base = record(9, [], phase="baseline", test={"auc": 0.5}).model_copy(update={"label": "random"})
    sweep.records = {
        r.number: r for r in [record(0, [0.6]), record(1, [], "failed"), *finals, base]
    }
    sweep.set_state("finished", ended="trials")
    closing(console, sweep, goal=GOAL, again="again!", links=["mlflow ui"], note="a note")
    text = console.file.getvalue()
    assert "has ended: all trials are done (1 completed, 1 failed)" in text
    assert "0.5200 ± 0.0100" in text
    whole, slices = text.split("auc by slice:")
    assert "cold-item" not in whole
    assert "groups" not in text
    for part in ("cold-item", "17", "0.3200"):
        assert part in slices
    assert "synthetic data" in text
    assert "again!" not in text
    for part in (
        "best on validation: a+b+c",
        "random",
        "mlflow ui",
        "legoray leaderboard",
        "a note",
    ):
        assert part in text
    sweep.set_state("interrupted")
    closing(console, sweep, goal=GOAL, again="again!", links=[])
    assert "to go on: again!" in console.file.getvalue()


def test_a_rank_that_lost_another_is_told_from_a_training_that_failed():
    gone = RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]")
    assert lost_a_peer(gone)
    assert not lost_a_peer(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not lost_a_peer(ValueError("gloo"))
