"""When a search has done enough: trials, epochs, hours, or whichever of them comes first.

All three count over the whole sweep, over every process that ever worked on it: trials and epochs
are in the records, and the time is kept in `sweep.json` while the search goes on. The final
trainings come after the budget and are not part of it.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

from legoray.errors import InputError
from legoray.search.sweep import ENDED, Sweep
from legoray.spaceconfig import SearchConfig

KEEP = 5.0  # seconds between two notes of the time spent; a kill loses no more than these


@dataclass(frozen=True)
class Budget:
    """How much is searched; None where there is no such limit."""

    trials: int | None = None
    epochs: int | None = None
    hours: float | None = None

    def __str__(self) -> str:
        """For a person: `50 trials, 400 epochs or 2 hours`."""
        given = [(self.trials, "trial"), (self.epochs, "epoch"), (self.hours, "hour")]
        words = [f"{n:g} {name}{'' if n == 1 else 's'}" for n, name in given if n is not None]
        *first, last = words or ["no limit"]
        return f"{', '.join(first)} or {last}" if first else last

    def over(self, sweep: Sweep, seconds: float, running: int = 0) -> str:
        """Which limit is reached: `trials`, `epochs`, `hours`, or empty.

        Args:
            sweep: whose records count.
            seconds: that were spent on searching.
            running: trials under way.
        """
        if self.trials is not None and sweep.done() + running >= self.trials:
            return "trials"
        if self.epochs is not None and trained_epochs(sweep) >= self.epochs:
            return "epochs"
        if self.hours is not None and seconds >= self.hours * 3600:
            return "hours"
        return ""

    def full(self, sweep: Sweep) -> bool:
        """Whether what runs may use up the epochs: then one waits for what becomes of it."""
        if self.epochs is None:
            return False
        return trained_epochs(sweep) + _epochs_ahead(sweep) >= self.epochs


def budget_of(search: SearchConfig, trials: int | None = None) -> Budget:
    """The budget of a file; `trials` of the command line goes before the file's."""
    return Budget(trials or search.trial_limit, search.epochs, search.hours)


def trained_epochs(sweep: Sweep) -> int:
    """Epochs that the trials of the search were trained for, whatever became of them."""
    return sum(len(r.epochs) for r in sweep.of("search") if not r.reused)


def begun(sweep: Sweep) -> list[str]:
    """The keys of trials that had begun when an earlier process ended."""
    return [r.key for r in sweep.of("search") if r.status == "interrupted" and r.epochs]


def left(sweep: Sweep, budget: Budget) -> bool:
    """Whether there is something to search when a sweep is opened."""
    if sweep.info.ended == "exhausted":
        return False
    over = budget.over(sweep, sweep.info.spent)
    return not over or (over != "trials" and bool(begun(sweep)))


def seconds_left(sweep: Sweep, budget: Budget, slots: int) -> float | None:
    """How long a search goes on that no number of trials bounds; None where it is not known yet.

    Args:
        sweep: whose records tell how long an epoch takes.
        budget: its epochs or hours.
        slots: trials at once.
    """
    found = [budget.hours * 3600 - sweep.info.spent] if budget.hours is not None else []
    ended = [r for r in sweep.of("search") if r.status in ENDED and "seconds" in r.costs]
    epochs = sum(len(r.epochs) for r in ended)
    if budget.epochs is not None and epochs:
        each = sum(r.costs["seconds"] for r in ended) / epochs
        found.append((budget.epochs - trained_epochs(sweep)) * each / max(slots, 1))
    return max(min(found), 0.0) if found else None


def _epochs_ahead(sweep: Sweep) -> int:
    running = [r for r in sweep.of("search") if r.status == "running"]
    return sum(max(r.config["train"]["epochs"] - len(r.epochs), 0) for r in running)


class Clock:
    """The time that was spent on a sweep's search, earlier processes included."""

    def __init__(self, sweep: Sweep, *, over: bool = False) -> None:
        """A clock that runs, unless the search is over already."""
        self._sweep = sweep
        self._before = sweep.info.spent
        self._began = self._kept = time.monotonic()
        self._stopped: float | None = self._began if over else None

    @property
    def seconds(self) -> float:
        now = time.monotonic() if self._stopped is None else self._stopped
        return self._before + now - self._began

    def keep(self) -> None:
        """Note the time in the sweep's folder, now and then."""
        if self._stopped is None and time.monotonic() - self._kept > KEEP:
            self._write()

    def stop(self) -> None:
        """The search is over, its finals begin or the process ends; a second call does nothing."""
        if self._stopped is None:
            self._stopped = time.monotonic()
            self._write()

    def _write(self) -> None:
        self._kept = time.monotonic()
        with contextlib.suppress(InputError):  # a full disk is told where a record is written
            self._sweep.set_state(self._sweep.info.state, spent=round(self.seconds, 3))
