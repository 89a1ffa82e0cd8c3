"""TPE against random search on a space, with the same budget of trials, on several seeds.

    python benchmarks/samplers.py [--space search_spaces/all.yaml] [--trials 40] [--epochs 2]
                                  [--seeds 5] [--processes 2]

Each search asks its sampler for one configuration after another, trains it for so many epochs on
one thread, and tells the sampler the best validation value; no scheduler, no starting points.
Printed are, per seed and as medians, the best value found within a part of the budget and within
all of it, and how many trials TPE took to reach what random search found with all of its own.

With the defaults (validation AUC on the embedded corpus, which is synthetic; 2 cores):

    seed       random 20      tpe 20   random 40      tpe 40   TPE at random's best
    1             0.6308      0.6633      0.6308      0.6655   after 16 trials
    2             0.6208      0.6526      0.6208      0.6778   after 2 trials
    3             0.5920      0.5876      0.5920      0.6233   after 27 trials
    4             0.6147      0.6147      0.6301      0.6623   after 27 trials
    5             0.6148      0.6426      0.6331      0.6631   after 16 trials
    median        0.6148      0.6426      0.6301      0.6631   after 16 of 40 trials
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

SAMPLERS = ("random", "tpe")


def search(task: tuple[str, int, str, int, int]) -> tuple[str, int, list[float]]:
    """One search; the validation value of each of its trials, 0 where one failed."""
    import torch

    from legoray.config import SamplerConfig, TrialConfig, build, home
    from legoray.data.prepare import prepare
    from legoray.errors import InfeasibleError
    from legoray.search.asktell import AskTell
    from legoray.search.space import read_space
    from legoray.train.cache import shared_corpus
    from legoray.train.job import Job, Runtime
    from legoray.train.loop import train

    sampler, seed, path, trials, epochs = task
    torch.set_num_threads(1)
    space = read_space(path)
    own = {"startup_trials": 10} if sampler == "tpe" else {}
    settings = space.config.search.model_copy(
        update={
            "sampler": SamplerConfig.model_validate({"name": sampler, **own}),
            "start_with": [],
            "start_from": [],
        }
    )
    config = space.config.model_copy(update={"search": settings, "seed": seed})
    space = dataclasses.replace(space, config=config)
    tables = prepare(space.dataset, say=lambda text: None).tables
    corpus = shared_corpus(tables)
    folder = Path(tempfile.mkdtemp(prefix="samplers-"))
    study = AskTell(space, folder / "study.journal", name="benchmark")
    values: list[float] = []
    for number in range(trials):
        asked = study.ask()
        if asked is None:
            break
        asked.config["train"]["epochs"] = epochs
        trial = build(TrialConfig, {**asked.config, "seed": 1})
        job = Job(
            config=trial, tables=str(tables), home=str(home()), folder=str(folder / str(number))
        )
        began = time.perf_counter()
        try:
            outcome = train(job, Runtime(corpus, threads=1), lambda metrics: None)
            value = outcome.best[config.evaluate.select]
            study.conclude(asked.number, "completed", value=value)
        except InfeasibleError as error:
            value = 0.0
            study.conclude(asked.number, "infeasible", reason=str(error))
        values.append(value)
        shutil.rmtree(folder / str(number), ignore_errors=True)
        label, seconds = trial.model.label(), time.perf_counter() - began
        print(f"  {sampler} {seed} {number:>3} {label:<45} {value:.4f} {seconds:.1f} s", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    return sampler, seed, values


def prepare_once(path: str) -> None:
    """Make what the trials read, so that no search waits for it."""
    from legoray.config import home
    from legoray.data.prepare import prepare
    from legoray.search.check import check_space
    from legoray.search.space import read_space
    from legoray.train.cache import shared_corpus

    space = read_space(path)
    tables = prepare(space.dataset, say=lambda text: None).tables
    problems = check_space(space, shared_corpus(tables), tables, home())
    if problems:
        raise SystemExit("\n".join(map(str, problems)))


def reached(values: list[float], goal: float) -> int | None:
    """How many trials it took to reach a value."""
    return next((n for n, value in enumerate(values, 1) if value >= goal), None)


def table(found: dict[tuple[str, int], list[float]], seeds: list[int], trials: int) -> None:
    """Print the best values and how early they were found."""
    parts = [trials // 2, trials]
    heads = [f"{sampler} {part}" for part in parts for sampler in SAMPLERS]
    print("\nseed    " + "".join(f"{head:>12}" for head in heads) + "   TPE at random's best")
    columns: dict[str, list[float]] = {head: [] for head in heads}
    when = []
    for seed in seeds:
        row = []
        for part in parts:
            for sampler in SAMPLERS:
                best = max(found[sampler, seed][:part])
                columns[f"{sampler} {part}"].append(best)
                row.append(f"{best:>12.4f}")
        at = reached(found["tpe", seed], max(found["random", seed]))
        when.append(at or trials + 1)
        after = f"after {at} trials" if at else "not reached"
        print(f"{seed:<8}" + "".join(row) + f"   {after}")
    medians = "".join(f"{statistics.median(columns[head]):>12.4f}" for head in heads)
    print(f"median  {medians}   after {statistics.median(when):g} of {trials} trials")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", default="search_spaces/all.yaml")
    for name, value in {"trials": 40, "epochs": 2, "seeds": 5, "processes": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    prepare_once(given.space)
    seeds = list(range(1, given.seeds + 1))
    tasks = [(s, seed, given.space, given.trials, given.epochs) for seed in seeds for s in SAMPLERS]
    found: dict[tuple[str, int], list[float]] = {}
    with multiprocessing.get_context("spawn").Pool(given.processes, maxtasksperchild=1) as pool:
        for sampler, seed, values in pool.imap_unordered(search, tasks):
            found[sampler, seed] = values
    table(found, seeds, given.trials)


if __name__ == "__main__":
    main()
