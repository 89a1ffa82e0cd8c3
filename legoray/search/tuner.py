"""One Ray Tune run over a sweep: proposals, schedulers, slots and records put together."""

from __future__ import annotations

import getpass
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from legoray.errors import InputError, Problem
from legoray.records import TrialRecord, unwritten
from legoray.search.finals import Final
from legoray.search.gpus import workers_on_gpus
from legoray.search.lostgroups import LostGroups, give_back
from legoray.search.mailbox import Mailbox
from legoray.search.phases import Budget, Goal, Phases
from legoray.search.room import Room
from legoray.search.scheduler import SearchScheduler, make_scheduler
from legoray.search.scribe import Halt, Scribe, Watcher
from legoray.search.shortage import memory_problem
from legoray.search.slots import Shared, SlotSettings, disk_trouble
from legoray.search.sweep import Sweep
from legoray.search.trainers import TrialRunner
from legoray.spaceconfig import SearchConfig
from legoray.storage.address import address_of
from legoray.zoo.earlier import Earlier

LOSSES = 5  # times that a trial may lose its Tune actor (with its node) before it counts as failed
UNLIMITED = 1_000_000  # trials at once, as far as Tune is concerned
BYTES = 1024.0  # of memory that a trial reserves: something, since the CPUs are its workers'


@dataclass(frozen=True)
class Plan:
    """All that a run of trials needs to know."""

    search: SearchConfig
    budget: Budget
    goal: Goal
    epochs: int  # the longest training that the space allows
    home: str
    finals: Callable[[], list[Final]]
    ended: str = ""  # why there is nothing left to search, where that is so
    train_fn: str = SlotSettings().train_fn
    watchers: list[Watcher] = field(default_factory=list)
    earlier: Earlier | None = None  # results that are taken instead of training the same again


def run_trials(sweep: Sweep, study: Searcher, corpus: Any, plan: Plan, halt: Halt) -> str:
    """Run the search's trials and the final ones; returns why the search ended.

    Args:
        sweep: the open sweep; its records are kept up to date.
        study: proposes configurations.
        corpus: ObjectRef of the corpus.
        plan: see there.
        halt: ends the run early.

    Raises:
        InputError: the cluster is too small for one trial, or records cannot be written.
    """
    _quiet()
    room = Room(partial(slots_that_fit, plan.search))
    settings = slot_settings(plan, str(_notes_of_ray(sweep)))
    mailbox = open_mailbox()
    scheduler = _scheduler(sweep, plan)

    def adopted(record: TrialRecord) -> None:
        if record.phase == "search":
            scheduler.replay(record)
        for watcher in plan.watchers:
            watcher(record)

    phases = Phases(
        sweep,
        study,
        goal=plan.goal,
        budget=plan.budget,
        home=plan.home,
        finals=plan.finals,
        ended=plan.ended,
        stopping=halt.stopping,
        earlier=plan.earlier,
        adopted=adopted,
        room=room,
    )
    shared = Shared(settings, mailbox, [corpus])
    try:
        tune.run(
            tune.with_parameters(TrialRunner, shared=shared),
            name="tune",
            storage_path=settings.storage,
            config={},
            num_samples=-1,
            search_alg=phases,
            scheduler=scheduler,
            resources_per_trial=trial_resources(settings),
            max_concurrent_trials=UNLIMITED,  # `room` decides
            reuse_actors=plan.search.trainer != "per_trial",
            max_failures=LOSSES,
            raise_on_failed_trial=False,
            stop=halt,
            callbacks=[
                Scribe(sweep, goal=plan.goal, halt=halt, watchers=plan.watchers),
                LostGroups(),
            ],
            verbose=0,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        )
    except OSError as error:  # of Optuna's journal or Ray's notes; the records tell of themselves
        if not disk_trouble(error):
            raise
        raise InputError(unwritten(sweep.folder, error)) from None
    except Exception as error:
        problem = memory_problem(error)
        if problem is None:
            raise
        halt.give_up("memory", InputError(problem))
    finally:
        ray.kill(mailbox)
        give_back()
        phases.close()
    return phases.why


def _notes_of_ray(sweep: Sweep) -> Path:
    """Where Ray keeps its own notes, which nobody reads; each node, where the sweep is far away."""
    if address_of(sweep.folder) is None:
        return sweep.folder / "ray"
    return Path(tempfile.gettempdir()) / f"legoray-{getpass.getuser()}" / "ray" / sweep.info.id


def _scheduler(sweep: Sweep, plan: Plan) -> SearchScheduler:
    return make_scheduler(plan.search.scheduler, plan.epochs, plan.goal, sweep.of("search"))


def _name(trial: Any) -> str:
    return f"trial-{trial.config['number']}-{trial.trial_id}"


def slot_settings(plan: Plan, storage: str) -> SlotSettings:
    """The slots' settings of a plan."""
    search = plan.search
    return SlotSettings(
        trainer=search.trainer,
        workers=search.workers,
        cpus_per_worker=search.cpus_per_worker,
        gpus_per_worker=search.gpus_per_worker,
        storage=storage,
        train_fn=plan.train_fn,
    )


def trial_resources(settings: SlotSettings) -> dict[str, float]:
    """What a Tune actor holds: next to nothing, unless it trains itself."""
    if settings.trainer != "local":
        return {"memory": BYTES}
    gpu = {"gpu": settings.gpus_per_worker} if settings.gpus_per_worker else {}
    return {"cpu": float(settings.cpus_per_worker), **gpu}


def slots_that_fit(search: SearchConfig) -> int:
    """How many trials run at once: as many as fit into the cluster, or fewer if so configured.

    Raises:
        InputError: not even one fits.
    """
    nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
    workers = sum(_workers_on(node, search) for node in nodes)
    fitting = workers // search.workers
    if not fitting:
        cpus = sum(n.get("CPU", 0) for n in nodes)
        gpus = sum(n.get("GPU", 0) for n in nodes)
        need = f"{search.workers} worker(s) of {search.cpus_per_worker} CPU(s)"
        if search.gpus_per_worker:
            need += f" and {search.gpus_per_worker:g} GPU(s)"
        message = f"a trial needs {need}, the cluster has {cpus:g} CPU(s) and {gpus:g} GPU(s)"
        raise InputError(
            Problem("search", message, "lower workers, cpus_per_worker or gpus_per_worker")
        )
    return min(fitting, search.concurrent or fitting)


def _workers_on(node: dict[str, float], search: SearchConfig) -> int:
    fitting = node.get("CPU", 0) // search.cpus_per_worker
    if search.gpus_per_worker:
        fitting = min(fitting, workers_on_gpus(node.get("GPU", 0), search.gpus_per_worker))
    return int(fitting)


def open_mailbox() -> Any:
    """The mailbox actor, on the driver's node: with that node the sweep ends anyway.

    If it is killed, it comes back empty, and what was asked of it is asked again.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    again = {"max_restarts": -1, "max_task_retries": -1}
    return ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=here, **again).remote()


def _quiet() -> None:
    """No word of Ray's own on the screen, and no demand that every result has a metric."""
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    for name in ("ray", "ray.tune", "ray.train", "ray.data", "optuna"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
