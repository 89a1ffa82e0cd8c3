"""What runs next: first what the study proposes, then the final trainings of what it found.

Search and finals are one Tune run, so that the finals find the slots warm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from ray.tune.search import Searcher

from legoray.config import TrialConfig
from legoray.records import Phase, TrialRecord
from legoray.search.budget import Budget as Budget
from legoray.search.budget import Clock, begun
from legoray.search.finals import Final
from legoray.search.space import key_of
from legoray.search.sweep import ENDED, Sweep, trial_key
from legoray.storage.address import portable
from legoray.storage.folders import share
from legoray.train.job import Job
from legoray.zoo.earlier import Earlier


@dataclass(frozen=True)
class Goal:
    """What all trials are compared by, and how the final ones are measured."""

    select: str
    mode: str  # max | min
    test: bool = True  # whether there are labels to measure the final trainings on


class Phases(Searcher):
    """The searcher that Tune asks. It numbers trials, opens their records, and knows the finals."""

    def __init__(
        self,
        sweep: Sweep,
        study: Searcher,
        *,
        goal: Goal,
        budget: Budget,
        home: str,
        finals: Callable[[], list[Final]],
        ended: str = "",
        stopping: Callable[[], bool] | None = None,
        earlier: Earlier | None = None,
        adopted: Callable[[TrialRecord], None] = lambda record: None,
        room: Callable[[], int] | None = None,
    ) -> None:
        """Wrap a study.

        Args:
            sweep: where records go.
            study: proposes `{config, params}`; told what came of it.
            goal: what counts.
            budget: when to stop proposing.
            home: folder of the caches that trials share.
            finals: what to train once the search is over; called then.
            ended: why there is nothing left to search, where that is so.
            stopping: whether nothing new may begin; never where None.
            earlier: results that are taken instead of training the same again.
            adopted: told of the record of each that was.
            room: how many trials may run at once now; any number where it is not given.
        """
        super().__init__(metric="value", mode=goal.mode)
        self._sweep, self._study, self._goal, self._home = sweep, study, goal, home
        self._budget, self._clock = budget, Clock(sweep, over=bool(ended))
        self._plan, self._stopping, self._room = finals, stopping, room
        self._earlier, self._adopted = earlier, adopted
        self._finals: Iterator[Final] | None = None
        self._live: dict[str, TrialRecord] = {}  # by Tune's trial id, as they were opened
        self.why = ended  # why the search ended: trials | epochs | hours | exhausted

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next trial for Tune, None for 'ask again later', or FINISHED."""
        if self._stopping is not None and self._stopping():
            return cast(None, Searcher.FINISHED)
        if self._room is not None and len(self._live) >= self._room():
            return None
        order = None if self.why else self._next_search(trial_id)
        if order is None and self.why and not self._running("search"):
            return self._next_final(trial_id)
        return order

    def _running(self, phase: Phase) -> int:
        return sum(record.phase == phase for record in self._live.values())

    def _next_search(self, trial_id: str) -> dict[str, Any] | None:
        """The study's next proposal that has to be trained; None where the search is over."""
        self._clock.keep()
        while not self.why:
            over = self._budget.over(self._sweep, self._clock.seconds, self._running("search"))
            order = self._begun(trial_id) if over in ("epochs", "hours") else None
            if order is not None:
                return order
            if over:
                self.why = over
            elif self._budget.full(self._sweep):
                return None
            else:
                proposal: Any = self._study.suggest(trial_id)
                if proposal is None:
                    return None
                if proposal == Searcher.FINISHED:
                    self.why = "exhausted"
                    return None
                order = self._open(trial_id, proposal)
                if order is not None:
                    return order
        return None

    def _begun(self, trial_id: str) -> dict[str, Any] | None:
        """A trial that an earlier process began: what has begun is finished, whatever the budget.

        The study is not asked: it finds the result on record if it ever proposes this again.
        """
        key = next(iter(begun(self._sweep)), None)
        record = self._sweep.find(key, "search") if key is not None else None
        if record is None:
            return None
        return self._order(trial_id, Final(record.key, record.config, record.params), "search")

    def _open(self, trial_id: str, proposal: dict[str, Any]) -> dict[str, Any] | None:
        """The order for a proposal; None where it runs already or its result is known.

        A result is on record and unknown to the study where a driver died between the two.
        """
        config = proposal["config"]
        key = trial_key(config, self._sweep.info)
        if any(record.key == key for record in self._live.values()):
            self._study.on_trial_complete(trial_id, None, error=True)
            return None
        final = Final(key, config, proposal["params"])
        known = self._sweep.find(key, "search") or self._take(final, "search")
        for epoch in known.epochs if known is not None else ():
            self._study.on_trial_result(trial_id, self._told(epoch))
        if known is not None and known.status in ENDED:
            self._conclude(trial_id, known)
            return None
        return self._order(trial_id, final, "search")

    def _take(self, final: Final, phase: Phase) -> TrialRecord | None:
        """The record of a training whose result an earlier sweep has, if one has it."""
        if self._earlier is None:
            return None
        target, test = self._sweep.model_folder(final.key) / "best", self._goal.test
        found = self._earlier.take(final.key, phase, final.config, target, test=test)
        if found is None:
            return None
        label = TrialConfig.model_validate(final.config).model.label()
        record = self._sweep.begin(final.key, phase, label, final.config, final.params)
        record = self._sweep.change(record.number, ended=time.time(), **found.changes())
        share(self._sweep.model_folder(record.key))
        self._adopted(record)
        return record

    def _told(self, epoch: dict[str, float]) -> dict[str, Any]:
        """An epoch as the study is told of it."""
        return {**epoch, "epoch": int(epoch["epoch"])}

    def _conclude(self, trial_id: str, record: TrialRecord) -> None:
        """Tell the study how a trial ended."""
        last = self._told(record.epochs[-1]) if record.epochs else {}
        result = {**last, "status": record.status, "reason": record.reason}
        result |= {"best": record.best, "costs": record.costs}
        self._study.on_trial_complete(trial_id, result, error=record.status == "failed")

    def _next_final(self, trial_id: str) -> dict[str, Any] | None:
        if self._finals is None:
            self._settle()
            self._clock.stop()
            self._sweep.set_state("finals", ended=self.why)
            self._finals = iter(self._plan())
        for final in self._finals:
            known = self._sweep.find(final.key, "final") or self._take(final, "final")
            if known is None or known.status not in ENDED:
                return self._order(trial_id, final, "final")
        return cast(None, Searcher.FINISHED)  # a word that Tune knows

    def _settle(self) -> None:
        """Tell the study of results that are on record, where a driver died before it could.

        While there is budget left, the study proposes such a trial again and hears of it then.
        """
        records = [r for r in self._sweep.of("search") if r.status in ENDED]
        study: Any = self._study
        for trial_id, proposal in study.owed({key_of(record.config) for record in records}):
            self._open(trial_id, proposal)

    def _order(self, trial_id: str, final: Final, phase: Phase) -> dict[str, Any]:
        """Open the record of a training, and say to Tune what to run."""
        config = TrialConfig.model_validate(final.config)
        known = self._sweep.find(final.key, phase)
        record = self._sweep.begin(
            final.key, phase, config.model.label(), final.config, final.params
        )
        if known is not None and known.epochs:
            record = self._sweep.change(record.number, resumed=known.resumed + 1)
        self._live[trial_id] = record
        job = Job(
            config=config,
            tables=portable(self._sweep.info.tables),
            home=portable(self._home),
            folder=portable(self._sweep.model_folder(final.key)),
            test=phase == "final" and self._goal.test,
            reads=record.reads,
            keep_last=True,
        )
        return {
            "number": record.number,
            "key": record.key,
            "phase": phase,
            "resumed": record.resumed,
            "select": self._goal.select,
            "mode": self._goal.mode,
            "best": record.best.get(self._goal.select),
            "job": job.model_dump_json(),
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        record = self._live.get(trial_id)
        self._clock.keep()
        if record is not None and record.phase == "search" and "epoch" in result:
            self._study.on_trial_result(trial_id, result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The record has the trial's end already; the study is told what it says."""
        opened = self._live.pop(trial_id, None)
        if opened is None or opened.phase != "search":
            return
        record = self._sweep.records[opened.number]
        if error:
            record = record.model_copy(update={"status": "failed", "reason": "its process died"})
        self._conclude(trial_id, record)

    def close(self) -> None:
        """Note the time spent, where the run ends before the search does."""
        self._clock.stop()

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the sweep's folder holds all state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""
