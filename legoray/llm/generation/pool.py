"""Where a local model answers: in this process, or in an actor per GPU or group of CPUs by Ray.

One model uses all cores of a machine, so Ray pays where there are several machines or GPUs: it is
used on a running cluster, and where this machine has several GPUs. `LEGORAY_RAY_DATA=always|never`
decides otherwise, as for preparation. Both ways answer the same batches by the same code.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from legoray.data.engine import ray_data, ray_wish
from legoray.errors import InputError, Problem
from legoray.llm.generation.local import Answer, LocalModel, Precision, Settings
from legoray.llm.generation.questions import Question

Numbered = tuple[int, Answer]
CPUS = 4  # of an actor without a GPU: decoding waits for memory, more threads do not help
_AHEAD = 2  # batches given to an actor at once, so that it never waits


@dataclass(frozen=True)
class LocalConfig:
    """A local model and how it writes."""

    model: str
    precision: Precision
    settings: Settings
    batch: int


def by_ray(batches: int) -> bool:
    """Whether Ray answers so many batches."""
    wish = ray_wish()
    if wish in ("always", "never"):
        return wish == "always"
    ray = sys.modules.get("ray")
    running = bool(os.environ.get("RAY_ADDRESS")) or (ray is not None and ray.is_initialized())
    return batches > 1 and (running or _gpus() > 1)


def answers(
    config: LocalConfig, questions: Sequence[Question]
) -> Generator[list[Numbered], None, None]:
    """Batches of answers with their questions' numbers, as they come.

    Raises:
        InputError: the model cannot be loaded, or cannot answer a question.
    """
    batches = batches_of(questions, config.batch)
    if by_ray(len(batches)):
        yield from _by_ray(config, questions, batches)
        return
    model = LocalModel(config.model, config.precision, config.settings)
    for rows in batches:
        found = model.answer([questions[row] for row in rows])
        yield list(zip(rows.tolist(), found, strict=True))


def batches_of(questions: Sequence[Question], size: int) -> list[NDArray[np.int64]]:
    """Rows in batches of alike lengths, longest first: running out of memory shows at once."""
    lengths = np.array([len(one.system) + len(one.user) for one in questions], np.int64)
    order = np.argsort(-lengths, kind="stable")
    return np.split(order, range(size, len(order), size)) if len(order) else []


def _by_ray(
    config: LocalConfig, questions: Sequence[Question], batches: list[NDArray[np.int64]]
) -> Generator[list[Numbered], None, None]:
    """Each batch is a block; a block's answers come as soon as they are there."""
    from ray.data import ActorPoolStrategy

    data = ray_data()
    actors, resources = _actors(len(batches))
    asked = data.from_arrow([_table(questions, rows) for rows in batches])
    asked.context.execution_options.preserve_order = False
    answered = asked.map_batches(
        _Actor,
        fn_constructor_args=(config,),
        batch_size=config.batch,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=_AHEAD),
        **resources,
    )
    for found in answered.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        rows = found.to_pylist()
        if rows[0]["mistakes"]:
            raise InputError(*[Problem(*one) for one in rows[0]["mistakes"]])
        yield [
            (row["row"], Answer(row["text"], row["cut"], too_long=row["too_long"])) for row in rows
        ]


class _Actor:
    """Holds the model, once per process. A user's mistake is an answer: Ray would bury an error."""

    def __init__(self, config: LocalConfig) -> None:
        import torch

        if not torch.cuda.is_available():
            torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", CPUS)))
        self._config = config

    @functools.cached_property
    def _model(self) -> LocalModel:
        config = self._config
        return LocalModel(config.model, config.precision, config.settings)

    def __call__(self, batch: pa.Table) -> pa.Table:
        asked = batch.to_pylist()
        mistakes: list[list[str]] = []
        try:
            questions = [Question(row["key"], row["system"], row["user"]) for row in asked]
            found = self._model.answer(questions)
        except InputError as error:
            found = [Answer("")] * len(asked)
            mistakes = [[one.where, one.message, one.hint] for one in error.problems]
        return pa.table(
            {
                "row": batch["row"],
                "text": pa.array([answer.text for answer in found], pa.string()),
                "cut": pa.array([answer.cut for answer in found], pa.bool_()),
                "too_long": pa.array([answer.too_long for answer in found], pa.string()),
                "mistakes": pa.array([mistakes] * len(asked), pa.list_(pa.list_(pa.string()))),
            }
        )


def _table(questions: Sequence[Question], rows: NDArray[np.int64]) -> pa.Table:
    chosen = [questions[row] for row in rows]
    texts = {name: [getattr(one, name) for one in chosen] for name in ("key", "system", "user")}
    return pa.table({"row": rows, **texts})


def _actors(batches: int) -> tuple[int, dict[str, Any]]:
    """How many actors the cluster holds, and what each takes: a GPU, or some CPUs of a node."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if gpus:
        return min(gpus, batches), {"num_gpus": 1}
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    each = max(min(CPUS, max(cpus, default=1)), 1)
    places = sum(count // each for count in cpus)
    return max(min(places, batches), 1), {"num_cpus": each}


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
