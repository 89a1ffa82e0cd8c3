"""Which settings mattered: parameter importances by functional ANOVA.

Hutter, Hoos, Leyton-Brown: An Efficient Approach for Assessing Hyperparameter Importance (ICML
2014), as Optuna has it. The share of the values' variance that a setting explains by itself, over
the space that all trials have in common. So a setting that only some trials have, since another
choice opened it, is judged among those alone, and never beside the ones that all trials have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from legoray.records import TrialRecord

FEWEST = 10  # trials, below which nothing is said
SHAKY = 30  # below which it is said with a warning
SEED = 0
TREES = 32
Value = str | int | float | bool | None


@dataclass(frozen=True)
class Target:
    """The trials that compare, and their values."""

    records: list[TrialRecord]
    values: list[float]
    words: str  # what the values are


@dataclass(frozen=True)
class Importance:
    """The shares of the settings that a group of trials has in common."""

    title: str  # which trials
    trials: int
    shares: dict[str, float]  # by path, the largest first; they add up to 1
    note: str = ""  # why there are none, or how far to trust them


def importances(
    records: Sequence[TrialRecord], select: str, distributions: Mapping[str, BaseDistribution]
) -> tuple[Target, list[Importance]]:
    """The importances among all trials, then among those of each choice that opens settings.

    Args:
        records: of the search.
        select: the metric whose values are explained.
        distributions: what each setting was drawn from, by path.
    """
    target = target_of(records, select)
    pairs = list(zip(target.records, target.values, strict=True))
    common = [path for path in _paths(target.records) if _everywhere(path, target.records)]
    found = [_importance("all trials", pairs, common, distributions)]
    for parent, choice, paths in _conditional(target.records, common):
        own = [pair for pair in pairs if str(pair[0].params.get(parent)) == choice]
        inside = [path for path in paths if _everywhere(path, [record for record, _ in own])]
        title = f"trials with {parent.rpartition('/')[2]} {choice}"
        found.append(_importance(title, own, inside, distributions))
    return target, found


def target_of(records: Sequence[TrialRecord], select: str) -> Target:
    """The values to explain: at the end of training, or as early as all trials were measured.

    Most trials of a search with early stopping never reach their end, and the few that do are the
    good ones: nothing could be learned of what made the others bad. So where trials were stopped,
    all are taken by their best value within the epochs that every one of them has.
    """
    usable = [r for r in records if r.status in ("completed", "pruned")]
    usable = [r for r in usable if math.isfinite(r.best.get(select, math.nan))]
    if all(r.status == "completed" for r in usable):
        return Target(usable, [r.best[select] for r in usable], f"validation {select}")
    least = min(len(r.epochs) for r in usable)
    if not least:
        usable = [r for r in usable if r.status == "completed"]
        return Target(usable, [r.best[select] for r in usable], f"validation {select}")
    from legoray.train.metrics import direction

    better = max if direction(select) == "max" else min
    rows = [[e.get(select, math.nan) for e in r.epochs[:least]] for r in usable]
    kept = [(r, [v for v in row if math.isfinite(v)]) for r, row in zip(usable, rows, strict=True)]
    kept = [(record, row) for record, row in kept if row]
    when = "the first epoch" if least == 1 else f"the first {least} epochs"
    words = f"validation {select} within {when}, which all trials have"
    return Target([record for record, _ in kept], [better(row) for _, row in kept], words)


def _importance(
    title: str,
    pairs: Sequence[tuple[TrialRecord, float]],
    paths: Sequence[str],
    distributions: Mapping[str, BaseDistribution],
) -> Importance:
    told = {path: distributions[path] for path in paths if path in distributions}
    told = {path: one for path, one in told.items() if not one.single()}
    varied = {path: one for path, one in told.items() if _varies(path, pairs)}
    if len(pairs) < FEWEST:
        return Importance(title, len(pairs), {}, f"too few: at least {FEWEST} are needed")
    if not varied:
        return Importance(title, len(pairs), {}, "nothing was varied among them")
    if len({value for _, value in pairs}) < 2:
        return Importance(title, len(pairs), {}, "all of them have the same value")
    note = f"few trials: read the order, not the shares (below {SHAKY})" * (len(pairs) < SHAKY)
    return Importance(title, len(pairs), _fanova(pairs, varied), note)


def _fanova(
    pairs: Sequence[tuple[TrialRecord, float]], varied: Mapping[str, BaseDistribution]
) -> dict[str, float]:
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study()
    for record, value in pairs:
        params = {path: record.params[path] for path in varied}
        study.add_trial(optuna.create_trial(params=params, distributions=dict(varied), value=value))
    judge = FanovaImportanceEvaluator(n_trees=TREES, seed=SEED)
    return {
        path: float(share) for path, share in get_param_importances(study, evaluator=judge).items()
    }


def _paths(records: Sequence[TrialRecord]) -> list[str]:
    return list(dict.fromkeys(path for record in records for path in record.params))


def _everywhere(path: str, records: Sequence[TrialRecord]) -> bool:
    return bool(records) and all(path in record.params for record in records)


def _varies(path: str, pairs: Sequence[tuple[TrialRecord, float]]) -> bool:
    return len({repr(record.params[path]) for record, _ in pairs}) > 1


def _conditional(
    records: Sequence[TrialRecord], common: Sequence[str]
) -> list[tuple[str, str, list[str]]]:
    """Choices that open settings of their own: path of the choice, its option, the settings.

    `model/content.cnn/kernel_size` is opened by `cnn` at `model/content`. Option names may hold
    dots themselves, so they are read from the trials and not from the path.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for path in _paths(records):
        if path in common:
            continue
        openers = [
            (parent, str(value))
            for record in records
            if path in record.params
            for parent, value in record.params.items()
            if path.startswith(f"{parent}.{value}/")
        ]
        if openers:
            found.setdefault(max(openers, key=lambda pair: len(pair[0])), []).append(path)
    return [(parent, choice, paths) for (parent, choice), paths in found.items()]


def inferred(records: Sequence[TrialRecord]) -> dict[str, BaseDistribution]:
    """Distributions as far as the trials' values tell, where the study's are not at hand."""
    found: dict[str, BaseDistribution] = {}
    for path in _paths(records):
        values = [record.params[path] for record in records if path in record.params]
        floats = [v for v in values if isinstance(v, float)]
        if len(floats) == len(values) and len(set(floats)) > 3:
            found[path] = FloatDistribution(min(floats), max(floats))
        else:
            found[path] = CategoricalDistribution(sorted(set(values), key=repr))
    return found
