"""The steps of an epoch. The loop over them waits for nothing: no file, no metric, no number."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from legoray.config import TrialConfig
from legoray.errors import InfeasibleError, InputError, Problem
from legoray.model.inputs import Inputs
from legoray.model.recommender import Recommender
from legoray.train.batches import (
    Collator,
    MicroBatch,
    Samples,
    ahead,
    balanced,
    draw_samples,
    share,
)
from legoray.train.job import Runtime
from legoray.train.losses import loss_of, summed_loss
from legoray.train.memory import out_of_memory, release
from legoray.train.optimizer import Optimizer
from legoray.train.parallel import Gradients
from legoray.train.scoring import Worker

CHECK_EVERY = 50  # steps between two looks at whether the loss is finite


@dataclass(frozen=True)
class Sizes:
    """What an epoch came to."""

    loss: float  # mean over the samples
    samples: int
    dropped: int  # clicks without a non-click in their impression
    start_seconds: float  # from the making of the runner to its first step


@dataclass(frozen=True)
class Planned:
    """One step: rows `start:stop` of the epoch's samples, and this worker's share of them."""

    start: int
    stop: int
    parts: list[MicroBatch]


class EpochRunner:
    """Runs the epochs of one training on one of its workers."""

    def __init__(
        self,
        *,
        recommender: Recommender,
        inputs: Inputs,
        optimizer: Optimizer,
        gradients: Gradients,
        runtime: Runtime,
        config: TrialConfig,
        accumulate: int,
        began: float,
    ) -> None:
        self.accumulate = accumulate
        self._recommender, self._inputs = recommender, inputs
        self._optimizer, self._gradients = optimizer, gradients
        self._runtime, self._config = runtime, config.train
        self._seed, self._began = config.seed, began
        self._loss = loss_of(config.train)
        self._autocast = Worker(device=runtime.device, precision=config.train.precision).autocast
        forward = recommender.scores_and_penalty
        self._forward = torch.compile(forward, dynamic=True) if config.train.compile else forward
        self._start_seconds = 0.0

    def run(self, epoch: int) -> Sizes:
        """Train one epoch (from 1).

        Raises:
            InputError: the train split has nothing to learn from.
            InfeasibleError: the loss is not finite, or memory does not suffice.
        """
        torch.manual_seed(epoch_seed(self._seed, epoch, self._runtime.rank))
        samples = self._samples(epoch)
        size = self._config.batch_size
        losses = self.steps(samples, epoch)
        self._optimizer.settle()
        sizes = torch.full_like(losses, size)
        sizes[-1] = len(samples) - size * (len(losses) - 1)
        mean = float((losses.double() * sizes).sum() / len(samples))
        return Sizes(mean, len(samples), samples.dropped, self._start_seconds)

    def steps(
        self, samples: Samples, epoch: int, first: int = 0, count: int | None = None
    ) -> Tensor:
        """Do `count` steps of an epoch, all of them by default, from the one of number `first` on.

        Returns:
            The mean loss of each step.

        Raises:
            InfeasibleError: as `run`.
        """
        size = self._config.batch_size
        stop = len(samples) if count is None else min((first + count) * size, len(samples))
        losses = torch.zeros(-(-(stop - first * size) // size), device=self._runtime.device)
        self._recommender.train()
        with contextlib.closing(self._plan(samples, first * size, stop)) as plan:
            for step, planned in enumerate(plan):
                self._start_seconds = self._start_seconds or time.perf_counter() - self._began
                self._step(planned, samples, epoch, step)
                losses[step] = self._gradients.loss
                if step % CHECK_EVERY == CHECK_EVERY - 1:
                    check_finite(losses[: step + 1], epoch)
        check_finite(losses, epoch)
        return losses

    def _samples(self, epoch: int) -> Samples:
        corpus = self._runtime.corpus
        split = corpus.splits["train"]
        samples = draw_samples(
            split,
            task=self._config.task,
            negatives=self._config.negatives,
            seed=self._seed,
            epoch=epoch,
        )
        if not len(samples):
            message = "the train split has no impression with both a click and a non-click"
            raise InputError(Problem(f"data set {corpus.name}", message))
        read = np.minimum(split.history_end[samples.impression], self._config.max_history)
        size, world = self._config.batch_size, self._runtime.world
        return balanced(samples, read.astype(np.int64), size=size, world=world)

    def _plan(self, samples: Samples, start: int, stop: int) -> Generator[Planned, None, None]:
        """The steps, made by a thread ahead of their use where a GPU would wait for them."""
        steps = self._planned(samples, self._collator(), start, stop)
        return ahead(steps) if self._runtime.device.type == "cuda" else steps

    def _planned(
        self, samples: Samples, collate: Collator, first: int, end: int
    ) -> Generator[Planned, None, None]:
        size = self._config.batch_size
        for start in range(first, end, size):
            stop = min(start + size, end)
            mine = share(start, stop, self._runtime.rank, self._runtime.world)
            parts = collate.parts(samples, *mine, self.accumulate)
            yield Planned(start, stop, [part.to(self._runtime.device) for part in parts])

    def _collator(self) -> Collator:
        corpus = self._runtime.corpus
        return Collator(corpus, corpus.splits["train"], self._inputs, self._config.max_history)

    def _step(self, planned: Planned, samples: Samples, epoch: int, step: int) -> None:
        """One step of the optimizer; where memory runs out, in more and smaller parts."""
        start, stop, parts = planned.start, planned.stop, planned.parts
        mine = share(start, stop, self._runtime.rank, self._runtime.world)
        while True:
            if len(parts) < min(self.accumulate, mine[1] - mine[0]):
                again = self._collator().parts(samples, *mine, self.accumulate)
                parts = [part.to(self._runtime.device) for part in again]
            self._gradients.clear()
            failed = self._backward(parts, stop - start)
            if not self._gradients.sum_over_workers(failed=failed):
                break
            parts = []
            self._smaller_parts(stop - start, epoch, step)
        if self._config.clip_norm is not None:
            self._gradients.clip(self._config.clip_norm)
        self._optimizer.step()

    def _backward(self, parts: list[MicroBatch], samples: int) -> bool:
        """Add this worker's share of the batch's mean loss; whether memory ran out."""
        try:
            for part in parts:
                loss = self._part_loss(part) / samples
                loss.backward()
                self._gradients.loss += loss.detach()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return True
        return False

    def _part_loss(self, part: MicroBatch) -> Tensor:
        with self._autocast():
            scores, penalty = self._forward(part.batch)
        total = summed_loss(scores, part.batch.labels, self._loss)
        if penalty is not None:
            total = total + penalty.float().sum()
        return total if part.count else total * 0

    def _smaller_parts(self, samples: int, epoch: int, step: int) -> None:
        largest = -(-samples // self._runtime.world)
        if self.accumulate >= largest:
            raise InfeasibleError(
                f"out of memory with one sample at a time (epoch {epoch}, step {step + 1})"
            )
        self.accumulate *= 2
        release(self._runtime.device)


def epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """The seed of dropout and the like in one epoch of one worker."""
    return int(np.random.SeedSequence([seed % 2**64, epoch, rank]).generate_state(1)[0])


def check_finite(losses: Tensor, epoch: int) -> None:
    """Look at the losses of an epoch so far.

    Raises:
        InfeasibleError: one of them is NaN or infinite; the message names the first.
    """
    bad = torch.nonzero(~torch.isfinite(losses)).flatten()
    if len(bad):
        step = int(bad[0])
        raise InfeasibleError(
            f"the loss is {float(losses[step])} in epoch {epoch}, step {step + 1}"
        )
