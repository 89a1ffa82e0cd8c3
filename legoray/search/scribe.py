"""Writes the sweep's records as Ray Tune tells of its trials, and passes them on to who shows them.

It runs in the driver, within Tune's loop: it must be quick, and nothing here waits for anything
but the record's small file.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ray.tune import Callback
from ray.tune.stopper import Stopper

from legoray.errors import InputError, Problem
from legoray.objectives import missing, objectives_of
from legoray.records import Metrics, TrialRecord, write_json
from legoray.search.phases import Goal
from legoray.search.shortage import memory_shortage
from legoray.search.sweep import Sweep

FAILURES = 3  # first trials that may all fail before the search gives up

SOFTLY = (
    "stopping softly: no new trials begin, those that run end after the epoch they are in; "
    "press Ctrl-C again to stop at once"
)

Watcher = Callable[[TrialRecord], None]


class Halt(Stopper):
    """Ends the search early: Ctrl-C, a full disk, or nothing but failures."""

    def __init__(self) -> None:
        self.reason = ""
        self.problem: InputError | None = None
        self.soft = False  # what runs may still finish its epoch

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial ends with the epoch that it has just reported."""
        return self.soft

    def stop_all(self) -> bool:
        return bool(self.reason) and not self.soft

    def stopping(self) -> bool:
        """Whether nothing new may begin."""
        return bool(self.reason)

    @property
    def interrupted(self) -> bool:
        return self.reason == "interrupted"

    def give_up(self, reason: str, problem: InputError | None = None) -> None:
        """End the search; the first reason stands."""
        self.reason = self.reason or reason
        self.problem = self.problem or problem

    @contextmanager
    def on_signals(self, say: Callable[[str], None]) -> Iterator[None]:
        """Ctrl-C ends the search softly, a second one at once; SIGTERM ends it in good order.

        Softly: nothing new begins, and what runs ends with its epoch, whose checkpoint is written.
        Whoever sends SIGTERM will not wait that long.
        """

        def handle(number: int, frame: FrameType | None) -> None:
            if self.reason:
                self.soft = False
                raise KeyboardInterrupt
            self.soft = number == signal.SIGINT
            self.give_up("interrupted")
            say(SOFTLY if self.soft else "stopping")

        old = {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


class Scribe(Callback):
    """A Tune callback that keeps the records."""

    def __init__(self, sweep: Sweep, *, goal: Goal, halt: Halt, watchers: list[Watcher]) -> None:
        self._sweep, self._select, self._halt = sweep, goal.select, halt
        self._objectives = objectives_of(sweep.info.objectives, goal.select)
        self._better = max if goal.mode == "max" else min
        self._watchers = watchers
        self._recovered: dict[int, int] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        record = self._sweep.records[number]
        if not record.epochs and not self._recovered.get(number):
            record = self._sweep.change(number, started=time.time())
        self._tell(record)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        try:
            self._note(trial, result)
        except InputError as error:  # the record cannot be written
            self._halt.give_up("disk", error)

    def _note(self, trial: Any, result: dict[str, Any]) -> None:
        message, number = result["message"], trial.config["number"]
        if message["status"] in ("disk", "damaged"):
            self._sweep.change(number, status="interrupted", reason=message["reason"])
            self._halt.give_up(message["status"], self._problem(message))
            return
        record = self._sweep.records[number]
        changes = self._changes(message, record, bool(result.get("done")))
        if not record.epochs and "began" in message:  # the slot's own start is not the trial's
            changes["started"] = message["began"]
        changes["resumed"] = self._resumed(trial, message)
        changes["node"] = message.get("node", "")
        if message.get("trace"):
            folder = self._sweep.model_folder(trial.config["key"])
            write_json(folder / "error.json", {"trace": message["trace"].splitlines()})
        self._tell(self._sweep.change(number, **changes))
        self._watch_failures()

    def _problem(self, message: dict[str, Any]) -> InputError:
        """What a person has to mend before the search can go on."""
        if message["status"] == "damaged":
            return InputError(message["reason"])
        return InputError(Problem(str(self._sweep.folder), message["reason"], "free some space"))

    def _resumed(self, trial: Any, message: dict[str, Any]) -> int:
        lost = self._recovered.get(trial.config["number"], 0)
        return int(trial.config["resumed"]) + lost + int(message.get("takes", 1)) - 1

    def _changes(self, message: dict[str, Any], record: TrialRecord, ended: bool) -> dict[str, Any]:
        status = message["status"]
        if status == "running":
            epochs = merged(record.epochs, message["metrics"])
            changes: dict[str, Any] = {"epochs": epochs, "best": self._best(epochs)}
            if ended and self._halt.soft:
                changes |= {"status": "interrupted", "reason": "the search was interrupted"}
            elif ended:  # by the scheduler
                changes |= {"status": "pruned", "reason": "stopped: others were better by then"}
                changes["costs"] = costs_of(epochs)
        else:
            changes = {"status": status, "reason": message.get("reason", "")}
            outcome = message.get("outcome")
            if outcome:
                changes |= {k: outcome[k] for k in ("epochs", "best", "test", "costs", "reason")}
                changes |= self._unmeasured(record, changes)
        if ended and changes.get("status") != "interrupted":
            changes["ended"] = time.time()
        return changes

    def _unmeasured(self, record: TrialRecord, changes: dict[str, Any]) -> dict[str, Any]:
        """A trial of the search that lacks an objective has failed: it compares with no other."""
        if record.phase != "search":
            return {}
        wrong = missing(self._objectives, changes["best"], changes["costs"])
        return {"status": "failed", "reason": wrong} if wrong else {}

    def _best(self, epochs: list[Metrics]) -> Metrics:
        finite = [e for e in epochs if math.isfinite(e.get(self._select, math.nan))]
        return self._better(finite, key=lambda e: e[self._select]) if finite else {}

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Its process or node was lost; Tune starts it again, from its checkpoint."""
        number = trial.config["number"]
        self._recovered[number] = self._recovered.get(number, 0) + 1

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It was lost too often."""
        reason = "its process was lost again and again"
        error = getattr(trial, "get_error", lambda: None)()
        if error is not None:
            short = memory_shortage(str(error))
            told = ": ".join(short) if short else str(error).strip().splitlines()[-1]
            reason = f"{reason}: {told}"
        changes = {"status": "failed", "reason": reason, "ended": time.time()}
        self._tell(self._sweep.change(trial.config["number"], **changes))
        self._watch_failures()

    def _watch_failures(self) -> None:
        """Where the first trials all fail, the rest will too."""
        statuses = [r.status for r in self._sweep.of("search") if r.status != "running"]
        if len(statuses) == FAILURES and all(s == "failed" for s in statuses):
            self._halt.give_up("failures")

    def _tell(self, record: TrialRecord) -> None:
        for watcher in self._watchers:
            watcher(record)


def merged(epochs: list[Metrics], new: Metrics) -> list[Metrics]:
    """The epochs with a new one, which replaces those from its number on."""
    return [e for e in epochs if e["epoch"] < new["epoch"]] + [new]


def costs_of(epochs: list[Metrics]) -> Metrics:
    """The seconds that a stopped trial took, as far as its epochs tell."""
    names = ("train_seconds", "evaluate_seconds")
    costs = {n: sum(e.get(n, 0.0) for e in epochs) for n in names}
    return {"seconds": sum(costs.values()), **costs} if any(costs.values()) else {}
