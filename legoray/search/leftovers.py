"""What a driver that was killed left on a cluster that lives on: reserved CPUs that nobody uses.

A worker group's placement group is removed by an actor of Ray Train's when the driver dies. That
actor asks the dashboard, and gives up where this does not answer or where several Rays run on the
machine; then the reserved CPUs are lost for every later search on this cluster.
"""

from __future__ import annotations

import re

_OURS = re.compile(r"\brun_search\.py\b|\blegoray\b")  # in the command of a driver


def remove_leftovers() -> int:
    """Remove the placement groups of LegoRay's drivers that are dead; how many there were."""
    from ray._private import state
    from ray._raylet import PlacementGroupID
    from ray.util.placement_group import (
        PlacementGroup,
        placement_group_table,
        remove_placement_group,
    )

    dead = {
        str(job["JobID"])
        for job in state.jobs()
        if job["IsDead"] and _OURS.search(str(job["Entrypoint"]))
    }
    found = [
        name
        for name, group in placement_group_table().items()
        if group["state"] != "REMOVED" and any(name.endswith(job) for job in dead)
    ]
    for name in found:
        remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))
    return len(found)
