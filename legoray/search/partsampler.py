"""A sampler for compositions: it adds up what every part and setting was worth so far.

Optuna's samplers model values by their names; where what a part offers depends on the others, few
trials share a name. Here whole configurations are drawn from the space, by chance and out of the
best so far, and the one that promises most is proposed (`legoray.search.worth`).

With several objectives each proposal weighs them by chance (ParEGO: Knowles 2006).
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna import Study
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from legoray.errors import InputError
from legoray.search.cma import Axis, cannot_be_trained
from legoray.search.draw import Draw
from legoray.search.notation import KINDS
from legoray.search.space import Space, suggest
from legoray.search.tree import Choice, Range
from legoray.search.worth import Floats, Kinds, Known, promise

PLAIN = "@"  # what follows it in a name tells narrowed choices and shares of ranges apart
BEST = 5  # trials that candidates are made of
KEEP = 0.7  # chance that such a candidate keeps a value
STEP = 0.15  # deviation of a number that it keeps, as a share of the range
TAIL = 0.05  # weight of the sum of all objectives beside the worst one
FEW = 20  # draws without a valid configuration, before a candidate is given up


class PartsSampler(BaseSampler):
    """Proposes what promises most among configurations drawn from a space."""

    def __init__(self, space: Space, *, seed: int, startup_trials: int, candidates: int) -> None:
        """A sampler whose state is in the study that it is asked about.

        Args:
            space: that configurations are drawn from.
            seed: of its draws.
            startup_trials: that must have shown a value before anything is learnt from them.
            candidates: configurations of which the most promising is proposed.
        """
        self._space = space
        self._dice = random.Random(seed)
        self._chance = RandomSampler(seed=seed)
        self._startup, self._candidates = startup_trials, candidates
        self._plan: dict[str, Any] = {}

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Draw the candidates, and choose one."""
        self._plan = {}
        if trial.system_attrs.get("fixed_params"):
            return
        rows = [row for row in study.get_trials(deepcopy=False) if row.number != trial.number]
        known = _known(study, rows, self._dice)
        if known is None or len(known.rows) < self._startup:
            return
        drawn = self._drawn(known, rows)
        if drawn:
            running = [_encoded(r) for r in rows if r.state == TrialState.RUNNING and r.params]
            shared = set.intersection(*(set(one.encoded) for one in drawn))
            kinds = Kinds(tuple(f"model/{k}" for k in KINDS), tuple(sorted(shared)))
            found = promise(kinds, known, running, [one.encoded for one in drawn])
            self._plan = drawn[int(np.argmax(found))].names

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The chosen configuration's value; by chance where there is none."""
        if param_name in self._plan:
            value = self._plan[param_name]
            if param_distribution._contains(param_distribution.to_internal_repr(value)):
                return value
        return self._chance.sample_independent(study, trial, param_name, param_distribution)

    def _drawn(self, known: Known, rows: Sequence[FrozenTrial]) -> list[Sketch]:
        """Valid configurations that have not been tried: by chance, then made of the best."""
        tried = {_key(_encoded(row)) for row in rows if row.params}
        best = [known.rows[n] for n in np.argsort(-known.values, kind="stable")[:BEST]]
        found = []
        for place in range(self._candidates):
            parent = best[self._dice.randrange(len(best))] if place % 2 else {}
            one = self._one(parent)
            if one is not None and (key := _key(one.encoded)) not in tried:
                tried.add(key)
                found.append(one)
        return found

    def _one(self, parent: Mapping[str, Any]) -> Sketch | None:
        for _ in range(FEW):
            sketch = Sketch(self._dice, parent)

            def pick(path: str, node: Choice | Range, sketch: Sketch = sketch) -> Any:
                return suggest(sketch, path, node)

            try:
                Draw(self._space, pick, {}).values()
            except InputError:
                continue
            return sketch
        return None


class Sketch:
    """Stands for a trial of Optuna: keeps some values of a parent, draws the others by chance."""

    def __init__(self, dice: random.Random, parent: Mapping[str, Any]) -> None:
        self._dice, self._parent = dice, parent
        self.names: dict[str, Any] = {}  # by the names that Optuna knows
        self.drawn: dict[str, BaseDistribution] = {}  # from what, by the same names
        self.encoded: dict[str, Any] = {}

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        kept = self._kept(name)
        matching = [one for one in choices if _label(one) == kept]
        value = matching[0] if matching else self._dice.choice(choices)
        return self._noted(name, value, CategoricalDistribution(choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        return int(self._number(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float:
        return float(self._number(name, FloatDistribution(low, high, log=log, step=step)))

    def _number(self, name: str, range_: IntDistribution | FloatDistribution) -> float:
        axis, kept = Axis(range_), self._kept(name)
        place = self._dice.random()
        if isinstance(kept, float):
            place = min(max(self._dice.gauss(kept, STEP), 0.0), 1.0)
        return float(self._noted(name, axis.value(place), range_))

    def _kept(self, name: str) -> Any:
        return self._parent.get(_plain(name)) if self._dice.random() < KEEP else None

    def _noted(self, name: str, value: Any, distribution: BaseDistribution) -> Any:
        self.names[name], self.drawn[name] = value, distribution
        if not distribution.single():
            self.encoded[_plain(name)] = _code(value, distribution)
        return value


def _known(study: Study, rows: Sequence[FrozenTrial], dice: random.Random) -> Known | None:
    """What the trials have shown; None before any has."""
    signs = np.array([1.0 if d == StudyDirection.MAXIMIZE else -1.0 for d in study.directions])
    single = len(signs) == 1
    shown = [row for row in rows if _shown(row, single) and row.params]
    if not shown:
        return None
    if single:
        values, errors = _at_the_end(shown, float(signs[0]))
    else:
        values, errors = _weighed(shown, signs, dice), np.zeros(len(shown))
    failed = [row for row in rows if row.params and cannot_be_trained(row)]
    worst = float(values.min())
    return Known(
        [_encoded(row) for row in (*shown, *failed)],
        np.append(values, np.full(len(failed), worst)),
        np.append(errors, np.zeros(len(failed))),
    )


def _shown(row: FrozenTrial, single: bool) -> bool:
    if row.state == TrialState.COMPLETE:
        return True
    return single and row.state == TrialState.PRUNED and bool(row.intermediate_values)


def _at_the_end(rows: Sequence[FrozenTrial], sign: float) -> tuple[Floats, Floats]:
    """What trials came or would have come to, and the variance of what is not known of it.

    One that was stopped is taken to go on as those did on average that were not.
    """
    curves = [_curve(row, sign) for row in rows]
    longest = max(len(curve) for curve in curves)
    mean, variance = np.zeros(longest + 1), np.zeros(longest + 1)
    for epoch in range(longest - 1, 0, -1):  # from the end: gains add up
        gains = [c[epoch] - c[epoch - 1] for c in curves if len(c) > epoch]
        mean[epoch] = mean[epoch + 1] + np.mean(gains)
        variance[epoch] = variance[epoch + 1] + np.var(gains)
    values, errors = [], []
    for row, curve in zip(rows, curves, strict=True):
        over = len(curve) if row.state == TrialState.PRUNED else longest
        values.append(curve[-1] + mean[over])
        errors.append(variance[over])
    return np.array(values), np.array(errors)


def _curve(row: FrozenTrial, sign: float) -> NDArray[np.float64]:
    """The best value up to each epoch, greater being better."""
    told = [sign * row.intermediate_values[e] for e in sorted(row.intermediate_values)]
    if row.state == TrialState.COMPLETE and row.value is not None and not told:
        told = [sign * row.value]
    return np.maximum.accumulate(np.array(told))


def _weighed(rows: Sequence[FrozenTrial], signs: Floats, dice: random.Random) -> Floats:
    """One value of several objectives: each scaled to [0, 1] and weighed by chance."""
    values = np.array([row.values for row in rows]) * signs
    low, high = values.min(0), values.max(0)
    scaled = (values - low) / np.where(high > low, high - low, 1.0)
    drawn = np.array([-math.log(1.0 - dice.random()) for _ in signs])
    weights = drawn / drawn.sum()
    missing = weights * (1.0 - scaled)  # of the best there is
    found = -(missing.max(1) + TAIL * missing.sum(1))
    over = np.array([sum(max(v, 0.0) for v in row.constraints.values()) for row in rows])
    return np.where(over > 0, found.min() - 1e-9, found)


def _encoded(row: FrozenTrial) -> dict[str, Any]:
    return {
        _plain(name): _code(value, row.distributions[name])
        for name, value in row.params.items()
        if not row.distributions[name].single()
    }


def _code(value: Any, distribution: BaseDistribution) -> Any:
    """A label as text, a number as its share of the range."""
    if isinstance(distribution, CategoricalDistribution):
        return _label(value)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return Axis(distribution).place(value)


def _label(value: Any) -> str:
    return repr(value)


def _plain(name: str) -> str:
    return name.partition(PLAIN)[0]


def _key(encoded: Mapping[str, Any]) -> str:
    return repr(sorted(encoded.items()))
