"""Whole searches on real Ray and Optuna: every scheduler, several objectives, shares of a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import madeup
import pytest
import tinytrain
from optuna.trial import TrialState
from ray_nodes import local_ray
from space_cases import make_space

from legoray.errors import InputError
from legoray.objectives import objectives_of
from legoray.search.finals import finals_of
from legoray.search.gpus import workers_on_gpus
from legoray.search.opening import open_sweep
from legoray.search.pareto import front
from legoray.spaceconfig import SearchConfig


@pytest.fixture(scope="module")
def cluster():
    """A local Ray of three CPUs and one GPU that is only counted, not there."""
    with local_ray(Path(__file__).parent, num_cpus=3, num_gpus=1) as ray:
        yield ray


class Run:
    """A search that has come to its end: its sweep, and what Optuna has of it."""

    def __init__(self, ray, folder, settings, trials=10, *, seed=1, top=0):
        from legoray.search.phases import Budget, Goal
        from legoray.search.scribe import Halt
        from legoray.search.study import StudySearcher
        from legoray.search.tuner import Plan, run_trials

        text = madeup.SPACE.replace("search: {}", f"search: {{trainer: local, {settings}}}")
        text += f"final: {{top: {top}, seeds: 1, baselines: []}}\nseed: {seed}\n"
        self.space = make_space(folder, text)
        config = self.space.config
        self.sweep = open_sweep(self.space, folder / "sweep", folder, tinytrain.MANIFEST)
        study = StudySearcher(self.space, self.sweep.folder, sweep_id=self.sweep.info.id)
        plan = Plan(
            search=config.search,
            budget=Budget(trials),
            goal=Goal("auc", "max"),
            epochs=4,
            home=str(folder),
            finals=lambda: finals_of(self.sweep, config.final, "auc", "max"),
            train_fn="madeup:train",
        )
        run_trials(self.sweep, study, ray.put(tinytrain.corpus()), plan, Halt())
        study.close()
        self.rows = {
            row.user_attrs["key"]: row
            for row in study.study.rows()
            if "key" in row.user_attrs and row.user_attrs.get("outcome") != "rejected"
        }
        self.states = {row.state for row in study.study.rows()}
        self.sweep.close()

    def pairs(self):
        """Each record of the search with Optuna's row of the same configuration."""
        from legoray.search.space import key_of

        return [(r, self.rows[key_of(r.config)]) for r in self.sweep.of("search")]


STATES = {
    "completed": TrialState.COMPLETE, "pruned": TrialState.PRUNED,
    "infeasible": TrialState.FAIL, "failed": TrialState.FAIL,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median", "none"])
def test_optuna_is_told_what_the_records_say(cluster, tmp_path, scheduler):
    """Stopped ones are pruned with their values, others failed with reasons, and none runs."""
    settings = f"scheduler: {{name: {scheduler}}}, sampler: {{name: random}}, concurrent: 2"
    run = Run(cluster, tmp_path, settings, trials=16)
    pairs = run.pairs()
    assert len(pairs) == 16
    assert not {TrialState.RUNNING, TrialState.WAITING} & run.states
    for record, row in pairs:
        assert row.state == STATES[record.status]
        told = {int(e["epoch"]): e["auc"] for e in record.epochs}
        assert row.intermediate_values == told
        if row.state == TrialState.FAIL:
            assert row.user_attrs["outcome"] == record.status
            assert row.user_attrs["reason"] == record.reason
        if record.status == "completed":
            assert row.value == record.best["auc"]
    statuses = {record.status for record, _ in pairs}
    assert {"completed", "infeasible", "failed"} <= statuses
    assert ("pruned" in statuses) == (scheduler != "none")


@pytest.mark.slow
def test_a_search_for_two_objectives(cluster, tmp_path):
    """Records and Optuna agree on the front; what was pruned or not measured is not on it."""
    settings = "objectives: [auc, latency], scheduler: {name: asha}, sampler: {name: tpe}"
    run = Run(cluster, tmp_path, f"{settings}, concurrent: 2", trials=16, seed=6, top=2)
    objectives = objectives_of(run.sweep.info.objectives, "auc")
    assert [one.mode for one in objectives] == ["max", "min"]
    assert not {TrialState.RUNNING, TrialState.WAITING} & run.states
    pairs = run.pairs()
    for record, row in pairs:
        assert row.state == STATES[record.status]
        if record.status == "completed":
            assert row.values == [record.best["auc"], record.costs["latency_ms"]]
        if record.status == "pruned":
            assert row.values is None
            assert row.user_attrs["epochs"] == {str(e["epoch"]): e["auc"] for e in record.epochs}
    blind = [record for record, _ in pairs if record.reason.startswith("its objective latency")]
    assert all(r.status == "failed" and r.config["train"]["negatives"] == 4 for r in blind)
    members = front([record for record, _ in pairs], objectives)
    assert members
    finals = [{**r.config, "seed": 6} for r in run.sweep.of("final")]
    assert len(finals) == min(2, len(members))
    assert all(config in [r.config for r in members] for config in finals)


@pytest.mark.slow
def test_two_trials_share_a_gpu_and_no_more(cluster, tmp_path):
    """Three CPUs would do for three trials; halves of one GPU do for two."""
    from legoray.search.tuner import slots_that_fit

    half = SearchConfig(gpus_per_worker=0.5)
    assert slots_that_fit(half) == 2
    assert slots_that_fit(SearchConfig(gpus_per_worker=0.5, workers=2)) == 1
    with pytest.raises(InputError, match=r"2 GPU\(s\), the cluster has 3 CPU\(s\) and 1 GPU\(s\)"):
        slots_that_fit(SearchConfig(gpus_per_worker=2.0))
    run = Run(cluster, tmp_path, "gpus_per_worker: 0.5, scheduler: {name: none}", trials=6)
    seen = []
    for record in run.sweep.of("search"):
        lines = (run.sweep.model_folder(record.key) / "events.jsonl").read_text().splitlines()
        seen += [json.loads(line) for line in lines]
    assert {str(gpu) for one in seen for gpu in one["gpus"]} == {"0"}
    assert len({one["pid"] for one in seen}) <= 2


@pytest.mark.slow
def test_a_gpu_that_only_ray_counts_is_told(cluster):
    import torch

    from legoray.search.gpus import gpu_problems

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert gpu_problems(SearchConfig()) == []
    (problem,) = gpu_problems(SearchConfig(gpus_per_worker=0.5))
    assert "offers 1 GPU(s) to Ray, but torch finds none there" in str(problem)
    assert "gpus_per_worker: 0" in str(problem)


@pytest.mark.parametrize(
    ("gpus", "each", "fitting"),
    [(1, 0.1, 10), (1, 0.2, 5), (1, 0.4, 2), (2, 0.4, 4), (2, 0.6, 2), (4, 1.0, 4), (5, 2.0, 2),
     (0, 0.5, 0), (0.5, 0.25, 2)],
)  # fmt: skip
def test_shares_of_a_gpu_are_of_one_and_the_same(gpus, each, fitting):
    assert workers_on_gpus(gpus, each) == fitting


def test_a_share_above_one_is_refused():
    with pytest.raises(ValueError, match="whole number"):
        SearchConfig(gpus_per_worker=1.5)
