"""What a person sees while the search runs: a live board, or plain lines without a terminal.

It reads the records, so it shows the truth; it is told of every change and drawn twice a second.
In a log file each training that ends is a line, and each minute in which something happened ends
with one that says how far the search is.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from legoray.records import TrialRecord
from legoray.search.budget import Budget, seconds_left
from legoray.search.finals import ranked
from legoray.search.phases import Goal
from legoray.search.reuse import taken_text
from legoray.search.sweep import ENDED, Sweep

MINUTE = 60.0  # seconds between two lines about the whole search in a log file
NARROW = 72  # columns, below which the board leaves out how long a trial runs
NAMES = {
    "completed": "completed",
    "pruned": "stopped early",
    "infeasible": "infeasible",
    "failed": "failed",
    "interrupted": "interrupted",
}


class Board:
    """The state of a sweep on the screen."""

    def __init__(
        self,
        console: Console,
        sweep: Sweep,
        *,
        goal: Goal,
        trials: int | None,
        finals: int,
        slots: int,
        budget: Budget | None = None,
    ) -> None:
        """A board for `trials` trials of the search and `finals` after it, `slots` at once.

        `trials` is None where the search is not bounded by them; `budget` has its other bounds.
        """
        self._budget = budget
        self._console, self._sweep, self._goal = console, sweep, goal
        self._trials, self._finals, self._slots = trials, finals, slots
        self._told: object = None
        self._shown = {r.number for r in sweep.records.values() if r.status in ENDED}

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show the board until the block ends."""
        if not self._console.is_terminal:
            with self._told_each_minute():
                yield
            return
        with Live(
            console=self._console,
            get_renderable=self.render,
            refresh_per_second=2,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        ):
            yield

    @contextmanager
    def _told_each_minute(self) -> Iterator[None]:
        """Without a terminal: a line a minute, from a thread of its own."""
        ended = threading.Event()

        def tell() -> None:
            while not ended.wait(MINUTE):
                self.tell()

        thread = threading.Thread(target=tell, name="legoray-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def tell(self) -> None:
        """Print how far the search is, unless nothing has happened since the last such line."""
        records = self._sweep.of("search", "final")
        state = [(r.number, r.status, len(r.epochs)) for r in records]
        if state != self._told:
            self._told = state
            self.say(f"{time.strftime('%H:%M')}  {self.headline()} · {self.best()}")

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def watch(self, record: TrialRecord) -> None:
        """A record has changed: print one line when its training has ended."""
        if record.status in ENDED and record.number not in self._shown:
            self._shown.add(record.number)
            self.say(self.line(record))

    def line(self, record: TrialRecord) -> str:
        """One line about a training that has ended."""
        name = "final" if record.phase == "final" else "trial"
        epochs = len(record.epochs)
        parts = [f"{name} {record.number:>3}  {record.label:<28}  {NAMES[record.status]}"]
        if epochs:
            parts[0] += f" after {epochs} epoch{'s' if epochs > 1 else ''}"
        value = record.best.get(self._goal.select)
        if value is not None:
            parts.append(f"{self._goal.select} {value:.4f}")
        seconds = taken(record)
        if seconds is not None:
            parts.append(span(seconds))
        if record.reused:
            parts.append(taken_text(record))
        if record.status in ("infeasible", "failed"):
            parts.append((record.reason.splitlines() or ["no reason given"])[0][:160])
        return "  ".join(parts)

    def render(self) -> RenderableType:
        """The board as it is now."""
        rows = Table.grid(padding=(0, 2, 0, 0))
        narrow = self._console.width < NARROW
        for place in range(4 if narrow else 5):
            rows.add_column(no_wrap=True, overflow="ellipsis" if place == 1 else "fold")
        for record in self._sweep.of("search", "final"):
            if record.status == "running":
                rows.add_row(*map(Text, self._running(record)[: 4 if narrow else 5]))
        return Group(Text(self.headline(), style="bold"), Text(self.best()), rows)

    def headline(self) -> str:
        """How many are done, and how long it will take."""
        search, final = self._sweep.of("search"), self._sweep.of("final")
        count: Counter[str] = Counter(r.status for r in search)
        done = sum(count[s] for s in ENDED)
        total = f" of {self._trials}" if self._trials is not None else ""
        parts = [f"{done}{total} trials done", f"{count['running']} running"]
        parts += [f"{count[s]} {NAMES[s]}" for s in ENDED if s != "completed" and count[s]]
        if final:
            ended = sum(r.status in ENDED for r in final)
            parts.append(f"finals: {ended} of {self._finals} done")
        left = self.seconds_left()
        parts.append(f"about {span(left)} left" if left is not None else "time left: not known yet")
        return " · ".join(parts)

    def best(self) -> str:
        """The best trial so far, and what it is."""
        found = ranked(self._sweep.of("search"), self._goal.select, self._goal.mode)
        if not found:
            return "best so far: none yet"
        record = found[0]
        value = record.best[self._goal.select]
        text = (
            f"best so far: {self._goal.select} {value:.4f}  trial {record.number}  {record.label}"
        )
        return f"{text}  {settings(record)}"

    def _running(self, record: TrialRecord) -> list[str]:
        epochs = record.config.get("train", {}).get("epochs", "?")
        value = record.epochs[-1].get(self._goal.select, math.nan) if record.epochs else math.nan
        return [
            f"{'final' if record.phase == 'final' else 'trial'} {record.number}",
            record.label,
            f"epoch {min(len(record.epochs) + 1, epochs)} of {epochs}",
            "" if math.isnan(value) else f"{self._goal.select} {value:.4f}",
            span(time.time() - record.started),
        ]

    def seconds_left(self) -> float | None:
        """An estimate from the trainings that have ended; None while there are none."""
        lengths = {
            phase: [
                taken(r) or 0.0
                for r in self._sweep.of(phase)
                if r.status in ("completed", "pruned")
            ]
            for phase in ("search", "final")
        }
        if not lengths["search"]:
            return None
        trial = statistics.fmean(lengths["search"])
        final = statistics.fmean(lengths["final"] or [max(lengths["search"])])
        ended = sum(r.status in ENDED for r in self._sweep.of("final"))
        work = max((self._trials or 0) - self._sweep.done(), 0) * trial
        work += max(self._finals - ended, 0) * final
        running = [r for r in self._sweep.of("search", "final") if r.status == "running"]
        spent = sum(min(time.time() - r.started, trial) for r in running)
        left = max(work - spent, 0.0) / max(self._slots, 1)
        bound = seconds_left(self._sweep, self._budget, self._slots) if self._budget else None
        if self._trials is None:  # epochs or hours end the search, its finals follow
            return None if bound is None else bound + left
        return left if bound is None else min(left, bound + self._finals * final)


def taken(record: TrialRecord) -> float | None:
    """The seconds that a training took, without the time during which it was interrupted."""
    if "seconds" in record.costs:
        return record.costs["seconds"]
    return record.ended - record.started if record.ended and not record.resumed else None


def settings(record: TrialRecord, most: int = 6) -> str:
    """The searched values of a trial, without the parts, which its label names already."""
    kinds = ("model/preset", "model/content", "model/behavior", "model/predictor")
    rest = {k: v for k, v in record.params.items() if k not in kinds}
    texts = [f"{k.rpartition('/')[2]} {_short(v)}" for k, v in rest.items()]
    more = f", and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def span(seconds: float) -> str:
    """Seconds as a person says them: `8 s`, `3 min`, `2.5 h`."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s" if seconds >= 10 else f"{max(seconds, 0):.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
