"""Which differences between models are more than chance: a paired bootstrap in two levels.

*Impressions.* All models are measured on the same groups, so each resample draws groups for all of
them at once (paired; Efron and Tibshirani 1993, ch. 16; Sakai, SIGIR 2006). Impressions of one user
resemble each other, so users are drawn with all their groups (cluster bootstrap; Field and Welsh,
JRSS B 69, 2007): a replicate is the mean over the groups of the users drawn. More users than 16,384
are drawn in as many bundles, put together at random once: sums of bundles vary as much (random
groups; Wolter 2007, ch. 2), and 10,000 resamples of 100,000 groups take seconds.

*Seeds.* A configuration that was trained on r seeds is the mean over them, and each resample draws
r - 1 of its seeds with replacement. A draw of r would have only (r - 1) / r of the variance, a
third too little for three seeds; one of r - 1 has all of it (McCarthy and Snowden 1985; Rao and
Wu, JASA 83, 1988). How far seeds lie apart on these very groups is partly chance of the groups,
which drawing users has in it already: that part is taken out, as two-way clustering does (Cameron,
Gelbach and Miller, JBES 29, 2011). With one seed nothing is drawn: what is compared is that one
training.

The replicates' standard deviation is the difference's standard error. Interval and p are those of
Student's t, at Satterthwaite's degrees of freedom with the seeds of both models as one estimate,
which is on the safe side (`benchmarks/comparison.py`). A few seeds leave few: quantiles of the
replicates would be too narrow there, and for many groups they are the same (Hesterberg, The
American Statistician 69, 2015). Holm's correction (Scandinavian Journal of Statistics 6, 1979)
holds the chance of a single false claim among all pairs below the level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

Float = NDArray[np.float64]
RESAMPLES = 10_000
ALPHA = 0.05  # chance that one of a comparison's claims is false, where all models are equal
LEVEL = 1 - ALPHA  # of intervals
MOST_DRAWN = 2**14  # users that are drawn one by one
BLOCK = 2**24  # numbers of one block of resamples that are held at once


@dataclass(frozen=True)
class Gap:
    """The difference of two models' means, first less second."""

    difference: float
    low: float
    high: float
    p: float  # two-sided
    error: float  # standard error
    freedom: float  # degrees of freedom


@dataclass(frozen=True)
class Replicates:
    """The means of some models over resamples, for one metric."""

    mean: Float  # [M] as measured
    draws: Float  # [B, M]
    seed_variance: Float  # [M] of a mean over its seeds; 0 for one seed
    seeds: tuple[int, ...]  # [M]
    users: int

    def gap(self, first: int, second: int, level: float = LEVEL) -> Gap:
        """The difference between two of the models."""
        difference = float(self.mean[first] - self.mean[second])
        error = float(np.std(self.draws[:, first] - self.draws[:, second], ddof=1))
        freedom = self._freedom(first, second, error)
        if error == 0.0:
            p = self._least_p() if difference else 1.0
            return Gap(difference, difference, difference, p, error, freedom)
        reach = float(student.ppf((1 + level) / 2, freedom)) * error
        p = 2 * float(student.sf(abs(difference) / error, freedom))
        p = max(p, self._least_p())
        return Gap(difference, difference - reach, difference + reach, p, error, freedom)

    def _freedom(self, first: int, second: int, error: float) -> float:
        """Satterthwaite's, of the users' part of the variance and of the seeds'."""
        users = float(max(self.users - 1, 1))
        several = [m for m in (first, second) if self.seeds[m] > 1]
        if not several or error == 0.0:
            return users
        least = min(self.seeds[m] for m in several) - 1
        seeds = float(sum(self.seed_variance[m] for m in several))
        rest = max(error**2 - seeds, 0.0)
        below = seeds**2 / least + rest**2 / users
        return min(max(error**4 / below, least), users) if below else users

    def _least_p(self) -> float:
        """What all users agreeing would have by flipping signs: of four users no claim is made."""
        return min(2.0 ** (1 - self.users), 1.0)


def resample(
    models: Sequence[NDArray[np.floating]],
    user: NDArray[np.integer],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Replicates:
    """Replicate the means of models over users and seeds.

    Args:
        models: of each `[S, G]` values of its S seeds on the same G groups.
        user: `[G]` whose group it is.
        seed: of the resampling; equal seeds give equal replicates.
        resamples: how many.

    Raises:
        ValueError: there are no groups, or values are not finite.
    """
    columns = np.concatenate([np.atleast_2d(model) for model in models]).astype(np.float64)
    if not columns.size or not np.isfinite(columns).all():
        raise ValueError("values of groups must be there and finite")
    of_groups, of_seeds = np.random.SeedSequence(seed % 2**64).spawn(2)
    mean = columns.mean(1)
    drawn = _drawn_means(columns - mean[:, None], user, of_groups, resamples) + mean
    random = np.random.default_rng(of_seeds)
    draws, means, variances, sizes, start = [], [], [], [], 0
    for model in models:
        size = len(np.atleast_2d(model))
        own = slice(start, start + size)
        draws.append(_over_seeds(drawn[:, own], mean[own], random))
        means.append(mean[own].mean())
        variances.append(mean[own].var(ddof=1) / size if size > 1 else 0.0)
        sizes.append(size)
        start += size
    users = len(np.unique(user))
    return Replicates(np.array(means), np.stack(draws, 1), np.array(variances), tuple(sizes), users)


def _over_seeds(drawn: Float, mean: Float, random: np.random.Generator) -> Float:
    """`[B]` replicates of a configuration's mean, of those of its seeds `[B, S]`.

    How seeds differ (`mean [S]`) is drawn anew, without the share that the drawn groups explain.
    """
    size = len(mean)
    center = drawn.mean(1)
    if size == 1:
        return center
    explained = float((drawn - center[:, None]).var(0, ddof=1).sum()) / (size - 1)
    spread = float(mean.var(ddof=1))
    kept = np.sqrt(max(1 - explained / spread, 0.0)) if spread else 0.0
    counts = random.multinomial(size - 1, np.full(size, 1 / size), len(drawn))
    found: Float = center + kept * (counts / (size - 1)) @ (mean - mean.mean())
    return found


def _drawn_means(
    columns: Float, user: NDArray[np.integer], seed: np.random.SeedSequence, resamples: int
) -> Float:
    """`[B, C]` means of centred columns `[C, G]` over the groups of users that are drawn.

    How often each user is drawn are weights, and a block of resamples is one matrix product.
    """
    random = np.random.default_rng(seed)
    number = np.unique(user, return_inverse=True)[1]
    users = int(number.max()) + 1
    if users > MOST_DRAWN:
        number = (random.permutation(users) % MOST_DRAWN)[number]
        users = MOST_DRAWN
    sums = np.stack([np.bincount(number, weights=column, minlength=users) for column in columns])
    table = np.concatenate([sums, np.bincount(number, minlength=users)[None]])
    table = np.ascontiguousarray(table.T, dtype=np.float32)  # [U, C + 1]
    size = max(min(BLOCK // users, resamples), 1)
    found = np.empty((resamples, len(columns)))
    for start in range(0, resamples, size):
        block = range(start, min(start + size, resamples))
        weights = np.empty((len(block), users), dtype=np.float32)
        for row in range(len(block)):
            weights[row] = np.bincount(random.integers(0, users, users), minlength=users)
        totals = (weights @ table).astype(np.float64)
        found[block.start : block.stop] = totals[:, :-1] / totals[:, -1:]
    return found


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: those below the level are claims that may stand together."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in adjusted]


def tie_letters(count: int, differ: Sequence[tuple[int, int]]) -> list[str]:
    """Letters for models in order: two share one exactly where they do not differ.

    A compact letter display by insertion and absorption (Piepho, Journal of Computational and
    Graphical Statistics 13, 2004).

    Args:
        count: of models.
        differ: pairs that do.
    """
    sets: list[frozenset[int]] = [frozenset(range(count))]
    for a, b in differ:
        split = [s - {gone} for s in sets if {a, b} <= s for gone in (a, b)]
        sets = [s for s in sets if not {a, b} <= s]
        for new in split:
            if not any(new <= other for other in sets):
                sets = [other for other in sets if not other <= new] + [new]
    ordered = sorted(sets, key=sorted)
    names = [_letter(index) for index in range(len(ordered))]
    return ["".join(n for n, s in zip(names, ordered, strict=True) if m in s) for m in range(count)]


def _letter(index: int) -> str:
    """a, b, ..., z, A, ..., Z, then numbers in brackets."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return letters[index] if index < len(letters) else f"({index})"
