"""Where a sweep lies, and whether the driver and every node can read and write there."""

from __future__ import annotations

import socket
from pathlib import Path

from legoray.config import home, lasting
from legoray.errors import InputError, Problem
from legoray.storage import remote
from legoray.storage.address import Address, address_of, parse, place

_SECONDS = 120.0  # that a node may take to answer


def sweep_folder(folder: str | Path | None, name: str) -> Path:
    """The folder of a sweep, or this node's mirror of its address.

    Args:
        folder: as it was given; `sweeps/<name>` where it is not.
        name: the search's.

    Raises:
        InputError: it is an address, and not a valid one.
    """
    return lasting() / "sweeps" / name if folder is None else place(folder, "--folder")


def check_storage(folder: Path) -> None:
    """See that this process may read and write at the addresses of LEGORAY_HOME and a sweep.

    Raises:
        InputError: it may not, for one of these reasons: there is no such bucket, the credentials
            are missing or wrong, or the service cannot be reached.
    """
    problems = []
    for address in _addresses(folder):
        try:
            remote.ensure(address)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(*problems)


def check_nodes(folder: Path) -> None:
    """The same for every other node of the Ray that runs, before any of them is given a trial.

    Raises:
        InputError: a node may not; it says which.
    """
    addresses = [str(address) for address in _addresses(folder)]
    if not addresses:
        return
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here, task = ray.get_runtime_context().get_node_id(), ray.remote(num_cpus=0)(_check_here)
    waiting = {}
    for node in ray.nodes():
        if node["Alive"] and node["NodeID"] != here:
            pinned = NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
            told = f"{node['NodeManagerHostname']}/{node['NodeID'][:8]}"
            waiting[told] = task.options(scheduling_strategy=pinned).remote(addresses)
    problems = [
        Problem(f"node {name}, {where}", message, hint)
        for name, reference in waiting.items()
        for where, message, hint in ray.get(reference, timeout=_SECONDS)
    ]
    if problems:
        raise InputError(*problems)


def _check_here(addresses: list[str]) -> list[tuple[str, str, str]]:
    """What is wrong on this node, as plain data."""
    found = []
    for address in addresses:
        try:
            remote.check(parse(address, socket.gethostname()))
        except InputError as error:
            found += [(p.where, p.message, p.hint) for p in error.problems]
    return found


def _addresses(folder: Path) -> list[Address]:
    found = (address_of(home()), address_of(folder))
    return [address for address in dict.fromkeys(found) if address is not None]
