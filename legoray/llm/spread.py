"""Computing blocks on all nodes and GPUs by Ray Data: one actor per GPU, or per few CPUs.

A finished block is not in the plan of whoever starts again, so nothing here needs to be resumed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from legoray.data.built import Say
from legoray.data.engine import ray_data, ray_wish
from legoray.errors import InputError, Problem
from legoray.llm.blocks import compute_block, write_blocks
from legoray.llm.compute import Lower, NotFiniteError
from legoray.llm.load import facts, load_base, quiet
from legoray.llm.text import Encoded
from legoray.llm.units import Unit, key_of_unit
from legoray.storage.address import place, portable

if TYPE_CHECKING:
    from legoray.llm.build import Work

_THREADS = 4  # of an actor without a GPU, or all of a smaller node's
_WORTH = {"cpu": 1e13, "cuda": 1e16}  # floating-point operations: about a minute of one machine


@dataclass(frozen=True)
class Outcome:
    """How one block went."""

    job: int
    bad: tuple[int, int] | None = None  # the text, by its place in the block, and the layer
    problems: tuple[Problem, ...] = field(default=())
    node: str = ""


def use_ray(work: Work, say: Say) -> bool:
    """Whether blocks are computed by Ray Data: the one place that decides it.

    Never within a Ray task or actor, where waiting for more of them could last for ever. Otherwise
    `LEGORAY_RAY_DATA=always|never` decides. Otherwise where there are several blocks, a minute's
    work or more, and more than one process can use: several nodes of a Ray that runs (or that
    RAY_ADDRESS names), or several GPUs.
    """
    wish = ray_wish()
    if wish == "never" or _within_ray():
        return False
    if wish != "always" and not (len(work.jobs) > 1 and _worth(work) and _several()):
        return False
    pool = _pool()
    if pool is None:
        say("Ray has no CPU free: the hidden states are computed in this process")
        return False
    count = min(pool[0], len(work.jobs))
    say(f"computed by Ray Data: {count} actors, {pool[1]} CPUs and {pool[2]} GPUs each")
    return True


def run_on_ray(work: Work) -> Iterator[Outcome]:
    """Compute all blocks by actors, which write them into the shared store.

    Raises:
        InputError: Ray or its workers failed; what they finished is kept.
    """
    data = ray_data()  # before `ray` is imported: it sets what Ray reads at import
    import ray

    # what was free may be taken by now: then one actor waits for a CPU
    most, cpus, gpus = _pool() or (1, 1, 0)
    count = min(most, len(work.jobs))
    actors = ray.data.ActorPoolStrategy(min_size=1, max_size=count, initial_size=count)
    keys = [key_of_unit(unit) for unit in work.units]
    folders = tuple(portable(folder) for folder in work.folders)
    told = {"units": work.units, "folders": folders, "keys": keys, "threads": cpus}
    rows = data.from_items(_rows(work), override_num_blocks=len(work.jobs))
    with quiet():  # Ray wants other names for the last two, and has none yet
        results = rows.map_batches(
            BlockActor,
            fn_constructor_kwargs=told,
            batch_size=1,
            batch_format="pyarrow",
            compute=actors,
            num_cpus=cpus,
            num_gpus=gpus,
            max_restarts=2,
            max_task_retries=2,
        )
    try:
        for row in results.iter_rows():
            bad = (row["text"], row["layer"]) if row["layer"] >= 0 else None
            problems = tuple(Problem(*one) for one in json.loads(row["problems"]))
            yield Outcome(row["job"], bad, problems, row["node"])
    except ray.exceptions.RayError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        message = f"its workers failed: {lines[-1].strip() if lines else type(error).__name__}"
        hint = "the blocks that are finished are kept; start again to compute the rest"
        raise InputError(Problem("Ray", message, hint)) from None


def _rows(work: Work) -> list[dict[str, Any]]:
    from legoray.llm.plan import part_of

    rows = []
    for number, job in enumerate(work.jobs):
        part = part_of(work.encoded, job.texts)
        raw = {"ids": part.ids.tobytes(), "offsets": part.offsets.tobytes()}
        digests = work.digests[job.texts].tobytes()
        rows.append({"job": number, "units": list(job.units), "digests": digests, **raw})
    return rows


class BlockActor:
    """Holds a language model and computes one block after another."""

    def __init__(
        self, units: tuple[Unit, ...], folders: tuple[str, ...], keys: list[str], threads: int
    ) -> None:
        torch.set_num_threads(threads)
        self.units = units
        self.folders = tuple(place(folder) for folder in folders)
        self.keys = keys
        self.lower: Lower | None = None

    def __call__(self, batch: pa.Table) -> pa.Table:
        """One row: how it went. An error of the user's is a value, not a Ray traceback."""
        row = batch.to_pylist()[0]
        bad, problems = (0, -1), []
        try:
            self._compute(row)
        except NotFiniteError as error:
            bad = (error.text, error.layer)
        except InputError as error:
            problems = error.problems
        except OSError as error:
            store = str(self.folders[0].parent)
            problems = [Problem(store, f"cannot be written: {error.strerror}")]
        told = json.dumps([[p.where, p.message, p.hint] for p in problems])
        content = {"job": row["job"], "text": bad[0], "layer": bad[1]}
        return pa.Table.from_pylist([{**content, "problems": told, "node": os.uname().nodename}])

    def _compute(self, row: dict[str, Any]) -> None:
        chosen = list(row["units"])
        units = [self.units[number] for number in chosen]
        if self.lower is None:
            self._check_same_model()
            family = self.units[0].family
            self.lower = Lower(load_base(family.model, family.precision))  # type: ignore[arg-type]
        ids, offsets = (np.frombuffer(row[name], np.int64) for name in ("ids", "offsets"))
        digests = np.frombuffer(row["digests"], "S16")
        gathered = compute_block(self.lower, units, Encoded(ids.copy(), offsets), digests)
        write_blocks([self.folders[number] for number in chosen], gathered)

    def _check_same_model(self) -> None:
        """Other weights or another tokenizer on this node would give other states."""
        if [key_of_unit(unit) for unit in self.units] != self.keys:
            name, node = self.units[0].family.model, os.uname().nodename
            message = f"node {node} has other files of this model than the driver's node"
            raise InputError(Problem(name, message, "put the same files on all nodes"))


def _within_ray() -> bool:
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return False
    context = ray.get_runtime_context()
    return context.get_task_id() is not None or context.get_actor_id() is not None


def _worth(work: Work) -> bool:
    """Whether the work is a minute's: 24 operations per token, layer and squared width."""
    known = facts(work.units[0].family.model)
    layers = max(layer for unit in work.units for layer in unit.layers)
    operations = 24.0 * work.tokens * layers * known.hidden_size**2
    return operations >= _WORTH["cuda" if torch.cuda.is_available() else "cpu"]


def _several() -> bool:
    loaded = sys.modules.get("ray")
    if (loaded is not None and loaded.is_initialized()) or os.environ.get("RAY_ADDRESS"):
        from legoray.rayinit import ensure_ray

        ensure_ray()
        import ray

        alive = sum(node["Alive"] for node in ray.nodes())
        return alive > 1 or ray.cluster_resources().get("GPU", 0) > 1
    return torch.cuda.device_count() > 1


def _pool() -> tuple[int, int, int] | None:
    """How many actors there is room for, and the CPUs and GPUs of each; None for no room."""
    from legoray.rayinit import ensure_ray

    ensure_ray()
    import ray

    free = ray.available_resources()
    if free.get("GPU", 0) >= 1:
        return int(free["GPU"]), 1, 1
    sizes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    threads = min([_THREADS, *[size for size in sizes if size]])
    count = int(free.get("CPU", 0)) // threads
    return (count, threads, 0) if count else None
