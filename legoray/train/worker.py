"""Training inside a TorchTrainer worker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from legoray.data.corpus import Corpus
from legoray.train.cache import shared_corpus
from legoray.train.job import Job, Report, Runtime
from legoray.train.loop import train


def worker_runtime(corpus: Corpus) -> Runtime:
    """The runtime of this TorchTrainer worker: its rank, its device, as many threads as cores."""
    import ray
    import ray.train
    import ray.train.torch

    context = ray.train.get_context()
    cores = ray.get_runtime_context().get_assigned_resources().get("CPU", 1)
    return Runtime(
        corpus=corpus,
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        device=ray.train.torch.get_device(),
        threads=max(1, int(cores)),
    )


def torch_trainer_loop(config: dict[str, Any]) -> dict[str, Any]:
    """The train function of a TorchTrainer that trains one job; its result is the `Outcome`.

    `config` holds `job` (a `Job` as plain data or JSON), and optionally `corpus` (an ObjectRef in a
    list; read from the job's tables where it is not given) and `report` (a picklable function that
    the first worker calls after every epoch).
    """
    import ray

    content = config["job"]
    job = Job.model_validate_json(content) if isinstance(content, str) else Job(**content)
    given = config.get("corpus")
    corpus = ray.get(given[0]) if given else shared_corpus(Path(job.tables))
    report: Report | Callable[[dict[str, float]], Any] = config.get("report") or _silent
    return train(job, worker_runtime(corpus), report).model_dump()


def _silent(metrics: dict[str, float]) -> None:
    """Nobody listens."""
