"""What a dead worker group had reserved is free again."""

from __future__ import annotations

import time

import pytest
import tinytrain
from test_slots_run import cluster, events, go, make_sweep  # noqa: F401

from legoray.search.lostgroups import free_lost_groups, give_back, reserved


class Holder:
    """Reserves processors as a TorchTrainer's controller does while it starts its workers."""

    def reserve(self, cpus: int) -> bool:
        import ray

        self.group = ray.util.placement_group([{"CPU": 1}] * cpus)
        return self.group.wait(30)


def free_cpus(ray, count, seconds=60.0):
    """Whether so many processors become free within a while."""
    end = time.monotonic() + seconds
    while ray.available_resources().get("CPU", 0) != count:
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def test_what_a_killed_actor_reserved_is_freed(cluster):  # noqa: F811
    assert free_cpus(cluster, 2)
    holder = cluster.remote(Holder).options(num_cpus=0).remote()
    assert cluster.get(holder.reserve.remote(2))
    assert [orphaned for _, orphaned in reserved()] == [False]
    assert free_lost_groups() == 0, "its owner lives"
    assert free_cpus(cluster, 0, 10)
    cluster.kill(holder)
    end = time.monotonic() + 30
    while not free_lost_groups():
        assert time.monotonic() < end
        time.sleep(0.1)
    assert free_cpus(cluster, 2)
    assert reserved() == []


def test_the_end_of_a_run_frees_what_nobody_ends(cluster):  # noqa: F811
    holder = cluster.remote(Holder).options(num_cpus=0).remote()
    assert cluster.get(holder.reserve.remote(1))
    own = cluster.util.placement_group([{"CPU": 1}])  # of the driver: none of our business
    assert own.wait(30)
    give_back(0.5)
    assert free_cpus(cluster, 1)
    cluster.util.remove_placement_group(own)
    cluster.kill(holder)
    assert free_cpus(cluster, 2)


@pytest.mark.slow
def test_a_failed_trial_of_two_workers_holds_nothing_for_the_next_search(cluster, tmp_path):  # noqa: F811
    """The group is being rebuilt when the first search ends."""
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        sweep = make_sweep(folder)
        go(cluster, sweep, [tinytrain.config(0.5, fail=True, at=1)], workers=2)
        assert [r.status for r in sweep.of("search")] == ["failed"]
        assert free_cpus(cluster, 2), name
        sweep.close()
