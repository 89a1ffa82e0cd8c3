"""A training without any model, whose results follow from the configuration: for whole searches.

The learning rate decides the metric, the negatives how it ends: 2 is out of memory, 3 a defect, and
4 leaves the latency unmeasured.
"""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path

import ray

from legoray.errors import InfeasibleError
from legoray.train.job import Job, Outcome, Report, Runtime, Stopped

SPACE = """\
name: madeup
data: data.yaml
model:
  hidden_size: {choice: [8, 16, 32]}
  content: {name: id}
  behavior: {name: additive}
  predictor: {name: dot}
train:
  epochs: 4
  negatives: {choice: [1, 2, 3, 4]}
  learning_rate: {log: [1e-4, 1e-1]}
search: {}
"""


def value(rate: float, epoch: int) -> float:
    return 0.8 - 0.1 * abs(math.log10(rate) + 2.0) + 0.01 * epoch


def train(job: Job, runtime: Runtime, report: Report) -> Outcome:
    config, folder = job.config, Path(job.folder)
    epochs: list[dict[str, float]] = []
    for epoch in range(1, config.train.epochs + 1):
        time.sleep(float(os.environ.get("MADEUP_SLEEP", 0)))
        if epoch == 2 and config.train.negatives == 2:
            raise InfeasibleError("out of memory")
        if epoch == 2 and config.train.negatives == 3:
            raise ZeroDivisionError("a defect")
        auc = value(config.train.learning_rate, epoch)
        epochs.append({"epoch": epoch, "loss": 1.0 / epoch, "auc": auc, "train_seconds": 0.01})
        _note(folder)
        try:
            report(epochs[-1])
        except Stopped:
            return Outcome(epochs=epochs, best=epochs[-1], test={}, costs={}, stopped=True)
    size = float(config.model.hidden_size)
    costs = {"seconds": 1.0, "parameters": 100 * size, "latency_ms": size / 10}
    if config.train.negatives == 4:
        del costs["latency_ms"]
    test = {"auc": epochs[-1]["auc"]} if job.test else {}
    return Outcome(epochs=epochs, best=epochs[-1], test=test, costs=costs)


def _note(folder: Path) -> None:
    """One line per epoch: when, in which process, on which GPUs of Ray's."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "events.jsonl", "a") as file:
        seen = {"at": time.time(), "pid": os.getpid(), "gpus": ray.get_gpu_ids()}
        file.write(json.dumps(seen) + "\n")
