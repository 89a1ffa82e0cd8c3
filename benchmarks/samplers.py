"""How many epochs of training TPE with ASHA needs to find what random search found.

    python benchmarks/samplers.py [--space search_spaces/all.yaml] [--trials 40] [--seeds 5]
                                  [--methods parts+asha] [--full] [--processes 2] [--cache FOLDER]

On each seed, random search trains `trials` configurations to their last epoch: no scheduler, no
early stopping, no starting points. Then each method searches the same space from nothing and with
draws of its own, with the sampler and scheduler as the space file has them, until one of its epochs
is as good as the best one of random search (at most as many epochs as random search had). Trials
run one after another on one thread. Printed are the epochs of both and their share; a method that
gave up counts as 1.

Methods are `<sampler>+<scheduler>`, or a sampler alone for no scheduler. Unless `--full` is given,
all trainings read 10 clicks of a history and take steps of 256 samples, which costs half as much.

What a training came to is kept in the cache by its configuration, its seed and the data, so a run
that was interrupted goes on, and one with other settings trains only what is new. Delete the
folder after a change to models or training.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from pydantic import Field

from legoray.config import Strict, TrialConfig, build, home
from legoray.data.corpus import Corpus
from legoray.data.prepare import Prepared, prepare
from legoray.errors import InfeasibleError
from legoray.records import digest, read_json, write_json
from legoray.search.asktell import AskTell, Ending, Suggestion
from legoray.search.check import check_space
from legoray.search.phases import Goal
from legoray.search.scheduler import SearchScheduler, make_scheduler
from legoray.search.space import Space, read_space
from legoray.spaceconfig import SamplerConfig, SchedulerConfig
from legoray.train.cache import shared_corpus
from legoray.train.job import Job, Runtime, Stopped
from legoray.train.loop import train
from legoray.train.metrics import direction

STOP = "STOP"  # a scheduler's word
OTHER = 1000  # to the seed of a method, whose first draws would else be those of random search
CHEAP = {"max_history": 10, "batch_size": 256}


class Known(Strict):
    """What is known of a training."""

    epochs: list[dict[str, float]] = Field(default_factory=list)
    ended: bool = False  # by itself: there is no epoch beyond these
    reason: str = ""  # why it cannot be trained, if so


@dataclass(frozen=True)
class Trainer:
    """Trains configurations, and remembers what came of each."""

    prepared: Prepared
    corpus: Corpus
    cache: Path
    cheap: bool

    def settings(self, config: TrialConfig, *, patient: bool) -> TrialConfig:
        """The configuration as it is trained."""
        update = dict(CHEAP) if self.cheap else {}
        update |= {"patience": config.train.epochs} if patient else {}
        return config.model_copy(update={"train": config.train.model_copy(update=update)})

    def follow(self, config: TrialConfig, watch: Callable[[dict[str, float]], bool]) -> str:
        """Show the epochs of a training one by one, until `watch` has seen enough.

        Returns:
            Why it cannot be trained; empty where it can.
        """
        content = [config.model_dump(), self.corpus.fingerprint, torch.__version__]
        file = self.cache / f"{digest(content)}.json"
        known = read_json(file, Known) if file.exists() else Known()
        if not all(watch(row) for row in known.epochs) or known.ended:
            return known.reason
        seen = list(known.epochs)

        def report(row: dict[str, float]) -> None:
            if row["epoch"] > len(seen):
                seen.append(row)
                write_json(file, Known(epochs=seen))
                if not watch(row):
                    raise Stopped

        with tempfile.TemporaryDirectory(prefix="samplers-") as folder:
            known = self._train(config, folder, report, seen)
        write_json(file, known)
        return known.reason

    def _train(
        self,
        config: TrialConfig,
        folder: str,
        report: Callable[[dict[str, float]], None],
        seen: list[dict[str, float]],
    ) -> Known:
        tables = str(self.prepared.tables)
        job = Job(config=config, tables=tables, home=str(home()), folder=folder)
        try:
            outcome = train(job, Runtime(self.corpus, threads=1), report)
        except InfeasibleError as error:
            return Known(epochs=seen, ended=True, reason=str(error))
        return Known(epochs=seen, ended=not outcome.stopped)


class Search:
    """One search, one trial after another, until it has found what is good enough."""

    def __init__(self, space: Space, method: str, trainer: Trainer, goal: float | None) -> None:
        """`goal`: the value to reach; None to do all trials, each to its last epoch."""
        self._space, self._trainer = changed(space, method), trainer
        self._select = space.config.evaluate.select
        self._maximize = direction(self._select) == "max"
        self._goal = goal
        self._study: AskTell | None = None
        self._scheduler = self._new_scheduler()
        self.epochs = 0
        self.trials = 0
        self.best: float | None = None

    def _new_scheduler(self) -> SearchScheduler:
        goal = Goal(self._select, "max" if self._maximize else "min")
        longest = max(c.train.epochs for c in self._space.corners())
        return make_scheduler(self._space.config.search.scheduler, longest, goal, [])

    def run(self, trials: int, epochs: float) -> None:
        """Search until the goal is reached or the budget is used up."""
        with tempfile.TemporaryDirectory(prefix="samplers-") as folder:
            study = AskTell(self._space, Path(folder) / "study.journal", name="benchmark")
            while self.trials < trials and self.epochs < epochs and not self.reached:
                asked = study.ask()
                if asked is None:
                    return
                self._one(study, asked)

    @property
    def reached(self) -> bool:
        return self._goal is not None and self.best is not None and self._as_good(self._goal)

    def _as_good(self, value: float) -> bool:
        assert self.best is not None
        return self.best >= value if self._maximize else self.best <= value

    def _one(self, study: AskTell, asked: Suggestion) -> None:
        asked_for = build(TrialConfig, asked.config)
        config = self._trainer.settings(asked_for, patient=self._goal is None)
        trial = _Trial(f"trial-{asked.number}")
        self._scheduler.on_trial_add(None, trial)
        ending: Ending = "completed"
        own: float | None = None
        better = max if self._maximize else min

        def watch(row: dict[str, float]) -> bool:
            nonlocal own, ending
            self.epochs += 1
            value, epoch = row[self._select], int(row["epoch"])
            own = value if own is None else better(own, value)
            self.best = own if self.best is None else better(own, self.best)
            study.report(asked.number, epoch, row)
            if self.reached:
                return False
            result = {"epoch": epoch, "value": own}
            if epoch >= config.train.epochs:  # as in a sweep: it has nothing left to do
                return True
            if self._scheduler.on_trial_result(None, trial, result) == STOP:
                ending = "pruned"
                return False
            return True

        began, before = time.perf_counter(), self.epochs
        reason = self._trainer.follow(config, watch)
        study.conclude(asked.number, "infeasible" if reason else ending, reason=reason)
        self.trials += 1
        told = "infeasible" if own is None else f"{own:.4f}"
        seconds = time.perf_counter() - began
        label = config.model.label()
        print(
            f"    {self.trials:>3} {label:<48} {told} in {self.epochs - before} epochs"
            f" ({seconds:.1f} s)",
            flush=True,
        )


@dataclass(frozen=True)
class _Trial:
    """What a scheduler wants to know of a trial."""

    trial_id: str
    config: dict[str, str] = dataclasses.field(default_factory=lambda: {"phase": "search"})


def changed(space: Space, method: str) -> Space:
    """The space, searched by a method and from nothing."""
    sampler, _, scheduler = method.partition("+")
    search = space.config.search
    update: dict[str, Any] = {"start_with": [], "start_from": []}
    if sampler != search.sampler.name:
        update["sampler"] = SamplerConfig.model_validate({"name": sampler})
    if scheduler != search.scheduler.name:
        update["scheduler"] = SchedulerConfig.model_validate({"name": scheduler or "none"})
    config = space.config.model_copy(update={"search": search.model_copy(update=update)})
    return dataclasses.replace(space, config=config)


def seeded(space: Space, seed: int) -> Space:
    """The space on another seed: of its proposals and of its trainings."""
    return dataclasses.replace(space, config=space.config.model_copy(update={"seed": seed}))


def open_trainer(space: Space, cache: Path, cheap: bool) -> Trainer:
    """The data, and what the trials read of it, made once."""
    prepared = prepare(space.dataset, say=lambda text: None)
    corpus = shared_corpus(prepared.tables)
    marker = cache / "checked.json"
    if not marker.exists():  # the corners are built once, so that no search makes what it reads
        problems = check_space(space, corpus, prepared.tables, home())
        if problems:
            raise SystemExit("\n".join(map(str, problems)))
        write_json(marker, {"space": str(space.document.path)})
    return Trainer(prepared, corpus, cache, cheap)


@dataclass(frozen=True)
class Task:
    """The searches of one seed."""

    seed: int
    space: Path
    trials: int
    methods: tuple[str, ...]
    cache: Path
    cheap: bool


def compare(task: Task) -> list[tuple[str, float, str]]:
    """Method, share of random search's epochs and a line of the table, for each method."""
    torch.set_num_threads(1)
    space = seeded(read_space(task.space), task.seed)
    trainer = open_trainer(space, task.cache, task.cheap)
    print(f"seed {task.seed}: random", flush=True)
    base = Search(space, "random", trainer, None)
    base.run(task.trials, float("inf"))
    rows = []
    for method in task.methods:
        print(f"seed {task.seed}: {method}", flush=True)
        other = Search(seeded(space, task.seed + OTHER), method, trainer, base.best)
        other.run(base.epochs, base.epochs)
        share = other.epochs / base.epochs if other.reached else 1.0
        line = (
            f"{task.seed:<5} {base.best:>11.4f} {base.epochs:>13} {method:<14} {other.best:>7.4f}"
            f" {other.trials:>7} {other.epochs:>7} {share:>6.2f}"
        )
        print(line, flush=True)
        rows.append((method, share, line))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--space", type=Path, default=Path("search_spaces/all.yaml"))
    parser.add_argument("--trials", type=int, default=40, help="of random search")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", default=["parts+asha"])
    parser.add_argument("--processes", type=int, default=2, help="seeds at once")
    parser.add_argument("--full", action="store_true", help="trainings as the space has them")
    parser.add_argument("--cache", type=Path, default=None, help="folder of what was trained")
    given = parser.parse_args()
    cache = given.cache or home() / "benchmarks" / "samplers"
    open_trainer(read_space(given.space), cache, not given.full)
    methods = tuple(given.methods)
    tasks = [
        Task(seed, given.space, given.trials, methods, cache, not given.full)
        for seed in range(1, given.seeds + 1)
    ]
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        rows = [row for found in pool.imap(compare, tasks, chunksize=1) for row in found]
    print("\nseed  random best  random epochs method            best  trials  epochs  share")
    print("\n".join(line for _, _, line in rows))
    for method in methods:
        shares = [share for name, share, _ in rows if name == method]
        print(f"median share of {method}: {statistics.median(shares):.2f}")


if __name__ == "__main__":
    main()
