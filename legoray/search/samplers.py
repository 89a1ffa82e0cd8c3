"""Who proposes: the samplers by name, and whether they fit a space.

| name | what | learns from | several objectives |
| --- | --- | --- | --- |
| `tpe` | Parzen estimators over groups of values that occur together (Bergstra et al. 2011; Falkner et al. 2018) | completed and stopped trials | yes |
| `parts` | a Gaussian process that adds up what parts and settings are worth (`partsampler`) | completed and stopped trials | yes |
| `random` | chance | nothing | yes |
| `grid` | every configuration once | nothing | yes |
| `gp` | a Gaussian process, log expected improvement (Ament et al. 2023) | completed trials | yes |
| `nsga2` | a genetic algorithm (Deb et al. 2002) | completed trials | yes |
| `nsga3` | the same with reference directions (Deb and Jain 2014) | completed trials | only |
| `cmaes` | an evolution strategy (Hansen 2016; with margin: Hamano et al. 2022) | all that have ended | no |

`gp`, `nsga2` and `nsga3` model the values that every configuration of a space has, `cmaes` the
numbers among them. What else there is, they leave to another sampler, and that is said.
"""  # noqa: E501

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from optuna.distributions import (
    BaseDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)

from legoray.errors import Problem
from legoray.search.cma import CmaSampler, Number
from legoray.search.partsampler import PartsSampler, Sketch
from legoray.search.space import Rejected, Space
from legoray.spaceconfig import SAMPLER_SETTINGS, SamplerConfig

DRAWS = 200  # configurations that are looked at to see which values all of them have
POPULATION = 10  # of a genetic algorithm: searches are of tens of trials, not of thousands
PARZEN, PROMISING = 24, 300  # candidates of `tpe` and `parts`
MOST_NAMED = 6
PARTIAL = ("gp", "nsga2", "nsga3", "cmaes")  # they model what every configuration has


@dataclass(frozen=True)
class Values:
    """What is searched in a space, by the names that Optuna knows."""

    shared: Mapping[str, BaseDistribution]  # every configuration has them
    others: tuple[str, ...]  # some configurations have them

    def numbers(self) -> dict[str, Number]:
        """The numbers that every configuration has."""
        kinds = (FloatDistribution, IntDistribution)
        return {name: d for name, d in self.shared.items() if isinstance(d, kinds)}


def values_in(space: Space, draws: int = DRAWS) -> Values:
    """Which values all of some drawn configurations have, those of one single value left out."""
    dice = random.Random(0)
    shared: dict[str, BaseDistribution] | None = None
    every: dict[str, None] = {}
    for _ in range(draws):
        note = Sketch(dice, {})
        try:
            space.sample(note)
        except Rejected:
            continue
        found = {name: d for name, d in note.drawn.items() if not d.single()}
        every |= dict.fromkeys(found)
        shared = found if shared is None else {n: d for n, d in shared.items() if found.get(n) == d}
    shared = shared or {}
    return Values(shared, tuple(name for name in every if name not in shared))


def make_sampler(
    config: SamplerConfig, seed: int, space: Space, numbers: Mapping[str, Number] | None = None
) -> BaseSampler:
    """The sampler that a configuration names. What a grid proposes is all enqueued beforehand.

    Args:
        config: its name and settings.
        seed: of its random numbers.
        space: that is searched.
        numbers: that every configuration of the space has, for `cmaes`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if config.name == "tpe":
            return TPESampler(
                multivariate=True,
                group=True,
                constant_liar=True,
                seed=seed,
                n_startup_trials=config.startup_trials,
                n_ei_candidates=config.candidates or PARZEN,
            )
        if config.name == "parts":
            return PartsSampler(
                space,
                seed=seed,
                startup_trials=config.startup_trials,
                candidates=config.candidates or PROMISING,
            )
        if config.name == "gp":
            return GPSampler(
                seed=seed,
                n_startup_trials=config.startup_trials,
                independent_sampler=_rest(config, seed),
                warn_independent_sampling=False,
            )
        if config.name in ("nsga2", "nsga3"):
            return _genetic(config, seed)
        if config.name == "cmaes":
            return CmaSampler(
                numbers or {},
                seed=seed,
                startup_trials=config.startup_trials,
                population=config.population,
                sigma=config.sigma,
                rest=_rest(config, seed),
            )
        return RandomSampler(seed=seed)


def _rest(config: SamplerConfig, seed: int) -> BaseSampler:
    """Who draws, one by one, what another sampler cannot model."""
    if config.rest == "random":
        return RandomSampler(seed=seed)
    return TPESampler(multivariate=False, seed=seed, n_startup_trials=config.startup_trials)


def _genetic(config: SamplerConfig, seed: int) -> BaseSampler:
    common: dict[str, Any] = {
        "population_size": config.population or POPULATION,
        "mutation_prob": config.mutation,
        "crossover_prob": config.crossover,
        "seed": seed,
    }
    if config.name == "nsga2":
        return NSGAIISampler(**common)
    return NSGAIIISampler(**common, dividing_parameter=config.divisions)


def sampler_problems(space: Space) -> list[Problem]:
    """Why a space's sampler cannot search it, with those that can."""
    reason = _misfit(space, space.config.search.sampler.name)
    if not reason:
        return []
    fitting = [name for name in SAMPLER_SETTINGS if name != "grid" and not _misfit(space, name)]
    where = space.document.where(("search", "sampler"))
    return [Problem(where, reason, f"samplers that fit: {', '.join(fitting)}")]


def _misfit(space: Space, name: str) -> str:
    several = len(space.config.search.objectives) > 1
    if name == "cmaes" and several:
        return "cmaes has one objective, and the space has several"
    if name == "nsga3" and not several:
        return "nsga3 spreads trials over several objectives, and the space has one"
    if name == "cmaes" and not values_in(space).numbers():
        return "cmaes draws numbers that every configuration has, and the space has no such"
    if name in PARTIAL and not values_in(space).shared:
        return f"{name} models values that every configuration has, and the space has no such"
    return ""


def sampler_notes(space: Space) -> list[str]:
    """What a person should know of how the sampler will search a space."""
    search = space.config.search
    config, trials = search.sampler, search.trial_limit
    notes = []
    if config.name in PARTIAL:
        notes += _split_notes(values_in(space), config)
    if config.name in ("gp", "nsga2", "nsga3") and search.scheduler.name != "none":
        told = f"{config.name} learns from trials that ran to their end, not from those that"
        notes.append(f"sampler: {told} {search.scheduler.name} stops; tpe learns from both")
    chance = config.startup_trials
    if config.name in ("nsga2", "nsga3"):
        chance = config.population or POPULATION
    if trials is not None and config.name not in ("random", "grid") and chance >= trials:
        told = f"{config.name} draws its first {chance} trials at random"
        notes.append(f"sampler: {told}, and the search has {trials}")
    return notes


def _split_notes(values: Values, config: SamplerConfig) -> list[str]:
    """Which values the sampler models, and who draws the others."""
    own = list(values.numbers() if config.name == "cmaes" else values.shared)
    others = [name for name in (*values.shared, *values.others) if name not in own]
    if not others:
        return []
    alone = "at random" if config.name in ("nsga2", "nsga3") or config.rest == "random" else ""
    drawn = alone or f"by {config.rest}, each by itself"
    return [
        f"sampler: {config.name} models {_named(own)}; {_named(others)} "
        f"{'is' if len(others) == 1 else 'are'} drawn {drawn}"
    ]


def _named(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    text = ", ".join(names[:MOST_NAMED])
    return f"{text} and {more} more" if more > 0 else text


def numbers_in(space: Space) -> dict[str, Number]:
    """The numbers that `cmaes` draws in a space; none for another sampler."""
    if space.config.search.sampler.name != "cmaes":
        return {}
    return cast(dict[str, Number], values_in(space).numbers())
