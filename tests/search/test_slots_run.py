"""Trials on real Ray: warm slots, what kills them, and the two other trainers."""

from __future__ import annotations

from pathlib import Path

import pytest
import tinytrain
from ray_nodes import local_ray

from legoray.search.finals import finals_of
from legoray.search.opening import open_sweep
from legoray.search.sweep import Sweep
from legoray.spaceconfig import FinalConfig, SchedulerConfig, SearchConfig


@pytest.fixture(scope="module")
def cluster():
    """A local Ray of two CPUs whose workers can import the test's training."""
    with local_ray(Path(__file__).parent, num_cpus=2) as ray:
        yield ray


def make_sweep(tmp_path) -> Sweep:
    space = tinytrain.TinySpace(tmp_path / "space.yaml", tinytrain.SPACE)
    return open_sweep(space, tmp_path / "sweep", tmp_path / "tables", tinytrain.MANIFEST)


def go(ray, sweep, configs, *, top=0, seeds=1, scheduler="none", halt=None, watchers=(), **search):
    """Run a list of configurations; returns the study, which knows what it was told."""
    from legoray.search.phases import Budget, Goal
    from legoray.search.scribe import Halt
    from legoray.search.tuner import Plan, run_trials

    study = tinytrain.Listed(configs)
    plan = Plan(
        search=SearchConfig(scheduler=SchedulerConfig(name=scheduler), **search),
        budget=Budget(len(configs)),
        goal=Goal("auc", "max"),
        epochs=max(c["train"]["epochs"] for c in configs),
        home=str(sweep.folder),
        finals=lambda: finals_of(sweep, FinalConfig(top=top, seeds=seeds), "auc", "max"),
        train_fn="tinytrain:train",
        watchers=list(watchers),
    )
    study.why = run_trials(sweep, study, ray.put(tinytrain.corpus()), plan, halt or Halt())
    return study


def events(sweep: Sweep, number: int, name: str):
    return tinytrain.events(sweep.model_folder(sweep.records[number].key), name)


@pytest.mark.slow
def test_warm_slots_serve_all_trials_and_the_finals(cluster, tmp_path):
    """Six trials and a final one in two workers; what fails is on record and fails nothing else."""
    sweep = make_sweep(tmp_path)
    configs = [tinytrain.config(rate) for rate in (0.1, 0.2, 0.5, 0.3)]
    configs.insert(1, tinytrain.config(0.15, infeasible=True))
    configs.insert(2, tinytrain.config(0.25, fail=True))
    study = go(cluster, sweep, configs, top=1, seeds=1)
    records = sweep.of("search")
    assert [r.status for r in records] == [
        "completed", "infeasible", "failed", "completed", "completed", "completed",
    ]  # fmt: skip
    assert records[1].reason == "the loss is NaN"
    assert "ZeroDivisionError: a defect" in records[2].reason
    assert (sweep.model_folder(records[2].key) / "error.json").exists()
    assert all(
        [e["epoch"] for e in r.epochs] == [1, 2, 3] for r in records if r.best and not r.reason
    )
    finals = sweep.of("final")
    assert [(f.config["train"]["learning_rate"], f.config["seed"]) for f in finals] == [(0.5, 2)]
    assert all(f.test and f.status == "completed" for f in finals)
    assert not any(r.test for r in records)
    pids = {e["pid"] for n in sweep.records for e in events(sweep, n, "start")}
    assert len(pids) <= 2
    assert study.why == "trials"
    assert sum(t.get("status") == "completed" for t in study.told) == 4
    assert sum(t["error"] for t in study.told) == 1
    assert all(r.node and r.ended for r in sweep.records.values())
    sweep.close()


@pytest.mark.slow
def test_dead_workers_come_back_and_asha_stops_at_once(cluster, tmp_path):
    """A killed worker resumes; one that always dies is given up; the weak are pruned."""
    sweep = make_sweep(tmp_path)
    configs = [
        tinytrain.config(0.4, die="once"),
        tinytrain.config(0.5, epochs=9),
        tinytrain.config(0.01, epochs=9),
        tinytrain.config(0.02, epochs=9),
    ]
    study = go(cluster, sweep, configs, scheduler="asha", concurrent=1)
    records = sweep.of("search")
    assert [r.status for r in records] == ["completed", "completed", "pruned", "pruned"]
    assert records[0].resumed == 1
    assert [e["epoch"] for e in events(sweep, 0, "start")] == [0, 1]
    assert [e["epoch"] for e in events(sweep, 0, "epoch")] == [1, 2, 3]
    assert [len(r.epochs) for r in records[2:]] == [1, 1]
    assert all(len(events(sweep, n, "epoch")) == 1 for n in (2, 3))
    assert [t["status"] for t in study.told] == ["completed", "completed", "pruned", "pruned"]
    sweep.close()


@pytest.mark.slow
def test_two_workers_train_one_trial_together(cluster, tmp_path):
    """Both ranks take each job and stop together; what one does alone never holds the other up."""
    sweep = make_sweep(tmp_path)
    configs = [
        tinytrain.config(0.3, epochs=2),
        tinytrain.config(0.4, infeasible=True, at=1),  # both ranks find so: the group stays
        tinytrain.config(0.01, epochs=5),
        tinytrain.config(0.5, die="once", rank=1),
        tinytrain.config(0.6, fail=True, rank=1, at=1),
        tinytrain.config(0.7, infeasible=True, rank=1, at=1),
        tinytrain.config(0.8, die="once", rank=0),
        tinytrain.config(0.9, epochs=2),
    ]
    go(cluster, sweep, configs, scheduler="asha", workers=2)
    records = sweep.of("search")
    assert [r.status for r in records] == [
        "completed", "infeasible", "pruned", "completed",
        "failed", "infeasible", "completed", "completed",
    ]  # fmt: skip
    assert [r.resumed for r in records] == [0, 0, 0, 1, 0, 0, 1, 0]
    assert "ZeroDivisionError: a defect" in records[4].reason
    assert records[5].reason == "the loss is NaN"
    pids = [{e["pid"] for e in events(sweep, n, "start")} for n in range(8)]
    assert [len(found) for found in pids] == [2, 2, 2, 4, 2, 2, 4, 2]
    assert pids[0] == pids[1] == pids[2], "one pair of workers for the first three"
    for number in (3, 6):
        starts = [e["epoch"] for e in events(sweep, number, "start")]
        assert sorted(starts) == [0, 0, 1, 1]
    assert len(events(sweep, 2, "epoch")) == 2
    assert [[e["epoch"] for e in r.epochs] for r in records[6:]] == [[1, 2, 3], [1, 2]]
    sweep.close()


@pytest.mark.parametrize("trainer", ["local", pytest.param("warm", marks=pytest.mark.slow)])
def test_an_interrupted_trial_keeps_its_checkpoint(cluster, tmp_path, trainer):
    """What the scheduler stops is over; what Ctrl-C stops goes on from its last epoch."""
    from legoray.search.scribe import Halt

    sweep, halt = make_sweep(tmp_path), Halt()

    def interrupt(record):
        if len(record.epochs) == 2:
            halt.give_up("interrupted")

    configs = [tinytrain.config(0.5, epochs=5000)]
    more = {"halt": halt, "watchers": [interrupt], "trainer": trainer, "concurrent": 1}
    go(cluster, sweep, configs, **more)
    (record,) = sweep.of("search")
    assert 2 <= len(record.epochs) < 5000
    assert (sweep.model_folder(record.key) / "last" / "state.json").exists()
    assert len(events(sweep, 0, "epoch")) < 5000
    sweep.close()


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["local", "per_trial"])
def test_the_other_trainers_do_the_same(cluster, tmp_path, trainer):
    sweep = make_sweep(tmp_path)
    configs = [tinytrain.config(0.5), tinytrain.config(0.01, epochs=9)]
    go(cluster, sweep, configs, scheduler="asha", trainer=trainer, concurrent=1)
    assert [r.status for r in sweep.of("search")] == ["completed", "pruned"]
    pids = {events(sweep, n, "start")[0]["pid"] for n in (0, 1)}
    assert len(pids) == (1 if trainer == "local" else 2)
    sweep.close()


def test_a_full_disk_ends_the_search_with_the_trial_kept(cluster, tmp_path):
    from legoray.search.scribe import Halt

    sweep, halt = make_sweep(tmp_path), Halt()
    configs = [tinytrain.config(0.5, disk=True), tinytrain.config(0.4)]
    go(cluster, sweep, configs, trainer="local", concurrent=1, halt=halt)
    assert "No space left" in str(halt.problem)
    assert [r.status for r in sweep.of("search")] == ["interrupted"]
    sweep.close()


def test_nothing_but_failures_gives_up(cluster, tmp_path):
    from legoray.search.scribe import Halt

    sweep, halt = make_sweep(tmp_path), Halt()
    configs = [tinytrain.config(0.1 * n, fail=True, at=1) for n in range(1, 7)]
    go(cluster, sweep, configs, trainer="local", concurrent=1, halt=halt)
    assert halt.reason == "failures"
    assert len(sweep.of("search")) in (3, 4)
    sweep.close()
