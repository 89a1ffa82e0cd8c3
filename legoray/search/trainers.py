"""Where a trial's training runs: in a warm slot, in a TorchTrainer of its own, or right here.

`TrialRunner` is what Ray Tune sees. Its `step` returns one message of the training at a time: an
epoch's metrics (`status: running`) or, as the last one, what came of it.
"""

from __future__ import annotations

import json
import math
import queue
import threading
import time
import uuid
from typing import Any, Protocol

from ray import tune

from legoray.search.mailbox import Message, Verdict
from legoray.search.slots import (
    Shared,
    WarmSlot,
    failure_message,
    node_name,
    train_function,
)
from legoray.train.job import Job, Left, Outcome, Runtime, Stopped

WAIT = 2.0  # seconds between two looks at whether the slot is alive


class Source(Protocol):
    """Something that trains jobs, one at a time, and tells of it in messages."""

    def start(self, key: str, job: str) -> None: ...

    def next(self) -> Message: ...

    def cancel(self, verdict: Verdict = "stop") -> None: ...

    def close(self) -> None: ...


class SlotSource:
    """Trains in a TorchTrainer worker group, which is kept for the next job if `keep`."""

    def __init__(self, shared: Shared, *, keep: bool) -> None:
        self._shared, self._keep = shared, keep
        self._slot: WarmSlot | None = None
        self._ticket = ""
        self._order = ("", "")  # key and job of the ticket

    def start(self, key: str, job: str) -> None:
        if self._slot is None or not self._slot.alive:
            self._slot = WarmSlot(self._shared)
        self._ticket, self._order = uuid.uuid4().hex, (key, job)
        if not self._submit():  # it was unused for so long that it is ending
            self._slot = WarmSlot(self._shared)
            self._submit()

    def _submit(self) -> bool:
        import ray

        assert self._slot is not None
        mailbox = self._shared.mailbox
        return bool(ray.get(mailbox.submit.remote(self._slot.name, self._ticket, *self._order)))

    def next(self) -> Message:
        """The next message.

        Raises:
            RuntimeError: the worker group cannot be started or has ended; Tune tries elsewhere.
        """
        import ray

        assert self._slot is not None
        while True:
            waiting = self._shared.mailbox.next.remote(self._slot.name, self._ticket, WAIT)
            message = ray.get(waiting)
            if message is not None and message["status"] == "unknown":
                if not self._submit():
                    raise RuntimeError("the worker group is ending")
                continue
            if message is not None:
                break
            if not self._slot.alive:
                raise RuntimeError(f"the worker group has ended: {self._slot.error}")
        if message["status"] != "running":
            self._ticket = ""
            if not self._keep:
                self.close()
        return message

    def cancel(self, verdict: Verdict = "stop") -> None:
        import ray

        if self._ticket and self._slot is not None:
            mailbox = self._shared.mailbox
            ray.get(mailbox.cancel.remote(self._slot.name, self._ticket, verdict))
            self._ticket = ""

    def close(self) -> None:
        if self._slot is not None:
            self._slot.close()
            self._slot = None


class LocalSource:
    """Trains in a thread of the Tune actor itself: no TorchTrainer, one worker."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._training: _LocalTraining | None = None
        self._runtime: Runtime | None = None

    def start(self, key: str, job: str) -> None:
        self.cancel()
        if self._runtime is None:
            self._runtime = _local_runtime(self._shared)
        self._training = _LocalTraining(self._shared.settings.train_fn, job, self._runtime)

    def next(self) -> Message:
        assert self._training is not None
        return self._training.next()

    def cancel(self, verdict: Verdict = "stop") -> None:
        if self._training is not None:
            self._training.end(verdict)
            self._training = None

    def close(self) -> None:
        self.cancel("leave")


class _LocalTraining:
    """One training in a thread that waits for the verdict after every report."""

    def __init__(self, train_fn: str, job: str, runtime: Runtime) -> None:
        self._messages: queue.Queue[Message] = queue.Queue()
        self._verdicts: queue.Queue[Verdict] = queue.Queue()
        self._pending = False
        self._args = (train_fn, job, runtime)
        self._where = {"node": node_name(), "began": time.time(), "takes": 1}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def next(self) -> Message:
        if self._pending:
            self._verdicts.put("go")
        message = self._messages.get()
        self._pending = message["status"] == "running"
        return message

    def end(self, verdict: Verdict, wait: float = 30.0) -> None:
        self._verdicts.put(verdict)
        self._thread.join(wait)

    def _report(self, metrics: dict[str, float]) -> None:
        self._messages.put({"status": "running", "metrics": metrics, **self._where})
        verdict = self._verdicts.get()
        if verdict != "go":
            raise Stopped if verdict == "stop" else Left

    def _run(self) -> None:
        train_fn, job, runtime = self._args
        message: Message
        try:
            train = train_function(train_fn)
            outcome: Outcome = train(Job.model_validate_json(job), runtime, self._report)
            message = {"status": "completed", "outcome": outcome.model_dump()}
        except Exception as error:
            message = failure_message(error)
        self._messages.put({**message, **self._where})


def _local_runtime(shared: Shared) -> Runtime:
    import ray
    import torch

    torch.set_num_threads(shared.settings.cpus_per_worker)
    device = torch.device("cuda" if shared.settings.gpus_per_worker else "cpu")
    corpus = ray.get(shared.corpus[0])
    return Runtime(corpus=corpus, device=device, threads=shared.settings.cpus_per_worker)


def open_source(shared: Shared) -> Source:
    """The source that the settings name."""
    if shared.settings.trainer == "local":
        return LocalSource(shared)
    return SlotSource(shared, keep=shared.settings.trainer == "warm")


def _outcome(message: Message) -> Message:
    return message.get("outcome") or {"epochs": []}


class TrialRunner(tune.Trainable):
    """A Tune actor: runs one trial after another on its source.

    Nothing is started before the first `step`: Tune makes actors that it then throws away.
    """

    def setup(self, config: dict[str, Any], shared: Shared | None = None) -> None:
        assert shared is not None
        self._source = open_source(shared)
        self._begin(config)

    def _begin(self, config: dict[str, Any]) -> None:
        self._order = config
        self._started = False
        self._best: float | None = config["best"]
        self._epochs = int(json.loads(config["job"])["config"]["train"]["epochs"])

    def step(self) -> dict[str, Any]:
        """One message of the training as Tune's result.

        The report of the last epoch is held back and the outcome returned in its place, so that no
        scheduler stops a trial that has nothing left to do.
        """
        if not self._started:
            self._source.start(self._order["key"], self._order["job"])
            self._started = True
        message = self._source.next()
        while message["status"] == "running" and message["metrics"]["epoch"] >= self._epochs:
            message = self._source.next()
        return self._result(message)

    def _result(self, message: Message) -> dict[str, Any]:
        """What schedulers and searchers read (`epoch`, `value`: the best so far), and the rest."""
        status = message["status"]
        epochs = [message["metrics"]] if status == "running" else _outcome(message)["epochs"]
        better = max if self._order["mode"] == "max" else min
        select = self._order["select"]
        for value in (epoch.get(select, math.nan) for epoch in epochs):
            if math.isfinite(value):
                self._best = value if self._best is None else better(self._best, value)
        result = {"status": status, "message": message, "done": status != "running"}
        if epochs:
            result |= {"epoch": int(epochs[-1]["epoch"]), select: epochs[-1].get(select, math.nan)}
        if self._best is not None and status in ("running", "completed"):
            result["value"] = self._best
        return result

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial; what still runs of the last one is stopped."""
        self._source.cancel()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        """The actor ends: what still runs may go on in another, from its checkpoint."""
        self._source.cancel("leave")
        self._source.close()
