"""A job: one training as plain data, and the ways in which it can be run.

`train(job, runtime, report)` (`legoray.train.loop`) is the one entry: a warm slot, a TorchTrainer
of its own, and a plain call all use it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from legoray.config import Strict, TrialConfig
from legoray.data.corpus import Corpus

Report = Callable[[dict[str, float]], None]


class Job(Strict):
    """What to train and where its files go. Paths are absolute; workers change their folder."""

    config: TrialConfig
    tables: str  # folder of the prepared tables
    home: str  # folder of shared caches (hidden states)
    folder: str  # <folder>/last: checkpoint, <folder>/best: model folder of the best epoch
    test: bool = False  # measure the best epoch on the test split at the end
    reads: dict[str, str] | None = None  # attributes and fingerprints that it must find, if told
    keep_last: bool = False  # the checkpoint stays until the outcome is on record


class Stopped(Exception):
    """Raised inside `report` when the scheduler ended the trial: the loop cleans up and returns."""


class Left(Exception):
    """Raised inside `report` when the training goes on elsewhere or later: its files are kept."""


@dataclass(frozen=True)
class Runtime:
    """Where a job runs: which of how many workers, on what device, with which corpus in memory."""

    corpus: Corpus
    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    threads: int | None = None
    refresh: Callable[[], object] = lambda: None  # fetch what the first worker wrote, if far away


class Outcome(Strict):
    """What came of a job. `best` and `epochs` hold the validation metrics, `test` the test's."""

    epochs: list[dict[str, float]]
    best: dict[str, float]
    test: dict[str, float]
    costs: dict[str, float]  # seconds, train_seconds, evaluate_seconds, parameters, trainable, ...
    stopped: bool = False
    reason: str = ""  # why it ended before its last epoch: early stopping or the scheduler
