"""The training of one model: epochs, evaluation, early stopping, checkpoints.

`train(job, runtime, report)` is called the same way in a warm slot, in a TorchTrainer worker of its
own and in a plain process, by one worker or by each of several.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from legoray.data.load import read_manifest
from legoray.errors import DamagedError, InfeasibleError, InputError, Problem
from legoray.model.base import Shape
from legoray.model.inputs import Inputs, Recipes
from legoray.model.io import load_model, load_state, model_state, save_model
from legoray.model.reads import prints_of, reads_of
from legoray.model.recommender import Recommender, new_model, recipes_of
from legoray.train.cache import shared_inputs
from legoray.train.checkpoint import (
    Progress,
    config_digest,
    last,
    matching_checkpoint,
    remove_checkpoint,
    write_checkpoint,
)
from legoray.train.costs import latency_ms
from legoray.train.evaluate import (
    evaluate,
    evaluate_groups,
    evaluation_problems,
    group_counts,
)
from legoray.train.groupvalues import write_values
from legoray.train.job import Job, Outcome, Report, Runtime, Stopped
from legoray.train.losses import check_train
from legoray.train.memory import PeakMemory, out_of_memory
from legoray.train.metrics import check_metrics, direction
from legoray.train.optimizer import build_optimizer, check_trained
from legoray.train.parallel import Gradients, first_alone, same_start
from legoray.train.scoring import Worker
from legoray.train.steps import EpochRunner, Sizes
from legoray.train.threads import limit_threads


def train(job: Job, runtime: Runtime, report: Report) -> Outcome:
    """Train one model, going on from its checkpoint if it has one.

    `report` is called by the first worker after every epoch, once the checkpoint is on disk, with
    `epoch`, `loss`, the validation metrics, `train_seconds`, `evaluate_seconds` and
    `samples_per_second`. What was reported before an interruption is not reported again.

    Args:
        job: what to train and where its files go.
        runtime: this worker, its device, and the corpus in memory.
        report: may raise `Stopped` to end the training.

    Raises:
        InputError: the configuration is not valid, a split is empty, a file is damaged or the
            folder cannot be written.
        InfeasibleError: the loss is not finite, or memory does not suffice for a single sample or
            for the model itself.
    """
    problems = check_train(job.config.train)
    problems += check_metrics(job.config.evaluate.metrics, job.config.evaluate.select)
    problems += evaluation_problems(job.config.evaluate, runtime.corpus)
    if problems:
        raise InputError(*problems)
    if runtime.threads:
        limit_threads(runtime.threads)
    training: Training | None = None
    try:
        training = Training(job, runtime)
        return training.run(report)
    except InfeasibleError:
        if training is not None:
            training.forget()
        raise
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        if training is not None:
            training.forget()
        first = str(error).strip().splitlines()[0] if str(error).strip() else "MemoryError"
        raise InfeasibleError(f"out of memory for the model and its optimizer: {first}") from None


@dataclass(frozen=True)
class OpenModel:
    """A new model, what it reads, and what it was built from."""

    recommender: Recommender
    inputs: Inputs
    recipes: Recipes
    shape: Shape
    reads: dict[str, str]  # attribute -> fingerprint of its texts, where they were written later


def open_model(job: Job, runtime: Runtime) -> OpenModel:
    """Build a job's model with the weights that its seed decides, on the worker's device.

    Raises:
        DamagedError: its texts are no longer those that it was meant to read.
        InputError: as for its parts.
    """
    config, tables = job.config, Path(job.tables)
    manifest = read_manifest(tables)
    recipes = recipes_of(config.model, tuple(manifest.text))
    reads = reads_of(recipes, prints_of(manifest))
    _check_reads(reads if job.reads is None else job.reads, reads, job.tables)
    inputs = shared_inputs(recipes, tables, Path(job.home), runtime.corpus)
    # opening them may take minutes, in which somebody attaches others
    later = read_manifest(tables)
    again = reads_of(recipes_of(config.model, tuple(later.text)), prints_of(later))
    _check_reads(reads, again, job.tables)
    recommender, shape = new_model(
        config.model, inputs, max_history=config.train.max_history, seed=config.seed
    )
    return OpenModel(recommender.to(runtime.device), inputs, recipes, shape, reads)


def _check_reads(meant: Mapping[str, str], found: Mapping[str, str], tables: str) -> None:
    """See that texts are those that were meant.

    Raises:
        DamagedError: they are not. As with damage, every other trial would end the same way.
    """
    if found != meant:
        names = sorted({name for name, _ in meant.items() ^ found.items()})
        what = f"the texts of {', '.join(names)}"
        if found.keys() != meant.keys():
            what = f"what is read by default ({', '.join(meant)}; now {', '.join(found)})"
        message = f"{what} changed while this search was running"
        hint = "put them back and go on, or start anew with --fresh"
        raise DamagedError(Problem(tables, message, hint))


class Training:
    """One job under way."""

    def __init__(self, job: Job, runtime: Runtime) -> None:
        self._began = time.perf_counter()
        self._job, self._runtime = job, runtime
        self._config, self._folder = job.config, Path(job.folder)
        self._memory = PeakMemory(runtime.device)
        self._worker = Worker(
            runtime.rank, runtime.world, runtime.device, job.config.train.precision
        )
        self._model = open_model(job, runtime)
        self._parameters = check_trained(self._model.recommender)
        same_start(list(self._parameters.values()), runtime.world)
        self._optimizer = build_optimizer(self._model.recommender, job.config.train)
        self._progress = Progress(
            config=config_digest(job.config, runtime.corpus.fingerprint, self._model.reads),
            run=uuid.uuid4().hex,
            accumulate=job.config.train.accumulate,
        )
        self._resume()
        self._runner = EpochRunner(
            recommender=self._model.recommender,
            inputs=self._model.inputs,
            optimizer=self._optimizer,
            gradients=Gradients(
                list(self._parameters.values()), runtime.world, self._optimizer.sparse
            ),
            runtime=runtime,
            config=job.config,
            accumulate=self._progress.accumulate,
            began=self._began,
        )

    def run(self, report: Report) -> Outcome:
        """Train the epochs that are missing, and measure the best of all."""
        total = self._config.train.epochs
        stopped = False
        while len(self._progress.epochs) < total and not self._out_of_patience() and not stopped:
            metrics, improved = self._epoch(len(self._progress.epochs) + 1)
            stopped = first_alone(
                lambda metrics=metrics, improved=improved: (  # type: ignore[misc]
                    self._keep(improved) or _told_to_stop(report, metrics)
                ),
                self._runtime.rank,
                self._runtime.world,
            )
        test = self._test() if self._job.test and not stopped else {}
        outcome = Outcome(
            epochs=self._progress.epochs,
            best=self._progress.best,
            test=test,
            costs=self._costs(),
            stopped=stopped,
            reason=self._reason(stopped),
        )
        if stopped or not self._job.keep_last:
            self.forget()
        return outcome

    def forget(self) -> None:
        """Delete the checkpoint."""
        if self._runtime.rank == 0:
            remove_checkpoint(self._folder, self._progress.run)

    # --- an epoch

    def _epoch(self, epoch: int) -> tuple[dict[str, float], bool]:
        """Train and validate one epoch; its metrics, and whether it is the best so far."""
        began = time.perf_counter()
        sizes = self._runner.run(epoch)
        trained = time.perf_counter()
        metrics = self._evaluate(self._model.recommender, "valid")
        ended = time.perf_counter()
        row = {
            "epoch": epoch,
            "loss": sizes.loss,
            **metrics,
            "train_seconds": trained - began,
            "evaluate_seconds": ended - trained,
            "samples_per_second": sizes.samples / (trained - began),
        }
        improved = self._improved(row)
        self._progress = self._progress.model_copy(
            update={
                "epochs": [*self._progress.epochs, row],
                "best": row if improved else self._progress.best,
                "since_best": 0 if improved else self._progress.since_best + 1,
                "accumulate": self._runner.accumulate,
                "costs": {**self._progress.costs, **self._own_costs(sizes)},
            }
        )
        return row, improved

    def _evaluate(self, recommender: Recommender, split: str) -> dict[str, float]:
        metrics, _ = evaluate(
            recommender,
            self._model.inputs,
            split,
            self._runtime.corpus,
            config=self._config.evaluate,
            max_history=self._config.train.max_history,
            worker=self._worker,
        )
        return metrics

    def _improved(self, row: dict[str, float]) -> bool:
        select = self._config.evaluate.select
        if select not in row:
            message = "the valid split has no labels, so that no epoch can be selected"
            raise InputError(Problem(f"data set {self._runtime.corpus.name}", message))
        if not self._progress.best:
            return True
        difference = row[select] - self._progress.best[select]
        return difference > 0 if direction(select) == "max" else difference < 0

    def _out_of_patience(self) -> bool:
        return self._progress.since_best >= self._config.train.patience

    def _reason(self, stopped: bool) -> str:
        if stopped:
            return "stopped by the scheduler"
        if len(self._progress.epochs) >= self._config.train.epochs:
            return ""
        count = self._progress.since_best
        epochs = "epoch" if count == 1 else f"{count} epochs"
        return f"{self._config.evaluate.select} has not improved in the last {epochs}"

    # --- files

    def _keep(self, improved: bool) -> bool:
        """Write the best model, then the checkpoint that knows of it (the first worker alone)."""
        if improved:
            save_model(
                self._folder / "best",
                self._model.recommender,
                config=self._config.model,
                shape=self._model.shape,
                recipes=self._model.recipes,
                inputs=self._model.inputs,
                extra=self._extra(),
            )
        weights = model_state(self._model.recommender)
        state = self._optimizer.state(self._parameters)
        tensors = {f"model/{name}": value for name, value in weights.items()}
        tensors |= {f"optimizer/{name}": value for name, value in state.items()}
        write_checkpoint(self._folder, self._progress, tensors)
        return False

    def _extra(self) -> dict[str, object]:
        corpus = self._runtime.corpus
        return {
            "seed": self._config.seed,
            "metrics": self._progress.best,
            "data": corpus.name,
            "fingerprint": corpus.fingerprint,
            "reads": self._model.reads,
            "protocol": corpus.protocol,
            "config": self._config.model_dump(),
        }

    def _resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        found = matching_checkpoint(self._folder, self._progress.config)
        if found is None:
            return
        progress, tensors = found
        try:
            load_state(self._model.recommender, _below("model/", tensors))
            state = _below("optimizer/", tensors)
            self._optimizer.load(self._parameters, state)
        except (RuntimeError, KeyError, ValueError) as error:
            place = last(self._folder)
            raise InputError(
                Problem(
                    str(place),
                    f"the checkpoint does not fit the model: {str(error).splitlines()[0]}",
                    f"delete the folder {place} to train from the start",
                )
            ) from None
        self._progress = progress.model_copy(update={"run": self._progress.run})

    # --- the end

    def _test(self) -> dict[str, float]:
        """The test split's metrics of the best epoch, those of slices among them.

        What each group has by itself is kept with the model, so that comparing takes no second
        look at the test.
        """
        if self._runtime.rank:
            self._runtime.refresh()
        best = load_model(self._folder / "best").recommender.to(self._runtime.device)
        metrics, values = evaluate_groups(
            best,
            self._model.inputs,
            "test",
            self._runtime.corpus,
            config=self._config.evaluate,
            max_history=self._config.train.max_history,
            worker=self._worker,
        )
        if values is not None and self._runtime.rank == 0:
            write_values(self._folder / "best", values)
        return metrics

    def _own_costs(self, sizes: Sizes) -> dict[str, float]:
        """What the newest epoch adds to the costs."""
        now = time.perf_counter()
        seconds = self._progress.costs.get("seconds", 0.0) + now - self._began
        self._began = now
        first = self._progress.costs.get("start_seconds", sizes.start_seconds)
        return {"seconds": seconds, "start_seconds": first, "dropped_clicks": sizes.dropped}

    def _costs(self) -> dict[str, float]:
        rows = self._progress.epochs
        parameters, trained = self._model.recommender.parameter_counts()
        corpus, group = self._runtime.corpus, self._config.evaluate.group
        groups, left_out = group_counts(corpus.splits["valid"], group or corpus.group)
        return {
            **self._progress.costs,
            "seconds": self._progress.costs["seconds"] + time.perf_counter() - self._began,
            "train_seconds": sum(row["train_seconds"] for row in rows),
            "evaluate_seconds": sum(row["evaluate_seconds"] for row in rows),
            "parameters": parameters,
            "trainable": trained,
            "memory_mb": self._memory.mib(),
            **self._latency(),
            "valid_groups": groups,
            "valid_groups_left_out": left_out,
        }

    def _latency(self) -> dict[str, float]:
        """What answering a request takes; the first worker alone measures it, for all of them."""
        if self._runtime.rank:
            return {}
        taken = latency_ms(
            self._model.recommender,
            shape=self._model.shape,
            inputs=self._model.inputs,
            device=self._runtime.device,
        )
        return {"latency_ms": taken}


def _told_to_stop(report: Report, metrics: dict[str, float]) -> bool:
    try:
        report(metrics)
    except Stopped:
        return True
    return False


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
