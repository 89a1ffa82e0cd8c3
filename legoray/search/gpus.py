"""Whether the GPUs that Ray counts are GPUs that torch can use."""

from __future__ import annotations

import os
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from legoray.errors import Problem
from legoray.spaceconfig import SearchConfig

PATIENCE = 120.0  # seconds for a worker to start and import torch


def workers_on_gpus(gpus: float, each: float) -> int:
    """How many workers a node's GPUs hold, a part of a GPU being a part of one and the same.

    Args:
        gpus: of the node.
        each: GPUs of a worker: a share of one, or a whole number.
    """
    if each > 1:
        return int(gpus // each)
    whole, rest = divmod(gpus, 1.0)
    return int(whole) * int(1 / each + 1e-9) + int(rest / each + 1e-9)


def gpu_problems(search: SearchConfig) -> list[Problem]:
    """Nodes that offer GPUs and have none that torch sees.

    Ray believes what a node was started with, and a worker without its GPU is only started again.
    """
    if not search.gpus_per_worker:
        return []
    nodes = [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("GPU")]
    looks = {node["NodeID"]: _look(node["NodeID"], search.gpus_per_worker) for node in nodes}
    ray.wait(list(looks.values()), num_returns=len(looks), timeout=PATIENCE)
    return [
        problem
        for node in nodes
        for problem in _problem(node, looks[node["NodeID"]], search.gpus_per_worker)
    ]


def _look(node: str, gpus: float) -> Any:
    """Have a worker of that node look, with as much of a GPU as a trial's worker gets."""
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    options = {"num_cpus": 0, "num_gpus": gpus, "scheduling_strategy": here, "max_retries": 0}
    return ray.remote(_visible).options(**options).remote()


def _visible() -> tuple[int, str]:
    """How many GPUs torch sees here, and which ones Ray has given."""
    import torch

    return torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES", "")


def _problem(node: dict[str, Any], look: Any, gpus: float) -> list[Problem]:
    where, name = "search.gpus_per_worker", node.get("NodeManagerHostname", "?")
    try:
        found, given = ray.get(look, timeout=1.0)
    except ray.exceptions.GetTimeoutError:
        return []  # busy with other work: its trials will wait as well
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        return [Problem(where, f"no worker with {gpus:g} GPU starts on node {name}: {reason}")]
    if found:
        return []
    offered = node["Resources"]["GPU"]
    message = f"node {name} offers {offered:g} GPU(s) to Ray, but torch finds none there"
    hint = f"install torch with CUDA there (visible devices: '{given}'), or use gpus_per_worker: 0"
    return [Problem(where, message, hint)]
