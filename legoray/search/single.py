"""`legoray train`: one model trained alone, in this process, recorded as a search's trials are.

Its folder is a sweep's: records, models, what MLflow has. Trainings of other seeds and settings may
share it; one that was interrupted goes on, and one that has ended is not run twice.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from legoray.config import home, lasting, read_dataset
from legoray.data.prepare import Prepared, prepare
from legoray.errors import InfeasibleError, InputError, Problem
from legoray.records import Metrics, TrialRecord
from legoray.search.carried import carried
from legoray.search.opening import open_sweep
from legoray.search.single_config import Single, read_single
from legoray.search.sweep import ENDED, Sweep, trial_key
from legoray.spaceconfig import SpaceConfig, TrackingConfig
from legoray.storage.address import place, portable
from legoray.yamlfile import Document

FAILED, INTERRUPTED = 1, 130
Say = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """The command line of `legoray train`."""

    data: Path
    preset: str | None = None
    file: Path | None = None
    changes: Sequence[str] = ()
    seed: int | None = None
    folder: str | Path | None = None
    test: bool = False
    fresh: bool = False
    tracking: str = TrackingConfig().uri

    def command(self) -> str:
        """What a person typed, for going on with it."""
        words = ["legoray", "train", "--data", str(self.data)]
        words += ["--preset", self.preset] if self.preset else []
        words += ["--config", str(self.file)] if self.file else []
        words += [word for change in self.changes for word in ("--set", change)]
        words += ["--seed", str(self.seed)] if self.seed is not None else []
        words += ["--folder", str(self.folder)] if self.folder else []
        words += ["--test"] if self.test else []
        words += ["--tracking", self.tracking] if self.tracking != TrackingConfig().uri else []
        return shlex.join(words)


def train_one(asked: Asked, console: Console) -> int:
    """Train one model; the exit code is 0, 1 (it cannot be trained) or 130 (interrupted).

    Raises:
        InputError: a mistake of the user's, all of those that can be found at once together.
    """

    say = partial(_say, console)
    single = _read(asked)
    prepared = prepare(asked.data.absolute(), say=say)
    _check(single, prepared, say)
    where = place(asked.folder, "--folder") if asked.folder else lasting() / "runs" / single.name
    document = Document(Path(single.file), {})  # trainings of any settings may share the folder
    sweep = open_sweep(
        _Alone(_space_config(asked, single), document),
        where,
        prepared.tables,
        prepared.manifest,
        fresh=asked.fresh,
        mixed=True,
    )
    try:
        sweep.interrupt()
        sweep.set_state("searching", ended="", command=asked.command())
        return _Run(asked, single, prepared, sweep, console).run()
    finally:
        sweep.close()


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class _Alone:
    """What a sweep's folder wants to know of a space."""

    config: SpaceConfig
    document: Document


def _read(asked: Asked) -> Single:
    """The model and the data set's file; the mistakes of both come together."""
    problems: list[Problem] = []
    single = None
    try:
        single = read_single(asked.preset, asked.file, asked.changes, asked.seed)
    except InputError as error:
        problems += error.problems
    try:
        read_dataset(asked.data)
    except InputError as error:
        problems += error.problems
    if problems or single is None:
        raise InputError(*problems)
    return single


def _space_config(asked: Asked, single: Single) -> SpaceConfig:
    config = single.config
    return SpaceConfig(
        name=single.name,
        data=[str(asked.data)],
        seed=config.seed,
        model=config.model.model_dump(),
        evaluate=config.evaluate,
        tracking=TrackingConfig(uri=asked.tracking),
    )


def _check(single: Single, prepared: Prepared, say: Say) -> None:
    """Make what takes long to make, build the model and run one batch."""
    from legoray.model.presets import reading_note
    from legoray.search.check import check_config
    from legoray.train.cache import shared_corpus

    model, text = single.config.model, tuple(prepared.manifest.text)
    corpus = shared_corpus(prepared.tables)
    problems = check_config(single.config, text, corpus, prepared.tables, home(), say)
    if problems:
        raise InputError(*problems)
    written = prepared.manifest.generated
    note = reading_note(model.preset, model.content, text, written) if model.preset else ""
    if note:
        say(note)


class _Run:
    """One training under way."""

    def __init__(
        self, asked: Asked, single: Single, prepared: Prepared, sweep: Sweep, console: Console
    ) -> None:
        from legoray.train.metrics import direction
        from legoray.zoo.record import Recorder

        self.asked, self.config, self.prepared = asked, single.config, prepared
        self.sweep, self.console, self.say = sweep, console, partial(_say, console)
        self.select = single.config.evaluate.select
        self.mode = direction(self.select)
        self.recorder = Recorder(TrackingConfig(uri=asked.tracking), sweep.info, sweep.folder)

    def run(self) -> int:
        """Train, unless that was done before."""
        key = trial_key(self.config.model_dump(), self.sweep.info)
        phase = "final" if self.asked.test else "search"
        known = self.sweep.find(key, phase)  # type: ignore[arg-type]
        if known is not None and known.status == "completed":
            self.say(f"{known.label} was trained before (--fresh trains it anew)")
            return self._close(known)
        label = self.config.model.label()
        record = self.sweep.begin(key, phase, label, self.config.model_dump(), {})  # type: ignore[arg-type]
        done = f", going on after epoch {len(record.epochs)}" if record.epochs else ""
        epochs = self.config.train.epochs
        length = f"{epochs} epoch{'s' if epochs > 1 else ''}"
        self.say(f"training {label} for {length}, seed {self.config.seed}{done}")
        self.recorder.push(record)
        try:
            ended = self._train(record)
        except KeyboardInterrupt:
            self._ended(record.number, status="interrupted", reason="interrupted")
            self.recorder.finish(None, interrupted=True)
            self.say(f"interrupted; to go on: {self.asked.command()}")
            return INTERRUPTED
        except InfeasibleError as error:
            self._ended(record.number, status="infeasible", reason=str(error))
            self.recorder.finish(None)
            self.say(f"{label} cannot be trained so: {error}")
            return FAILED
        except BaseException as error:
            self._ended(record.number, status="failed", reason=str(error))
            self.recorder.finish(None)
            raise
        return self._close(ended)  # what goes wrong now takes nothing away from the training

    def _ended(self, number: int, **changes: Any) -> TrialRecord:
        record = self.sweep.change(number, ended=time.time(), **changes)
        self.recorder.push(record)
        return record

    def _train(self, record: TrialRecord) -> TrialRecord:
        import torch

        from legoray.train.cache import shared_corpus
        from legoray.train.job import Job, Runtime
        from legoray.train.loop import train

        job = Job(
            config=self.config,
            tables=portable(self.prepared.tables),
            home=portable(home()),
            folder=portable(self.sweep.model_folder(record.key)),
            test=self.asked.test and self.prepared.manifest.labeled.get("test", False),
            reads=record.reads,
            keep_last=True,
        )
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        runtime = Runtime(corpus=shared_corpus(self.prepared.tables), device=device)
        outcome = carried(train)(job, runtime, lambda metrics: self._epoch(record.number, metrics))
        if outcome.reason:
            self.say(outcome.reason)
        kept = outcome.model_dump(include={"epochs", "best", "test", "costs", "reason"})
        return self._ended(record.number, status="completed", **kept)

    def _epoch(self, number: int, metrics: Metrics) -> None:
        """Note an epoch, and print it."""
        from legoray.search.scribe import merged

        epochs = merged(self.sweep.records[number].epochs, metrics)
        better = max if self.mode == "max" else min
        best = better(epochs, key=lambda epoch: epoch.get(self.select, float("nan")))
        self.recorder.push(self.sweep.change(number, epochs=epochs, best=best))
        seconds = metrics["train_seconds"] + metrics["evaluate_seconds"]
        parts = [f"epoch {metrics['epoch']:.0f}", f"loss {metrics['loss']:.4f}"]
        parts += [f"{n} {metrics[n]:.4f}" for n in self._shown(metrics)]
        self.say("  ".join([*parts, f"{seconds:.1f} s"]))

    def _shown(self, metrics: Metrics) -> list[str]:
        asked = [self.select, *self.config.evaluate.metrics]
        return [name for name in dict.fromkeys(asked) if name in metrics]

    def _close(self, record: TrialRecord) -> int:
        """The last lines: what was measured, where the model is, what may be done with it."""
        from legoray.search.closing import recommending, shown
        from legoray.search.finals import winner
        from legoray.zoo.promotion import champion_line

        self.sweep.set_state("finished", ended="trials")
        self.sweep.tidy()
        best = winner(self.sweep, self.select, self.mode)
        sent = self.recorder.finish(best)
        self.say(f"best on validation: {self._numbers(record.best)}")
        if record.test:
            self.say(f"test split: {self._numbers(record.test)}")
            self._print_slices(record.test)
        elif self.asked.test:
            self.say("the test split has no labels: nothing was measured on it")
        folder = self.sweep.model_folder(record.key) / "best"
        self.say(f"model: {shown(folder)}")
        if self.recorder.state.champion is not None:
            self.say(champion_line(self.recorder.state.champion))
        for link in self.recorder.links():
            self.say(f"  {link}")
        self.say(f"  legoray leaderboard {shown(self.sweep.folder)}")
        for line in recommending(folder):
            self.say(line)
        if not sent:
            self.say(f"MLflow does not have everything yet: {self.recorder.problem}")
        return 0 if record.status in ENDED else FAILED

    def _print_slices(self, metrics: Metrics) -> None:
        from legoray.zoo.slicetable import print_table, slices_in

        if slices_in(metrics):
            group = self.config.evaluate.group or self.prepared.manifest.group
            print_table(metrics, self.console, group=group)

    def _numbers(self, metrics: Metrics) -> str:
        return ", ".join(f"{name} {metrics[name]:.4f}" for name in self._shown(metrics))
