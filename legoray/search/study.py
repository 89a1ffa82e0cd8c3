"""The search as Ray Tune sees it: a searcher over Optuna's ask and tell.

How an ended trial is told, in this order:
1. a `status` in its last result (`completed`, `pruned`, `infeasible`, `failed`, `interrupted`, with
   an optional `reason`), for a training function that knows how it ended;
2. an error is `failed`;
3. a last result that Tune had already passed on, or that reached the configured epochs, means that
   the trial ended by itself: `completed`;
4. else the scheduler stopped it at that result: `pruned`.

The values of several objectives are read from `best` and `costs` of the last result.

Whoever knows better calls `conclude`, which is final.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, cast, get_args

from legoray.rayinit import quiet_environment

quiet_environment()

from ray.tune.search import Searcher  # noqa: E402

from legoray.search.asktell import AskTell, Ending, Measured, Suggestion  # noqa: E402
from legoray.search.space import Space  # noqa: E402

JOURNAL = "study.journal"


class StudySearcher(Searcher):
    """Proposes trials of a space; its memory is the journal in the sweep's folder, nothing else.

    Tune copies searchers and pickles them into its snapshots. A copy of this one is itself, and a
    pickle holds no more than where the journal lies.
    """

    def __init__(self, space: Space, folder: Path, *, sweep_id: str) -> None:
        """Open the sweep's study and take up what an earlier process left.

        Args:
            space: what to search.
            folder: of the sweep; the caller holds it alone.
            sweep_id: the study's name.

        Raises:
            InputError: the journal cannot be written or is damaged.
        """
        select = space.config.evaluate.select
        self.study = AskTell(space, folder / JOURNAL, name=sweep_id)
        super().__init__(metric=select, mode="max" if self.study.maximize else "min")
        self._opened = (space, folder, sweep_id)
        self._numbers: dict[str, int] = {}
        self._epochs: dict[str, int] = {}  # configured
        self._passed: dict[str, int] = {}  # the last epoch that Tune passed on
        self.interrupted = self.study.resume()

    @property
    def exhausted(self) -> str:
        """Why there is nothing left to propose; empty while there is."""
        return self.study.exhausted

    def remaining(self, total: int) -> int:
        """How many of `total` trials are missing, over all processes that searched here."""
        return self.study.remaining(total)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """`{"config": a TrialConfig, "number": the study's row, "params": choices by path}`."""
        found = self.study.ask()
        if found is None:
            return cast(None, Searcher.FINISHED)  # a word that Tune knows
        return self._opened_as(trial_id, found)

    def owed(self, keys: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Ids and proposals of rows with these keys that wait though their results are known."""
        for found in self.study.owed(keys):
            trial_id = f"owed-{found.number}"
            yield trial_id, self._opened_as(trial_id, found)

    def _opened_as(self, trial_id: str, found: Suggestion) -> dict[str, Any]:
        self._numbers[trial_id] = found.number
        self._epochs[trial_id] = int(found.config["train"]["epochs"])
        return {"config": found.config, "number": found.number, "params": found.params}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Note an epoch's value."""
        number, epoch = self._numbers.get(trial_id), result.get("epoch")
        if number is None or not isinstance(epoch, int):
            return
        self._passed[trial_id] = epoch
        self._report(number, epoch, result)

    def _report(self, number: int, epoch: int, result: dict[str, Any]) -> None:
        """Pass on the selecting metric, or the best so far where a result has `value` alone."""
        self.study.report(number, epoch, {self.metric: result.get("value"), **result})

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the study how a trial ended."""
        number = self._numbers.pop(trial_id, None)
        if number is None:
            return
        ending = self._ending(trial_id, result, error)
        epoch = (result or {}).get("epoch")
        if result and isinstance(epoch, int):
            self._report(number, epoch, result)
        reason = str((result or {}).get("reason") or ("an error in its training" if error else ""))
        measured = Measured((result or {}).get("best", {}), (result or {}).get("costs", {}))
        self.study.conclude(number, ending, measured=measured, reason=reason)

    def _ending(self, trial_id: str, result: dict[str, Any] | None, error: bool) -> Ending:
        passed = self._passed.pop(trial_id, 0)
        epochs = self._epochs.pop(trial_id, 0)
        status = (result or {}).get("status")
        if status in get_args(Ending):
            return cast(Ending, status)
        if error:
            return "failed"
        if not result:
            return "pruned" if passed else "interrupted"
        epoch = result.get("epoch", 0)
        return "completed" if epoch <= passed or epoch >= epochs else "pruned"

    def conclude(
        self,
        number: int,
        ending: Ending,
        *,
        value: float | None = None,
        measured: Measured | None = None,
        reason: str = "",
    ) -> None:
        """Tell how the trial of a row ended, past all guessing."""
        self.study.conclude(number, ending, value=value, measured=measured, reason=reason)

    def close(self, reason: str = "the search was interrupted") -> None:
        """End the rows that still run, so that the next process takes them up again."""
        self.study.close(reason)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the journal has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the journal has it all."""

    def __deepcopy__(self, memo: dict[int, Any]) -> StudySearcher:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "study"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        space, folder, sweep_id = self._opened
        self.study = AskTell(space, folder / JOURNAL, name=sweep_id)
