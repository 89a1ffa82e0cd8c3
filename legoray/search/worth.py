"""What configurations promise, by a Gaussian process that adds up what their values are worth.

    f(x) = constant + a sum for each kind of part + pairs of parts + settings
           + settings that all configurations have + the same for each part

A trial teaches something of every part that it is made of, so that tens of trials say much of
thousands of compositions; values that a configuration does not have add nothing (additive kernels:
Duvenaud, Nickisch and Rasmussen, NeurIPS 2011). Labels are alike or not, numbers are alike by
their distance. How much each sum and the error weigh is not fitted but averaged over: fixed draws
of the weights count by their likelihood (Neal 1996), which misleads less than the likeliest
weights of a few trials.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.special import ndtr

Floats = NDArray[np.float64]
Values = Mapping[str, object]  # of a configuration, by name: labels, and floats in [0, 1]

WEIGHTS = 128  # draws of the sums' weights
LEAST = 0.01  # share of the likelihood below which a draw is left out
REACH = 0.35  # of a number's kernel, as a share of its range
FLOOR = 3.0  # deviations below the median that a value counts at least: how bad teaches little
# medians of the variances where values have variance 1: of a kind of part; of pairs, settings,
# shared settings, shared settings by part; of the error
PART, OTHERS, ERROR = 0.2, (0.15, 0.1, 0.2, 0.1), 0.15
SPREAD = 1.0  # deviation of their logarithms


@dataclass(frozen=True)
class Kinds:
    """Which names are parts, and which others every configuration has."""

    parts: tuple[str, ...]
    shared: tuple[str, ...]


@dataclass(frozen=True)
class Known:
    """What trials have come to; greater values are better."""

    rows: Sequence[Values]  # N
    values: Floats  # [N]
    errors: Floats  # [N] variance of what is not known of a value, beyond what is common to all


def promise(
    kinds: Kinds, known: Known, pending: Sequence[Values], candidates: Sequence[Values]
) -> Floats:
    """The expected improvement of candidates upon the best trial (Jones et al. 1998), [M].

    Args:
        kinds: of the names.
        known: what the trials that have ended came to, at least one.
        pending: trials that run; they count as if they came to what is expected of them.
        candidates: `M` configurations.
    """
    count, running = len(known.rows), len(pending)
    sums, own = _sums(kinds, [*known.rows, *pending, *candidates], count + running)
    target, scale = standard(known.values)
    noise = np.zeros(count + running)
    noise[:count] = known.errors / scale**2
    weights, shares = _weights(sums[:, :count, :count], target, noise[:count])
    found = np.zeros(len(candidates))
    for (*parts, error), share in zip(weights, shares, strict=True):
        gram = np.tensordot(np.array(parts), sums, 1) + 1.0
        gram[np.arange(count + running), np.arange(count + running)] += error + noise
        solved = cho_solve((cholesky(gram[:count, :count], lower=True), True), target)
        expected = gram[:count].T @ solved
        believed = np.concatenate([target, expected[count : count + running]])
        factor = cholesky(gram[:, : count + running], lower=True)
        across = gram[:, count + running :]
        mean = across.T @ cho_solve((factor, True), believed)
        left = (solve_triangular(factor, across, lower=True) ** 2).sum(0)
        spread = np.sqrt(np.maximum(np.array(parts) @ own[:, count + running :] + 1.0 - left, 1e-9))
        seen = believed - (error + noise) * cho_solve((factor, True), believed)  # without the error
        found += share * _improvement(mean - seen.max(), spread)
    return found


def standard(values: Floats) -> tuple[Floats, float]:
    """Values with mean 0 and variance 1, the worst of them moved up; and what they were divided by.

    How bad a bad model is says little of the good ones.
    """
    middle = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - middle))) or float(values.std())
    clipped = np.maximum(values, middle - FLOOR * spread)
    scale = float(clipped.std()) or 1.0
    return (clipped - clipped.mean()) / scale, scale


def _weights(sums: Floats, target: Floats, noise: Floats) -> tuple[Floats, Floats]:
    """The draws of weights that are likely, [W, S + 1], and their shares of the likelihood, [W]."""
    medians = np.array([PART] * (len(sums) - len(OTHERS)) + [*OTHERS, ERROR])
    dice = np.random.default_rng(0)
    draws = medians * np.exp(SPREAD * dice.standard_normal((WEIGHTS, len(medians))))
    likely = np.empty(len(draws))
    for place, (*parts, error) in enumerate(draws):
        gram = np.tensordot(np.array(parts), sums, 1) + 1.0
        gram[np.diag_indices_from(gram)] += error + noise
        factor = cholesky(gram, lower=True)
        solved = cho_solve((factor, True), target)
        likely[place] = -0.5 * target @ solved - np.log(np.diag(factor)).sum()
    shares = np.exp(likely - likely.max())
    shares /= shares.sum()
    kept = shares >= min(LEAST, shares.max())
    return draws[kept], shares[kept] / shares[kept].sum()


def _improvement(above: Floats, spread: Floats) -> Floats:
    """What is expected beyond 0 of normal variables with these means and deviations."""
    scaled = above / spread
    density = np.exp(-0.5 * scaled**2) / np.sqrt(2 * np.pi)
    return spread * (density + scaled * ndtr(scaled))


def _sums(kinds: Kinds, rows: Sequence[Values], count: int) -> tuple[Floats, Floats]:
    """The covariance by each sum alone, of the first rows with all, [S, count, R], and own, [S, R].

    Sums over all parts and over their pairs are divided by the number of parts.
    """
    names = [*dict.fromkeys(name for row in rows for name in row)]
    shape = (count, len(rows))

    def added(of: Sequence[str]) -> tuple[Floats, Floats]:
        total, own = np.zeros(shape), np.zeros(len(rows))
        for name in of:
            if name in names:
                total += alike(name)
                own += has(name)
        return total, own

    def alike(name: str) -> Floats:
        return _alike([row.get(name) for row in rows], count)

    def has(name: str) -> Floats:
        return np.array([float(name in row) for row in rows])

    pairs, own_pairs = np.zeros(shape), np.zeros(len(rows))
    for one, other in itertools.combinations([p for p in kinds.parts if p in names], 2):
        pairs += alike(one) * alike(other)
        own_pairs += has(one) * has(other)
    many = max(len(kinds.parts), 1)
    by_part = [added([part]) for part in kinds.parts]
    parts = sum((s for s, _ in by_part), np.zeros(shape)) / many
    own_parts = sum((own for _, own in by_part), np.zeros(len(rows))) / many
    shared, own_shared = added(kinds.shared)
    others = [name for name in names if name not in kinds.parts and name not in kinds.shared]
    settings, own_settings = added(others)
    shared_by_part, own_shared_by_part = shared * parts, own_shared * own_parts
    return (
        np.stack([*(s for s, _ in by_part), pairs / many, settings, shared, shared_by_part]),
        np.stack(
            [
                *(own for _, own in by_part),
                own_pairs / many, own_settings, own_shared, own_shared_by_part,
            ]
        ),
    )  # fmt: skip


def _alike(values: Sequence[object], count: int) -> Floats:
    """How alike the first values and all are, 0 where one is None, [count, R]."""
    if all(value is None or isinstance(value, float) for value in values):
        places = np.array([np.nan if value is None else value for value in values], dtype=float)
        apart = places[:count, None] - places[None]
        return np.nan_to_num(np.exp(-0.5 * (apart / REACH) ** 2), nan=0.0)
    numbers: dict[str, int] = {}
    codes = np.array(
        [-1 if value is None else numbers.setdefault(repr(value), len(numbers)) for value in values]
    )
    return ((codes[:count, None] == codes[None]) & (codes[:count, None] >= 0)).astype(np.float64)
