"""How long a trial takes to start: warm slots against a TorchTrainer of its own for each trial.

    PYTHONPATH=benchmarks python benchmarks/search_start.py [trials]

For each trainer, the time from the end of one trial to the first step of the next is measured
within one run, one trial at a time, without the first trial (which starts the slot). The train
function does nothing, so that nothing but the start is measured.

On 2 cores that were busy with other work (load 13), 4 trials each, in one run:

    trainer      next trial  first trial  against warm
    warm            0.039 s      42.06 s          1.0x
    per_trial      34.489 s      34.93 s        873.8x
    local           0.194 s       7.62 s          4.9x
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from legoray.config import SchedulerConfig, SearchConfig, TrialConfig
from legoray.rayinit import ensure_ray
from legoray.records import SweepInfo
from legoray.train.job import Job, Outcome, Report, Runtime

METRICS = {"epoch": 1, "auc": 0.5}


def first_step(job: Job, runtime: Runtime, report: Report) -> Outcome:
    """A training whose cost is the time at which its first step would be."""
    costs = {"step": time.time()}
    return Outcome(epochs=[METRICS], best=METRICS, test={}, costs=costs)


def measure(trainer: str, trials: int) -> tuple[float, float]:
    """Seconds from the end of a trial to the next one's first step, and the first trial's."""
    import ray
    from ray.tune.search import Searcher

    from legoray.data.corpus import Corpus
    from legoray.search.phases import Budget, Goal
    from legoray.search.scribe import Halt
    from legoray.search.sweep import Sweep
    from legoray.search.tuner import Plan, run_trials

    class Rates(Searcher):
        """One configuration after another."""

        number = 0

        def suggest(self, trial_id: str) -> dict[str, object]:
            self.number += 1
            part = {"name": "id"}
            config = TrialConfig.model_validate(
                {
                    "model": {"content": part, "behavior": part, "predictor": part},
                    "train": {"epochs": 1, "learning_rate": self.number / 1000},
                }
            )
            return {"config": config.model_dump(), "params": {}}

        def on_trial_complete(self, *args: object, **options: object) -> None: ...

        def on_trial_result(self, *args: object, **options: object) -> None: ...

    info = SweepInfo(
        id="b", name="b", space_file="", space_hash="", data="", tables="", fingerprint="",
        protocol={}, select="auc", seed=1,
    )  # fmt: skip
    empty = np.zeros(0, np.int32)
    corpus = ray.put(Corpus("b", "", 1, empty, np.zeros(1, np.int64), {}))
    with tempfile.TemporaryDirectory() as folder:
        sweep = Sweep(Path(folder), info)
        search = SearchConfig(
            trainer=trainer,  # type: ignore[arg-type]
            concurrent=1,
            scheduler=SchedulerConfig(name="none"),
        )
        plan = Plan(
            search=search,
            budget=Budget(trials),
            goal=Goal("auc", "max"),
            epochs=1,
            home=folder,
            finals=list,
            train_fn="search_start:first_step",
        )
        began = time.time()
        run_trials(sweep, Rates(), corpus, plan, Halt())
        records = sweep.of("search")
    steps = [r.costs["step"] for r in records]
    ends = [float(r.ended or 0) for r in records]
    gaps = [step - end for end, step in zip(ends, steps[1:], strict=False)]
    return statistics.median(gaps), steps[0] - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("trials", type=int, nargs="?", default=6, help="of each trainer")
    given = parser.parse_args()
    ensure_ray()
    found = {trainer: measure(trainer, given.trials) for trainer in ("warm", "per_trial", "local")}
    base = found["warm"][0]
    print(f"{'trainer':<10} {'next trial':>12} {'first trial':>12} {'against warm':>13}")
    for trainer, (gap, first) in found.items():
        print(f"{trainer:<10} {gap:>10.3f} s {first:>10.2f} s {gap / base:>12.1f}x")


if __name__ == "__main__":
    main()
