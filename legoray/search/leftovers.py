"""What a driver that was killed left on a cluster that lives on: reserved CPUs that nobody uses.

Of a driver that is killed while its worker groups start, Ray keeps some placement group now and
then, though its job has ended. Those CPUs would be lost for every later search on this cluster,
which would wait for them. (`legoray.search.lostgroups` sees to what is lost within a search.)
"""

from __future__ import annotations

import re

_OURS = re.compile(r"\brun_search\.py\b|\blegoray\b")  # in the command of a driver


def remove_leftovers() -> int:
    """Remove the placement groups of LegoRay's drivers that are dead; how many there were.

    Where the driver has no direct connection to the cluster (`ray://`) none are looked for.
    """
    from ray._private import state
    from ray._raylet import PlacementGroupID
    from ray.util.client import ray as client
    from ray.util.placement_group import (
        PlacementGroup,
        placement_group_table,
        remove_placement_group,
    )

    if client.is_connected():
        return 0
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
