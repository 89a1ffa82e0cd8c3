"""One run of a sweep in this process: what is left of it, up to the closing lines."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from legoray.config import home
from legoray.data.prepare import Prepared
from legoray.errors import InputError
from legoray.rayjob import command_of
from legoray.records import TrialRecord
from legoray.search.baselines import run_baselines
from legoray.search.budget import Budget, budget_of, left
from legoray.search.faraway import check_nodes
from legoray.search.finals import count_groups, finals_of, winner
from legoray.search.samplers import sampler_notes
from legoray.search.space import Space
from legoray.search.start_from import start_notes
from legoray.search.sweep import ENDED, Sweep, data_title
from legoray.storage.address import portable

if TYPE_CHECKING:
    from legoray.data.corpus import Corpus
    from legoray.search.phases import Goal
    from legoray.search.scribe import Halt
    from legoray.zoo.record import Recorder

INTERRUPTED = 130
FAILED = 1
TRAIN = "legoray.train.loop:train"


def print_line(console: Console, text: str) -> None:
    """A line as it is, without markup, wrapped by the terminal alone."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _how(halt: Halt, sweep: Sweep) -> str:
    """What an interruption has cost; empty where it was none."""
    count = sum(record.status == "interrupted" for record in sweep.records.values())
    if not halt.interrupted or not count:
        return ""
    trials = f"{count} training{'' if count == 1 else 's'}"
    if halt.soft:
        return (
            f"Stopped softly: {trials} that ran will go on after the last epoch; nothing is lost."
        )
    return f"Stopped at once: {trials} that ran will go on after the last whole epoch."


@dataclass
class Search:
    """One run of a sweep in this process."""

    space: Space
    prepared: Prepared
    sweep: Sweep
    console: Console
    address: str | None
    budget: Budget
    folder: str | Path | None
    train_fn: str = TRAIN
    reuse: bool = True
    checked: bool = False  # whether the space was checked on these data in this process

    def run(self) -> int:
        """Do what is left, print the closing lines, return the exit code."""
        from legoray.search.comparing import compare_sweep

        halt: Halt | None = None
        if self._search_left() or self._finals_left():
            halt = self._run_trials()
        if halt is not None and halt.reason:
            return self._stopped(halt)
        self._run_baselines()
        done = any(r.status in ("completed", "pruned") for r in self.sweep.of("search"))
        self.sweep.set_state("finished", ended=self._ended())
        self.sweep.tidy()
        self.sweep.gather(winner(self.sweep, self.goal.select, self.goal.mode))
        compare_sweep(self.sweep, self.goal)
        self._close(interrupted=False)
        return 0 if done else FAILED

    # --- what is left to do

    @cached_property
    def goal(self) -> Goal:
        from legoray.search.phases import Goal
        from legoray.train.metrics import direction

        select = self.space.config.evaluate.select
        test = self.prepared.manifest.labeled.get("test", False)
        return Goal(select, direction(select), test)

    def _search_left(self) -> bool:
        return left(self.sweep, self.budget)

    def _ended(self) -> str:
        """Why there is nothing left to search."""
        known = self.sweep.info.ended
        return known or self.budget.over(self.sweep, self.sweep.info.spent) or "trials"

    def _finals(self) -> list[Any]:
        final = self.space.config.final
        return finals_of(self.sweep, final, self.goal.select, self.goal.mode)

    def _finals_left(self) -> bool:
        known = {r.key for r in self.sweep.of("final") if r.status in ENDED}
        return any(final.key not in known for final in self._finals())

    # --- trials

    def _run_trials(self) -> Halt:
        """Start Ray and run the search's trials and the finals on it."""
        self._say(self._opening())
        recorder = self.recorder  # a wrong tracking address is found before Ray starts
        from legoray.rayinit import cluster_text, ensure_ray

        ensure_ray(self.address)
        self.sweep.set_state(self.sweep.info.state, cluster=cluster_text())
        from legoray.data.load import load_corpus_ray
        from legoray.search.leftovers import remove_leftovers
        from legoray.search.room import wait_for_nodes
        from legoray.search.scribe import Halt

        remove_leftovers()
        wait_for_nodes(self._say)
        check_nodes(self.sweep.folder)
        corpus = load_corpus_ray(self.prepared.tables)
        self._check(corpus)
        halt = Halt()
        try:
            with halt.on_signals(self._say):
                self._tune(corpus, halt, [recorder.push])
        except KeyboardInterrupt:
            halt.soft = False
            halt.give_up("interrupted")
        return halt

    def _opening(self) -> str:
        done, info = self.sweep.done(), self.sweep.info
        data = data_title(info)
        going = f"going on with '{info.name}' after {done} trials" if done else f"'{info.name}'"
        return f"search {going}: {self.budget} on {data}, in {portable(self.sweep.folder)}"

    def _check(self, corpus: Any) -> None:
        """Check the space's corners once per sweep; see that hidden states are there."""
        if self.sweep.records or self.checked:
            return
        import ray

        from legoray.search.check import check_space

        for note in start_notes(self.space, self.prepared.manifest.generated):
            self._say(note)
        for note in sampler_notes(self.space):
            self._say(note)
        loaded: Corpus = ray.get(corpus)
        problems = check_space(self.space, loaded, self.prepared.tables, home(), self._say)
        if problems:
            raise InputError(*problems)

    def _tune(self, corpus: Any, halt: Halt, watchers: list[Callable[[TrialRecord], None]]) -> None:
        from legoray.search.display import Board
        from legoray.search.gpus import gpu_problems
        from legoray.search.reuse import earlier_results
        from legoray.search.study import StudySearcher
        from legoray.search.tuner import Plan, run_trials, slots_that_fit
        from legoray.search.warmstart import warm_start

        config = self.space.config
        study = StudySearcher(self.space, self.sweep.folder, sweep_id=self.sweep.info.id)
        if config.search.warm_start:
            folder, uri = self.sweep.folder, config.tracking.uri
            warm_start(study.study, self.sweep.info, folder, uri, self._say)
        groups = count_groups(self.space, config.final)
        finals = config.final.top * config.final.seeds * groups
        slots = slots_that_fit(config.search)
        problems = gpu_problems(config.search)
        if problems:
            raise InputError(*problems)
        board = Board(
            self.console,
            self.sweep,
            goal=self.goal,
            trials=self.budget.trials,
            finals=finals,
            slots=slots,
            budget=self.budget,
        )
        plan = Plan(
            search=config.search,
            budget=self.budget,
            goal=self.goal,
            epochs=max(c.train.epochs for c in self.space.corners()),
            home=str(home()),
            finals=self._finals,
            ended="" if self._search_left() else self._ended(),
            train_fn=self.train_fn,
            watchers=[board.watch, *watchers],
            earlier=earlier_results(self.sweep, config, self._say) if self._reuses() else None,
        )
        try:
            self.sweep.set_state("searching" if not plan.ended else "finals")
            with board.live():
                run_trials(self.sweep, study, corpus, plan, halt)
        finally:
            self.sweep.interrupt()
            study.close()

    def _reuses(self) -> bool:
        """Whether results of earlier sweeps are taken: never for another training's function."""
        return self.reuse and self.space.config.search.reuse and self.train_fn == TRAIN

    # --- the end

    def _run_baselines(self) -> None:
        run_baselines(
            self.sweep,
            self.space.config,
            lambda: self.corpus,
            labeled=self.prepared.manifest.labeled,
            push=self.recorder.push,
        )

    @cached_property
    def corpus(self) -> Corpus:
        from legoray.data.load import load_corpus

        return load_corpus(self.prepared.tables)

    @cached_property
    def recorder(self) -> Recorder:
        from legoray.zoo.record import Recorder

        return Recorder(self.space.config.tracking, self.sweep.info, self.sweep.folder)

    def _stopped(self, halt: Halt) -> int:
        """The search ended before its time."""
        self.sweep.set_state("interrupted")
        if halt.problem is not None:
            self.recorder.finish(None, interrupted=True)
            self._say(f"to go on, once that is mended: {self.again()}")
            raise halt.problem
        at_once = halt.interrupted and not halt.soft
        self._close(interrupted=True, how=_how(halt, self.sweep), page=not at_once)
        if halt.reason == "failures":
            self._say_failures()
            return FAILED
        return INTERRUPTED

    def _say_failures(self) -> None:
        self._say("The search was given up: its first trials all failed. The first one:")
        record = next(r for r in self.sweep.of("search") if r.status == "failed")
        self._say(f"  {record.label}: {record.reason}")
        self._say(f"  all of it: {self.sweep.model_folder(record.key) / 'error.json'}")

    def _close(self, *, interrupted: bool, how: str = "", page: bool = True) -> None:
        from legoray.search.closing import closing
        from legoray.zoo.promotion import champion_line

        best = winner(self.sweep, self.goal.select, self.goal.mode)
        sent = self.recorder.finish(best, interrupted=interrupted)
        champion = None if interrupted else self.recorder.state.champion
        note = "" if sent else f"MLflow does not have everything yet: {self.recorder.problem}"
        if page:
            self._report()
        closing(
            self.console,
            self.sweep,
            goal=self.goal,
            again=self.again(),
            links=self.recorder.links(),
            registry="" if champion is None else champion_line(champion),
            note=note,
            how=how,
        )

    def _report(self) -> None:
        """The page with plots, in the folder and in MLflow. Without it a search is as good."""
        from legoray.search.report.command import write_report

        try:
            self.recorder.attach(write_report(self.sweep.folder))
        except Exception as error:
            first = (str(error).splitlines() or [""])[0]
            told = first if isinstance(error, InputError) else f"{type(error).__name__}: {first}"
            self._say(f"the report could not be written: {told}")

    def again(self) -> str:
        """The command that goes on with this sweep."""
        words = ["python", "run_search.py", str(self.space.document.path)]
        if self.budget != budget_of(self.space.config.search):
            words += ["--trials", str(self.budget.trials)]
        if self.folder is not None:
            words += ["--folder", str(self.folder)]
        words += [] if self.reuse else ["--no-reuse"]
        if self.address is not None:
            words += ["--address", self.address]
        return command_of(shlex.join(words))

    def _say(self, text: str) -> None:
        print_line(self.console, text)
