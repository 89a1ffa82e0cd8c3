"""What the parts have in common: a model ready to train, steps of it, and processor seconds."""

from __future__ import annotations

import copy
import dataclasses
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from legoray.config import TrialConfig
from legoray.data.corpus import Corpus
from legoray.model.base import Batch
from legoray.model.inputs import Inputs
from legoray.model.recommender import Recommender
from legoray.train.batches import Collator, Samples, draw_samples
from legoray.train.job import Runtime
from legoray.train.loop import open_model
from legoray.train.losses import loss_of, summed_loss
from legoray.train.optimizer import build_optimizer, check_trained
from legoray.train.parallel import Gradients
from legoray.train.steps import EpochRunner
from of_training.world import Size, job_of, made_corpus, write_tables


@dataclass(frozen=True)
class Data:
    """A corpus in memory and its tables on disk."""

    size: Size
    corpus: Corpus
    tables: Path


@functools.cache
def data_of(folder: Path, size: Size) -> Data:
    """The corpus of some size; its tables are written below the folder once."""
    corpus = made_corpus(size)
    tables = folder / str(abs(hash(size))) / "tables"
    if not tables.exists():
        write_tables(tables, corpus, size)
    return Data(size, corpus, tables)


@dataclass(frozen=True)
class Opened:
    """A model with random weights and all that its training needs."""

    config: TrialConfig
    data: Data
    model: Recommender
    inputs: Inputs
    samples: Samples  # of epoch 1

    @functools.cached_property
    def collate(self) -> Collator:
        corpus = self.data.corpus
        most = self.config.train.max_history
        return Collator(corpus, corpus.splits["train"], self.inputs, most)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Of the histories that the samples read: `[S]`."""
        end = self.data.corpus.splits["train"].history_end[self.samples.impression]
        return np.minimum(end, self.config.train.max_history).astype(np.int64)

    def batch(self, number: int, size: int | None = None) -> Batch:
        """The first `size` samples of a batch, all of them by default."""
        start = number * self.config.train.batch_size
        chosen = slice(start, start + (size or self.config.train.batch_size))
        return self.collate(self.samples.impression[chosen], self.samples.rows[chosen])

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of a batch."""
        return summed_loss(scores, labels, loss_of(self.config.train)) / len(labels)

    def twin(self) -> Opened:
        """The same with a model of its own, for a loop that is not ours; before any `runner`."""
        return dataclasses.replace(self, model=copy.deepcopy(self.model))

    def runner(self, *, rank: int = 0, world: int = 1) -> EpochRunner:
        """The epochs as training runs them."""
        parameters = list(check_trained(self.model).values())
        optimizer = build_optimizer(self.model, self.config.train)
        return EpochRunner(
            recommender=self.model,
            inputs=self.inputs,
            optimizer=optimizer,
            gradients=Gradients(parameters, world, optimizer.sparse),
            runtime=Runtime(self.data.corpus, rank=rank, world=world),
            config=self.config,
            accumulate=1,
            began=time.perf_counter(),
        )


def opened(data: Data, config: TrialConfig) -> Opened:
    """A new model on the data."""
    model = open_model(job_of(config, data.tables, data.tables.parent), Runtime(data.corpus))
    samples = draw_samples(
        data.corpus.splits["train"],
        task=config.train.task,
        negatives=config.train.negatives,
        seed=config.seed,
        epoch=1,
    )
    return Opened(config, data, model.recommender, model.inputs, samples)


def plain_step(own: Opened, optimizer: torch.optim.Optimizer, batches: list[Batch]) -> None:
    """The steps of a plain loop over tensors that are ready: nothing but what torch has to do."""
    own.model.train()
    for batch in batches:
        optimizer.zero_grad(set_to_none=True)
        own.loss(own.model(batch), batch.labels).backward()
        nn.utils.clip_grad_norm_(own.model.parameters(), own.config.train.clip_norm or 1e9)
        optimizer.step()


def plain_optimizer(model: nn.Module, config: TrialConfig) -> torch.optim.Optimizer:
    """Adam as research code has it, in torch's fastest form."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.Adam(trained, lr=config.train.learning_rate, fused=True)


def seconds(work: Callable[[], Any]) -> float:
    """Processor seconds of this thread: whatever else runs does not count."""
    began = time.thread_time()
    work()
    return time.thread_time() - began


def fastest(rounds: int, *works: Callable[[], Any]) -> list[float]:
    """The least processor seconds of each of several works, which take turns."""
    taken = [[seconds(work) for work in works] for _ in range(rounds)]
    return [float(np.min(column)) for column in np.transpose(taken)]


def table(title: str, head: list[str], rows: list[list[str]]) -> None:
    """Print a table in Markdown."""
    print(f"\n{title}\n", flush=True)
    marks = [":--" if not index else "--:" for index in range(len(head))]
    for row in (head, marks, *rows):
        print(f"| {' | '.join(row)} |", flush=True)
