"""Which trials go on: Ray Tune's schedulers on the validation value of every epoch.

None of them pauses a trial: a paused one would give up its warm slot. They judge the search's
trials alone, never the final ones, and nothing but epochs that have a value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule
from ray.tune.schedulers.trial_scheduler import TrialScheduler

from legoray.records import TrialRecord
from legoray.search.phases import Goal
from legoray.search.sweep import ENDED
from legoray.spaceconfig import SchedulerConfig


def make_scheduler(
    config: SchedulerConfig, epochs: int, goal: Goal, earlier: Sequence[TrialRecord]
) -> SearchScheduler:
    """The scheduler of a search.

    Args:
        config: which one, and its settings.
        epochs: the longest training that the space allows.
        goal: what is compared.
        earlier: trials of the same sweep. New ones are compared with those that have ended as well,
            and those that go on have been judged by the epochs that they have.
    """
    scheduler = SearchScheduler(_inner(config, epochs, goal.mode), goal, earlier)
    for record in earlier:
        if record.status in ENDED:
            scheduler.replay(record)
    return scheduler


def _inner(config: SchedulerConfig, epochs: int, mode: str) -> TrialScheduler:
    common: dict[str, Any] = {"time_attr": "epoch", "metric": "value", "mode": mode}
    if config.name == "none":
        return FIFOScheduler()
    if config.name == "median":
        # Without the endless time slice the rule pauses trials while it knows too few.
        return MedianStoppingRule(
            grace_period=config.grace_epochs,
            min_samples_required=config.min_trials,
            min_time_slice=cast(int, math.inf),
            hard_stop=True,
            **common,
        )
    brackets = config.brackets if config.name == "hyperband" else 1
    longest = max(epochs, config.grace_epochs)
    possible = int(math.log(longest / config.grace_epochs, config.reduction) + 1e-9) + 1
    return AsyncHyperBandScheduler(
        max_t=longest + 1,  # a trial ends by itself; at `max_t` Tune would end it too early
        grace_period=config.grace_epochs,
        reduction_factor=config.reduction,
        brackets=min(brackets, possible),
        **common,
    )


class _Past:
    """Stands for a trial of an earlier run of the sweep."""

    def __init__(self, record: TrialRecord) -> None:
        self.trial_id = f"record-{record.number}"


class SearchScheduler(FIFOScheduler):
    """Passes on to another scheduler what it is to judge: the epochs of the search's trials."""

    def __init__(
        self, inner: TrialScheduler, goal: Goal, earlier: Sequence[TrialRecord] = ()
    ) -> None:
        super().__init__()
        self._inner, self._goal = inner, goal
        self._begun = {r.number: r for r in earlier if r.status not in ENDED}

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        return True

    def replay(self, record: TrialRecord, trial: Any = None) -> None:
        """Let the inner scheduler see the epochs of a trial again, whatever it says to them.

        Args:
            record: the trial's.
            trial: Tune's, where it goes on; the inner scheduler knows it already.
        """
        nobody: Any = None  # neither scheduler asks the controller anything
        best: float | None = None
        better = max if self._goal.mode == "max" else min
        if trial is None:
            trial = _Past(record)
            self._inner.on_trial_add(nobody, trial)
        stopped: set[Any] = getattr(self._inner, "_stopped_trials", set())
        for epoch in record.epochs:
            value = epoch.get(self._goal.select, math.nan)
            if math.isfinite(value):
                best = value if best is None else better(best, value)
                result = {"epoch": epoch["epoch"], "value": best}
                self._inner.on_trial_result(nobody, trial, result)
                stopped.discard(trial)  # it went on; the median rule wants no more of one it stops

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        if not _searched(trial):
            return
        self._inner.on_trial_add(tune_controller, trial)
        record = self._begun.pop(trial.config.get("number", -1), None)
        if record is not None:
            self.replay(record, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if not _searched(trial) or not _has_value(result):
            return TrialScheduler.CONTINUE
        return self._inner.on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if _searched(trial) and _has_value(result):
            self._inner.on_trial_complete(tune_controller, trial, result)


def _searched(trial: Any) -> bool:
    return trial.config.get("phase") == "search"


def _has_value(result: dict[str, Any]) -> bool:
    value = result.get("value")
    return isinstance(value, float | int) and math.isfinite(value)
