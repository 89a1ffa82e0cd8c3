"""Optuna's side of a search: what to try next, told by path and kept in the sweep's folder.

Rows of the study and what they mean (the user attribute `outcome` tells the failed ones apart):

    COMPLETE            ran to its end; the value is that of its best epoch, or one per objective
    PRUNED              stopped by the scheduler; its epochs' values are kept for the sampler
    FAIL, infeasible    cannot be trained as configured (out of memory, diverged)
    FAIL, failed        an error in the training, or an objective that is missing or not finite
    FAIL, interrupted   the sweep ended while it ran; enqueued once more, as a row of its own
    FAIL, rejected      never run: an invalid combination, or the same configuration as another row

One process at a time may hold a study (the sweep's folder is locked by its owner), so a row that is
RUNNING when a study is opened belongs to a process that is gone.

Rows that carry `warm` come from earlier sweeps (`legoray.search.warmstart`).

With several objectives the epochs' values are kept as a user attribute, `epochs`, since Optuna
takes intermediate values of one objective alone; what is pruned has then no value at all.

The random numbers of a proposal start from the search's seed and the proposal's place among all
proposals; one that is asked for again after an interruption keeps its place. So the same seed and
the same results give the same proposals, however often the search was killed in between: always
with random search and the grid, and with TPE where trials run one at a time, since what it proposes
depends on the order in which results arrive.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from legoray.errors import InputError, Problem
from legoray.objectives import missing, objectives_of, values_of
from legoray.search.cover import MOST_LISTED, listing, repaired
from legoray.search.journal import open_journal
from legoray.search.samplers import make_sampler, numbers_in
from legoray.search.space import Rejected, Space, key_of
from legoray.search.start import named, start_params
from legoray.spaceconfig import SamplerConfig

Ending = Literal["completed", "pruned", "infeasible", "failed", "interrupted"]

DIRECTIONS = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
WARM = "warm"  # attribute of rows that earlier sweeps gave: `seen ...` or `start ...`
MOST_REJECTED = 60  # proposals in a row, before a space counts as exhausted
ENUMERATE_AFTER = 8  # rejected proposals, before what is left of a small space is listed
STUBBORN = {"gp": 2}  # the same for a sampler that proposes the same until it learns something new


@dataclass(frozen=True)
class Suggestion:
    """A configuration to try: its row in the study, and what was chosen, by path."""

    number: int
    config: dict[str, Any]
    params: dict[str, Any]
    again_of: int | None = None  # the interrupted row that it repeats


@dataclass(frozen=True)
class Measured:
    """What objectives are read from: the metrics of a trial's best epoch, and its costs."""

    best: Mapping[str, float] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)


class AskTell:
    """Asks and tells one study."""

    def __init__(self, space: Space, journal: Path, *, name: str) -> None:
        """Open or create the study `name` in a journal; nothing is adopted before `resume`.

        Raises:
            InputError: the journal cannot be written or is damaged.
        """
        self.space = space
        self.select = space.config.evaluate.select
        self.objectives = objectives_of(space.config.search.objectives, self.select)
        self.several = len(self.objectives) > 1
        self.maximize = self.objectives[0].mode == "max"
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.storage = open_journal(journal)
        self.study = optuna.create_study(
            storage=self.storage,
            study_name=name,
            directions=[DIRECTIONS[one.mode] for one in self.objectives],
            load_if_exists=True,
        )
        self._numbers = numbers_in(space)
        self._stubborn = STUBBORN.get(space.config.search.sampler.name, ENUMERATE_AFTER)
        self.grid = space.config.search.sampler.name == "grid"
        self.exhausted = ""  # why there is nothing left to propose

    def rows(self) -> list[FrozenTrial]:
        """The study's rows as they are now."""
        return self.study.get_trials(deepcopy=False)

    def resume(self) -> list[int]:
        """Take a study up: enqueue the starting points, and what ran when its process ended.

        Returns:
            The numbers of the rows that were running; each is enqueued again exactly once, also if
            this process should be killed in between.
        """
        rows = self.rows()
        known = {row.user_attrs["start"] for row in rows if "start" in row.user_attrs}
        for index, params in enumerate(start_params(self.space)):
            if index not in known:
                self.study.enqueue_trial(params, user_attrs={"start": index})
        if self.grid:
            self._enqueue_grid(rows)
        running = [row.number for row in rows if row.state == TrialState.RUNNING]
        for number in running:
            self.conclude(number, "interrupted", reason="the search ended while it ran")
        return running

    def ask(self) -> Suggestion | None:
        """The next configuration; None once the space is exhausted (`exhausted` then says why)."""
        rejected = 0
        while not self.exhausted:
            if self.grid and all(row.state != TrialState.WAITING for row in self.rows()):
                self.exhausted = "all configurations of this space have been tried"
                break
            found = self._try(by_chance=rejected >= self._stubborn)
            if found is not None:
                return found
            rejected += 1
            if rejected == self._stubborn:
                self._enqueue_unseen()
            if rejected >= MOST_REJECTED:
                self.exhausted = f"{rejected} proposals in a row were invalid or already tried"
        return None

    def _try(self, *, by_chance: bool) -> Suggestion | None:
        """One proposal, or None where it had to be rejected.

        Where the sampler's proposals had been tried before, chance proposes in its place: it would
        learn nothing from a rejection, and might propose the same for ever.
        """
        settings = SamplerConfig(name="random") if by_chance else self.space.config.search.sampler
        self.study.sampler = make_sampler(
            settings, self._proposal_seed(), self.space, self._numbers
        )
        trial = self.study.ask()
        try:
            config, picked = self.space.propose(trial)
            key = key_of(config)
            twin = self._seen().get(key)
            if twin is not None:
                raise Rejected(f"the same configuration as trial {twin}")
            trial.set_user_attr("key", key)
        except Rejected as error:
            self._fail(trial.number, "rejected", str(error))
            self._enqueue_repaired(error.picked)
            return None
        except BaseException as error:
            self._fail(trial.number, "failed", f"{type(error).__name__}: {error}")
            raise
        again_of = trial.user_attrs.get("again_of")
        return Suggestion(trial.number, config, picked, again_of)

    def owed(self, keys: Collection[str]) -> Iterator[Suggestion]:
        """Rows that wait to repeat an interrupted one, if its key is among these; begun one by one.

        For results that are known though no process lived to tell them: whoever takes a row tells.
        """
        for row in self.rows():
            if row.state == TrialState.WAITING and self._first_key(row) in keys:
                self.storage.set_trial_state_values(row._trial_id, state=TrialState.RUNNING)
                trial = optuna.Trial(self.study, row._trial_id)
                config, picked = self.space.propose(trial)
                trial.set_user_attr("key", key_of(config))
                yield Suggestion(row.number, config, picked, row.user_attrs["again_of"])

    def _first_key(self, row: FrozenTrial) -> str | None:
        """The key of the row that a row repeats, or repeats through others; None if it had none."""
        while "key" not in row.user_attrs:
            if "again_of" not in row.user_attrs:
                return None
            row = self._row(row.user_attrs["again_of"])
        return str(row.user_attrs["key"])

    def _proposal_seed(self) -> int:
        """The seed of the next row's random numbers, from the place of its proposal.

        Optuna takes the first row that waits, or makes a new one. A row that repeats another has
        the other's place, and one that a kill left before it proposed anything has none.
        """
        rows = self.rows()
        place = next((r.number for r in rows if r.state == TrialState.WAITING), len(rows))
        while place < len(rows) and "again_of" in rows[place].user_attrs:
            place = rows[place].user_attrs["again_of"]
        nth = sum("again_of" not in r.user_attrs and not _blank(r) for r in rows[:place])
        return int(np.random.SeedSequence([self.space.config.seed, nth]).generate_state(1)[0])

    def report(self, number: int, epoch: int, metrics: Mapping[str, Any]) -> None:
        """Note an epoch's value of the selecting metric; one that is not finite is left out."""
        value, row = metrics.get(self.select), self._row(number)
        if not _finite(value) or row.state.is_finished():
            return
        if self.several:
            told = {str(epoch): value, **row.user_attrs.get("epochs", {})}
            self.storage.set_trial_user_attr(row._trial_id, "epochs", told)
        elif epoch not in row.intermediate_values:
            self.storage.set_trial_intermediate_value(row._trial_id, epoch, cast(float, value))

    def conclude(
        self,
        number: int,
        ending: Ending,
        *,
        value: float | None = None,
        measured: Measured | None = None,
        reason: str = "",
    ) -> None:
        """Tell how a row ended. A row that has ended already is left as it is.

        Args:
            number: of the row.
            ending: `completed` needs what was measured, or for one objective a value: the given one
                or that of the best epoch reported.
            value: of the selecting metric.
            measured: the metrics of the best epoch and the costs.
            reason: of an ending that is no success.
        """
        row = self._row(number)
        if row.state.is_finished():
            return
        if ending == "pruned":
            self.study.tell(number, state=TrialState.PRUNED)
        elif ending == "completed":
            self._complete(row, value, measured or Measured(), reason)
        else:
            if ending == "interrupted":
                self._enqueue_again(row)
            self._fail(number, ending, reason)

    def _complete(
        self, row: FrozenTrial, value: float | None, measured: Measured, reason: str
    ) -> None:
        """Tell the values of a row, or that it has failed for want of one."""
        best = dict(measured.best)
        known = value if _finite(value) else best.get(self.select, self._best(row))
        best |= {} if known is None else {self.select: known}
        wrong = missing(self.objectives, best, measured.costs)
        if wrong:
            told = wrong if self.several else f"no finite {self.select} was reported"
            self._fail(row.number, "failed", reason or told)
            return
        values = values_of(self.objectives, best, measured.costs)
        trial = optuna.Trial(self.study, row._trial_id)
        for one in self.objectives:
            if one.limit is not None:
                over = values[one.name] - one.limit
                trial.set_constraint(one.name, -over if one.mode == "max" else over)
        self.study.tell(row.number, [values[one.name] for one in self.objectives])

    def close(self, reason: str = "the search was interrupted") -> None:
        """End the rows that still run, so that they are taken up again next time."""
        for row in self.rows():
            if row.state == TrialState.RUNNING:
                self.conclude(row.number, "interrupted", reason=reason)

    def done(self) -> int:
        """How many trials have ended for good: all but interrupted and rejected ones.

        What earlier sweeps observed is none of them.
        """
        return sum(
            row.state.is_finished()
            and _outcome(row) not in ("interrupted", "rejected")
            and not str(row.user_attrs.get(WARM, "")).startswith("seen")
            for row in self.rows()
        )

    def remaining(self, total: int) -> int:
        """How many of `total` trials are missing."""
        return max(total - self.done(), 0)

    def _row(self, number: int) -> FrozenTrial:
        return self.rows()[number]

    def _best(self, row: FrozenTrial) -> float | None:
        values = row.intermediate_values.values()
        return (max if self.maximize else min)(values) if values else None

    def _seen(self) -> dict[str, int]:
        """The configurations that run or have run, and the rows that hold them."""
        return {
            row.user_attrs["key"]: row.number
            for row in self.rows()
            if "key" in row.user_attrs and _outcome(row) not in ("interrupted", "rejected")
        }

    def _fail(self, number: int, outcome: str, reason: str) -> None:
        identity = self._row(number)._trial_id
        self.storage.set_trial_user_attr(identity, "outcome", outcome)
        if reason:
            self.storage.set_trial_user_attr(identity, "reason", reason)
        self.study.tell(number, state=TrialState.FAIL)

    def _enqueue_again(self, row: FrozenTrial) -> None:
        """Put an interrupted row's parameters into the queue, unless they are there.

        Those of a row that was killed while it drew them are drawn again, all alike.
        """
        params = dict(row.system_attrs.get("fixed_params", {}))
        if "key" in row.user_attrs:
            params |= row.params
        if params and all(r.user_attrs.get("again_of") != row.number for r in self.rows()):
            self.study.enqueue_trial(params, user_attrs={"again_of": row.number})

    def _enqueue_grid(self, rows: list[FrozenTrial]) -> None:
        """Put every configuration into the queue that is not in the study yet.

        Raises:
            InputError: there are too many.
        """
        listed = listing(self.space)
        if listed is None:
            where = self.space.document.where(("search", "sampler"))
            message = f"the grid has more than {MOST_LISTED} configurations"
            raise InputError(Problem(where, message, "narrow the space, or use `name: random`"))
        known = {row.user_attrs["grid"] for row in rows if "grid" in row.user_attrs}
        for key, pins in listed.items():
            if key not in known:
                self.study.enqueue_trial(named(self.space, pins), user_attrs={"grid": key})

    def _enqueue_repaired(self, picked: Mapping[str, Any]) -> None:
        """After an invalid proposal, propose the nearest valid one that is found."""
        if picked and not self.grid:
            found = repaired(self.space, picked, random.Random(self._proposal_seed()))
            if found is not None:
                self.study.enqueue_trial(named(self.space, found.picked))

    def _enqueue_unseen(self) -> None:
        """In a small space, propose one that was not tried; say so where there is none."""
        listed = listing(self.space)
        if listed is None:
            return
        seen = self._seen()
        left = [pins for key, pins in listed.items() if key not in seen]
        if left:
            dice = random.Random(self._proposal_seed())
            self.study.enqueue_trial(named(self.space, dice.choice(left)))
        else:
            self.exhausted = f"all {len(listed)} configurations of this space have been tried"


def plain_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by path, without what tells narrowed choices apart."""
    return {name.partition("@")[0]: value for name, value in params.items()}


def _outcome(row: FrozenTrial) -> str:
    return str(row.user_attrs.get("outcome", ""))


def _blank(row: FrozenTrial) -> bool:
    """Whether a process was killed in a row before it had proposed anything."""
    asked = "key" in row.user_attrs or "fixed_params" in row.system_attrs
    return _outcome(row) == "interrupted" and not asked


def _finite(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(cast(float, value))
