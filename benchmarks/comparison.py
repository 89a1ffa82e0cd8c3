"""How often the paired bootstrap's intervals hold, how often it claims too much, and its time.

    python benchmarks/comparison.py            # half an hour on one core; --trials 200 for minutes

Models are made up: values of groups have an effect of the user, of the group and of the training
(seed), and noise of their own; what the first two are is shared by all models, partly. All models
are equal, so that every claim is a false one: `false claims` is the share of comparisons with at
least one after Holm's correction, to be at most 5%. `holds` is the share of 95% intervals that have
the true difference in them, for three ways:

    two levels     users and seeds are drawn, r - 1 of r seeds (`legoray.zoo.bootstrap`)
    no seeds       users are drawn alone: the seeds' mean counts as the configuration
    no users       groups are drawn as if no two were of one user, and seeds
"""

from __future__ import annotations

import argparse
import time
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from legoray.zoo.bootstrap import ALPHA, holm, resample

Case = tuple[int, int, int, float, float, float, float]
Values = NDArray[np.float64]
Users = NDArray[np.int64]
CASES: dict[
    str, Case
] = {  # groups, users, seeds, deviation of: user x model, group x model, seed, noise
    "one seed": (400, 400, 1, 0.0, 0.05, 0.0, 0.1),
    "one seed, users of many groups": (400, 80, 1, 0.05, 0.05, 0.0, 0.1),
    "three seeds that differ little": (400, 200, 3, 0.02, 0.05, 0.001, 0.1),
    "three seeds that differ much": (400, 200, 3, 0.02, 0.05, 0.02, 0.1),
    "two seeds that differ much": (400, 200, 2, 0.02, 0.05, 0.02, 0.1),
    "five seeds that differ much": (400, 200, 5, 0.02, 0.05, 0.02, 0.1),
}
MODELS = 4


def models_of(case: Case, random: np.random.Generator) -> tuple[list[Values], Users]:
    """Values `[S, G]` of each model, and the users `[G]`: what is drawn anew varies in the world.

    The mean of every model over all users, groups and seeds that there might be is the same.
    """
    groups, users, seeds, by_user, by_group, by_seed, noise = case
    user = np.sort(random.integers(0, users, groups))
    common = random.normal(0.65, 0.2, groups) + random.normal(0, 0.1, users)[user]
    found = []
    for _ in range(MODELS):
        own = random.normal(0, by_user, users)[user] + random.normal(0, by_group, groups)
        each = random.normal(0, by_seed, (seeds, 1)) + random.normal(0, noise, (seeds, groups))
        found.append(common + own + each)
    return found, user


def measured(
    case: Case, trials: int, resamples: int, random: np.random.Generator
) -> tuple[dict[str, float], float]:
    """Shares of intervals that hold, by way, and of comparisons with a false claim."""
    held: dict[str, list[bool]] = {"two levels": [], "no seeds": [], "no users": []}
    claimed = []
    for trial in range(trials):
        models, user = models_of(case, random)
        ways = {
            "two levels": (models, user),
            "no seeds": ([model.mean(0, keepdims=True) for model in models], user),
            "no users": (models, np.arange(len(user))),
        }
        for name, (values, whose) in ways.items():
            drawn = resample(values, whose, seed=trial, resamples=resamples)
            gaps = [drawn.gap(a, b) for a, b in combinations(range(MODELS), 2)]
            held[name] += [gap.low <= 0 <= gap.high for gap in gaps]
            if name == "two levels":
                claimed.append(min(holm([gap.p for gap in gaps])) < ALPHA)
    return {name: float(np.mean(values)) for name, values in held.items()}, float(np.mean(claimed))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=1000)
    given = parser.parse_args()
    console, table = Console(width=110), Table()
    for name in ("case", "holds: two levels", "no seeds", "no users", "false claims of 6 pairs"):
        table.add_column(name, justify="left" if name == "case" else "right")
    random = np.random.default_rng(1)
    for name, case in CASES.items():
        held, claimed = measured(case, given.trials, given.resamples, random)
        table.add_row(name, *(f"{value:.1%}" for value in held.values()), f"{claimed:.1%}")
    console.print(table)
    values = [random.random((3, 100_000)) for _ in range(5)]
    began = time.perf_counter()
    resample(values, np.arange(100_000), seed=1)
    seconds = time.perf_counter() - began
    console.print(f"5 models of 3 seeds, 100,000 groups, 10,000 resamples: {seconds:.1f} s")


if __name__ == "__main__":
    main()
