"""Warm slots: TorchTrainer worker groups that serve one trial after another.

A TorchTrainer of its own costs a trial ten seconds and eight processes; a slot costs that once. The
worker's loop takes jobs from the mailbox and calls the train function for each, until the slot is
closed. What a job needs (corpus, tokens, hidden states) stays open in the worker between jobs.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import socket
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from legoray.config import Strict
from legoray.errors import DamagedError, InfeasibleError, InputError
from legoray.search.carried import carried
from legoray.search.mailbox import Message
from legoray.train.job import Job, Left, Outcome, Report, Runtime, Stopped
from legoray.train.parallel import FirstFailed

POLL = 5.0  # seconds a worker waits for a job before it looks again
LAST_WORD = 30.0  # seconds for which an outcome is offered that nobody knows to be waited for
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
DISK_WORDS = (
    "No space left on device",
    "Disk quota exceeded",
    "code: 28",
    "code: 122",
    " requested and ",  # numpy wrote less than it was given
)
PEER_WORDS = ("gloo", "Connection closed by peer", "Connection reset by peer")
TrainFunction = Callable[[Job, Runtime, Report], Outcome]


class SlotSettings(Strict):
    """What all slots of a sweep have in common; plain data, sent to every node."""

    trainer: str = "warm"  # warm | per_trial | local
    workers: int = 1
    cpus_per_worker: int = 1
    gpus_per_worker: float = 0.0
    storage: str = ""  # absolute folder where Ray keeps its own notes
    train_fn: str = "legoray.train.loop:train"


@dataclass(frozen=True)
class Shared:
    """What a slot is given: its settings, the mailbox's handle and the corpus in shared memory.

    `corpus` is an ObjectRef, in a list so that passing it on does not fetch it.
    """

    settings: SlotSettings
    mailbox: Any
    corpus: list[Any]


def train_function(path: str) -> TrainFunction:
    """The function behind `package.module:name`."""
    module, _, name = path.partition(":")
    return carried(getattr(importlib.import_module(module), name))


def node_name() -> str:
    """This machine and the Ray node on it, as records show it."""
    import ray

    return f"{socket.gethostname()}/{ray.get_runtime_context().get_node_id()[:8]}"


class WarmSlot:
    """One worker group, started in a thread of the process that owns it."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self.name = f"slot-{uuid.uuid4().hex[:8]}"
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._fit, name=self.name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def close(self, wait: float = 5.0) -> None:
        """Let the workers end; what still runs is stopped at its next report."""
        import ray

        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(self._shared.mailbox.close.remote(self.name), timeout=wait)
        self._thread.join(wait)

    def _fit(self) -> None:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        settings = self._shared.settings
        resources: dict[str, float] = {"CPU": settings.cpus_per_worker}
        if settings.gpus_per_worker:
            resources["GPU"] = settings.gpus_per_worker
        trainer = TorchTrainer(
            serve,
            train_loop_config={"shared": self._shared, "slot": self.name},
            scaling_config=ScalingConfig(
                num_workers=settings.workers,
                use_gpu=settings.gpus_per_worker > 0,
                resources_per_worker=resources,
            ),
            run_config=RunConfig(
                name=self.name,
                storage_path=settings.storage,
                failure_config=FailureConfig(max_failures=-1),
            ),
        )
        try:
            trainer.fit()
        except BaseException as error:
            self.error = error


def serve(config: dict[str, Any]) -> None:
    """The loop of one TorchTrainer worker: jobs of its slot, one after another."""
    import ray

    from legoray.train.worker import worker_runtime

    shared: Shared = config["shared"]
    runtime = worker_runtime(ray.get(shared.corpus[0]))
    while True:
        order = _order(shared.mailbox, config["slot"], runtime)
        if order is None:
            continue
        if order.get("closed"):
            return
        desk = Desk(shared.mailbox, config["slot"], order["ticket"], runtime.rank)
        run_ticket(train_function(shared.settings.train_fn), order["job"], runtime, desk)


def _order(mailbox: Any, slot: str, runtime: Runtime) -> Message | None:
    """Rank 0 asks for a job; every rank gets the same answer."""
    import ray

    order: list[Message | None] = [None]
    if runtime.rank == 0:
        order[0] = ray.get(mailbox.take.remote(slot, POLL))
    if runtime.world > 1:
        import torch.distributed

        torch.distributed.broadcast_object_list(order, src=0)
    return order[0]


@dataclass(frozen=True)
class Desk:
    """Where the reports of one ticket go."""

    mailbox: Any
    slot: str
    ticket: str
    rank: int = 0
    began: float = field(default_factory=time.time)

    def report(self, metrics: dict[str, float]) -> None:
        """Hand over an epoch's metrics (rank 0 alone).

        Raises:
            Stopped: the trial has been stopped.
            Left: it goes on elsewhere or later.
        """
        import ray

        if self.rank != 0:
            return
        message = {"status": "running", "metrics": metrics, **self._where()}
        verdict = ray.get(self.mailbox.report.remote(self.slot, self.ticket, message))
        if verdict != "go":
            raise Stopped if verdict == "stop" else Left

    def _where(self) -> Message:
        return {"node": node_name(), "began": self.began}

    def finish(self, message: Message) -> None:
        """Hand over the last message; a mailbox that has lost its memory is told again."""
        import ray

        message = {**message, **self._where()}
        end = time.monotonic() + LAST_WORD
        while not ray.get(self.mailbox.finish.remote(self.slot, self.ticket, message)):
            if time.monotonic() > end:
                return
            time.sleep(0.5)

    def met(self, world: int) -> bool:
        """Whether all workers have come to the same end."""
        import ray

        return bool(ray.get(self.mailbox.meet.remote(self.slot, self.ticket, self.rank, world)))


def run_ticket(train: TrainFunction, job: str, runtime: Runtime, desk: Desk) -> None:
    """Train one job and hand over what came of it.

    With several ranks a failure of one leaves the others waiting in a collective call: the whole
    group is given up (the raise), and TorchTrainer builds a new one; unless all of them found the
    job infeasible. A rank that only lost another one says nothing of the training: the new group
    takes the same ticket again.
    """
    failure: BaseException | None = None
    message: Message = {}
    with _clean_memory():
        try:
            outcome = train(Job.model_validate_json(job), runtime, desk.report)
            message = {"status": "completed", "outcome": outcome.model_dump()}
        except Exception as error:
            failure = error
            message = failure_message(error)
    together = runtime.world > 1
    if together and failure is not None and speaks_of_others(failure):
        raise failure
    stays = not together or failure is None
    if not stays and isinstance(failure, InfeasibleError):
        stays = desk.met(runtime.world)
    if not isinstance(failure, Left) and (desk.rank == 0 or failure is not None):
        desk.finish(message)
    if failure is not None and not stays:
        raise failure


def failure_message(error: Exception) -> Message:
    """What a trial that ended with an exception says of itself."""
    reason = f"{type(error).__name__}: {error}".strip()
    if isinstance(error, InfeasibleError):
        return {"status": "infeasible", "reason": str(error)}
    if disk_trouble(error):
        return {"status": "disk", "reason": str(error)}
    if isinstance(error, DamagedError):
        return {"status": "damaged", "reason": str(error)}
    if isinstance(error, InputError):
        return {"status": "failed", "reason": str(error)}
    return {"status": "failed", "reason": reason, "trace": traceback.format_exc()}


def speaks_of_others(error: BaseException) -> bool:
    """Whether a rank failed because another one did, which tells of it or is gone."""
    return isinstance(error, FirstFailed) or lost_a_peer(error)


def lost_a_peer(error: BaseException) -> bool:
    """Whether a collective call failed because another rank is gone."""
    import torch.distributed

    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in PEER_WORDS)


def disk_trouble(error: BaseException) -> bool:
    """Whether an exception says that the disk is full or must not be written."""
    number = getattr(error, "errno", None)
    return number in DISK or any(words in str(error) for words in DISK_WORDS)


@contextlib.contextmanager
def _clean_memory() -> Iterator[None]:
    """Give a job's memory back before the next one starts."""
    import torch

    yield
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
