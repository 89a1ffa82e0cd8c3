"""Frees the processors of worker groups whose controller has died.

A TorchTrainer's controller reserves its workers' processors as a placement group. Ray gives a group
back when the whole job of its creator has ended, not when the creator has; Train has a cleaner for
that, but it hears of a group only once all of its workers run. So what a controller had reserved
when it was killed, or stopped, while it started its workers would be held until the driver ends,
and no trial would find a processor. Where the driver has no direct connection to the cluster
(`ray://`) nothing can be done from here.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from ray.tune import Callback

PAUSE = 5.0  # seconds between two looks

log = logging.getLogger(__name__)


class LostGroups(Callback):
    """A Tune callback that looks for them every few seconds."""

    def __init__(self) -> None:
        self._next = 0.0

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PAUSE
            free_lost_groups()


def free_lost_groups() -> int:
    """Remove the placement groups of this job whose creator is a dead actor; how many they were."""
    from ray.util.placement_group import remove_placement_group

    lost = [group for group, orphaned in reserved() if orphaned]
    for group in lost:
        remove_placement_group(group)
    if lost:
        log.info("freed %d placement group(s) of dead controllers", len(lost))
    return len(lost)


def give_back(wait: float = 15.0) -> None:
    """See that nothing is reserved any more by worker groups of a run that has ended.

    Their controllers are ending now; what is left after `wait` seconds is removed all the same.
    """
    from ray.util.placement_group import remove_placement_group

    end = time.monotonic() + wait
    while left := [group for group, _ in reserved()]:
        free_lost_groups()
        if time.monotonic() > end:
            for group in left:
                remove_placement_group(group)
            return
        time.sleep(0.1)


def reserved() -> list[tuple[Any, bool]]:
    """The placement groups that actors of this job made, and whether that actor is dead."""
    import ray
    from ray import PlacementGroupID
    from ray._private.state import state
    from ray.core.generated import gcs_pb2
    from ray.util.client import ray as client
    from ray.util.placement_group import PlacementGroup

    if client.is_connected():
        return []
    job = ray.get_runtime_context().get_job_id()
    table: Any = gcs_pb2.PlacementGroupTableData  # type: ignore[attr-defined]
    found: list[tuple[Any, bool]] = []
    for entry in state._connect_and_get_accessor().get_placement_group_table():
        group = table.FromString(entry)
        actor = group.creator_actor_id.strip(b"\xff")  # nothing is left of the driver's own
        if group.creator_job_id.hex() != job or not actor or group.is_detached:
            continue
        if group.state != table.REMOVED:
            handle = PlacementGroup(PlacementGroupID(group.placement_group_id))
            found.append((handle, group.creator_actor_dead))
    return found
