"""CMA-ES as a sampler of Optuna, over the numbers that every configuration of a space has.

Optuna's own keeps a pickle of its state in the journal, which whoever opens the journal would load.
This one keeps what it asked for beside each trial, and makes its state anew by replaying the ended
trials, so that a search goes on exactly where it was and files of others cannot run anything.

The distribution is `cmaes.CMAwM`, CMA-ES with margin (Hamano et al., GECCO 2022), since numbers
with steps would else collapse to one value early. It learns from order alone, so that what a
scheduler stopped counts behind what ran to its end, and what failed behind that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from cmaes import CMAwM
from numpy.typing import NDArray
from optuna import Study
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

Vector = NDArray[np.float64]
Number = FloatDistribution | IntDistribution
GENERATION, POINT = "legoray-cma:generation", "legoray-cma:point"


class CmaSampler(BaseSampler):
    """Draws numbers by CMA-ES, and all else by another sampler."""

    def __init__(
        self,
        numbers: Mapping[str, Number],
        *,
        seed: int,
        startup_trials: int,
        population: int | None,
        sigma: float,
        rest: BaseSampler,
    ) -> None:
        """A sampler whose state is in the study that it is asked about.

        Args:
            numbers: what it draws, by name; every configuration must have them.
            seed: of its draws.
            startup_trials: that must have ended before the first generation.
            population: trials of a generation; 4 + 3 ln(len(numbers)) where it is not given.
            sigma: standard deviation of the first generation, as a share of each range.
            rest: draws what is no such number, and everything before there is a generation.
        """
        self._axes = {name: Axis(one) for name, one in sorted(numbers.items())}
        self._dice = np.random.default_rng(seed)
        self._startup, self._rest = startup_trials, rest
        self._population, self._sigma = population, sigma

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {name: axis.distribution for name, axis in self._axes.items()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next point of the generation that is not full yet."""
        rows = [row for row in study.get_trials(deepcopy=False) if _counts(row)]
        if len(rows) < self._startup:
            return {}
        state = self._replayed(rows, study.direction)
        state.reseed_rng(int(self._dice.integers(2**32)))
        encoded, point = state.ask()
        for name, value in ((GENERATION, state.generation), (POINT, point.tolist())):
            study._storage.set_trial_system_attr(trial._trial_id, name, value)
        return self._decoded(encoded)

    def _decoded(self, point: Vector) -> dict[str, Any]:
        pairs = zip(self._axes.items(), point, strict=True)
        return {name: axis.value(float(place)) for (name, axis), place in pairs}

    def _replayed(self, rows: Sequence[FrozenTrial], direction: StudyDirection) -> CMAwM:
        """The distribution after all generations that are full."""
        state = CMAwM(
            mean=np.full(len(self._axes), 0.5),
            sigma=self._sigma,
            bounds=np.tile([0.0, 1.0], (len(self._axes), 1)),
            steps=np.array([axis.step for axis in self._axes.values()]),
            population_size=self._population,
        )
        while True:
            members = [r for r in rows if r.system_attrs.get(GENERATION) == state.generation]
            members.sort(key=lambda r: (r.datetime_complete, r.number))  # the same in each replay
            members = members[: state.population_size]
            if len(members) < state.population_size:
                return state
            members.sort(key=lambda r: (*_loss(r, direction), r.number))
            state.tell([(self._point(row), float(rank)) for rank, row in enumerate(members)])

    def _point(self, row: FrozenTrial) -> Vector:
        """Where a trial lies: as it was drawn, or where its values were given, by them."""
        drawn = np.array(row.system_attrs[POINT])
        given = self._decoded(np.clip(drawn, 0.0, 1.0))
        for place, (name, axis) in enumerate(self._axes.items()):
            if name in row.params and row.params[name] != given[name]:
                drawn[place] = axis.place(row.params[name])
        return drawn

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._rest.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._rest.before_trial(study, trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self._rest.after_trial(study, trial, state, values)


class Axis:
    """A number's range as [0, 1]."""

    def __init__(self, distribution: Number) -> None:
        self.distribution = distribution
        low, high = float(distribution.low), float(distribution.high)
        self._whole = isinstance(distribution, IntDistribution)
        self._log = distribution.log
        self._low, self._high = (math.log(low), math.log(high)) if self._log else (low, high)
        size = 0.0 if self._log or distribution.step is None else float(distribution.step)
        self.step = size / (self._high - self._low)  # 0: continuous

    def value(self, place: float) -> int | float:
        """The value at a place; what lies between two steps goes to the nearer one."""
        found = self._low + place * (self._high - self._low)
        found = math.exp(found) if self._log else found
        low, high = self.distribution.low, self.distribution.high
        if self.distribution.step is not None and not self._log:
            found = low + round((found - low) / self.distribution.step) * self.distribution.step
        found = min(max(found, low), high)
        return round(found) if self._whole else float(found)

    def place(self, value: float) -> float:
        """The place of a value."""
        scaled = math.log(value) if self._log else float(value)
        return (scaled - self._low) / (self._high - self._low)


def _counts(row: FrozenTrial) -> bool:
    """Whether a trial has shown how good it is, or that it cannot be trained."""
    return row.state in (TrialState.COMPLETE, TrialState.PRUNED) or cannot_be_trained(row)


def cannot_be_trained(row: FrozenTrial) -> bool:
    """Whether a trial has shown that it fails wherever it runs, unlike one that was interrupted."""
    told = row.user_attrs.get("outcome") in ("infeasible", "failed")
    return row.state == TrialState.FAIL and told


def _loss(row: FrozenTrial, direction: StudyDirection) -> tuple[int, float]:
    """What trials are ordered by: how they ended, then their value."""
    if row.state == TrialState.FAIL or row.value is None:
        return 2, 0.0
    sign = -1.0 if direction == StudyDirection.MAXIMIZE else 1.0
    return int(row.state == TrialState.PRUNED), sign * row.value
