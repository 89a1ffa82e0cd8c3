"""`search.warm_start`: what earlier sweeps found, told to the sampler before a search begins.

*The same data.* Completed trials under the same fingerprint, protocol and metric are observations
like the search's own: those that this space can draw, epochs and all, are added to the study with
their values. The best three are also proposed first, so that they can win here too; where their
results may be reused, that costs nothing.

*Other data.* Their values say nothing here: an AUC of one data set is not above or below one of
another, and even ranks shift. What carries over is where good configurations lie (Feurer,
Springenberg and Hutter, AAAI 2015; Wistuba, Schilling and Schmidt-Thieme, DSAA 2015): they are
proposed first, in place of half the sampler's start by chance, and measured here. The best of each
sweep come in turn, by rank within it, newest sweep first. So a sweep on unlike data costs a few
trials and misleads nobody afterwards.

What is adopted is decided once: rows carry where they are from, and when all are in the study a
mark of it is written. A search that goes on adopts nothing more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from legoray.objectives import missing, values_of
from legoray.records import SweepInfo
from legoray.search.asktell import WARM, AskTell
from legoray.search.express import Expressed, NotInSpaceError, express
from legoray.train.metrics import direction
from legoray.zoo.history import Trial, earlier_trials

BEST = 3  # trials on the same data that are proposed again
MARK = "warm_start"  # the study's attribute that says what was adopted
REASONS = 3  # that are told of what does not fit
Say = Callable[[str], None]


@dataclass
class _Gathered:
    """What fits, and why the rest does not."""

    fitting: list[tuple[Trial, Expressed]]
    reasons: Counter[str]

    @property
    def total(self) -> int:
        return len(self.fitting) + sum(self.reasons.values())


def warm_start(study: AskTell, sweep: SweepInfo, folder: Path, tracking: str, say: Say) -> None:
    """Adopt what earlier sweeps found, once in a study's life, and say what it was.

    Args:
        study: of the search that is about to begin.
        sweep: its sweep.
        folder: of the sweep; others are looked for beside it.
        tracking: MLflow's address.
        say: told how many trials fit, and why others do not.
    """
    if MARK in study.study.user_attrs:
        return
    trials, problem = earlier_trials(sweep, folder, tracking)
    if problem:
        say(problem)
    alike = [one for one in trials if one.alike]
    own = _gather(study, alike, exactly=True)
    known = {row.user_attrs[WARM] for row in study.rows() if WARM in row.user_attrs}
    for trial, said in own.fitting:
        _add(study, trial, said, known)
    best = sorted(own.fitting, key=lambda pair: _rank(pair[0]))[:BEST]
    priors = _gather(study, [one for one in trials if not one.alike], exactly=False)
    starts = max(study.space.config.search.sampler.startup_trials // 2, 1)
    chosen = _in_turn(priors.fitting)[:starts]
    for trial, said in [*best, *chosen]:
        _propose(study, trial, said, known)
    lines = list(_told(own, len(best), priors, chosen))
    study.study.set_user_attr(MARK, lines)
    for line in lines or ["warm start: no earlier trials were found"]:
        say(line)


def _gather(study: AskTell, trials: Sequence[Trial], *, exactly: bool) -> _Gathered:
    """Of some trials those that the space can draw."""
    found = _Gathered([], Counter())
    for trial in trials:
        try:
            if exactly:
                _check_values(study, trial)
            found.fitting.append((trial, express(study.space, trial.config, exactly=exactly)))
        except NotInSpaceError as error:
            found.reasons[str(error)] += 1
    return found


def _check_values(study: AskTell, trial: Trial) -> None:
    wrong = missing(study.objectives, trial.best, trial.costs)
    if wrong:
        raise NotInSpaceError(wrong)
    values = values_of(study.objectives, trial.best, trial.costs)
    for one in study.objectives:
        sign = 1 if one.mode == "max" else -1
        if one.limit is not None and sign * (values[one.name] - one.limit) < 0:
            raise NotInSpaceError(f"its {one.name} is over the limit")


def _add(study: AskTell, trial: Trial, said: Expressed, known: set[str]) -> None:
    """An observation, unless an earlier process has added it."""
    if f"seen {trial.place}" in known:
        return
    values = values_of(study.objectives, trial.best, trial.costs)
    row = optuna.trial.create_trial(
        state=TrialState.COMPLETE,
        values=[values[one.name] for one in study.objectives],
        params=dict(said.params),
        distributions=said.distributions,
        user_attrs={WARM: f"seen {trial.place}"},
    )
    study.study.add_trial(row)


def _propose(study: AskTell, trial: Trial, said: Expressed, known: set[str]) -> None:
    if f"start {trial.place}" not in known:
        attrs = {WARM: f"start {trial.place}"}
        study.study.enqueue_trial(dict(said.params), user_attrs=attrs)


def _rank(trial: Trial) -> tuple[float, str]:
    """Best first; equals by where they are from."""
    sign = -1.0 if direction(trial.select) == "max" else 1.0
    return sign * trial.best[trial.select], trial.place


def _in_turn(fitting: Sequence[tuple[Trial, Expressed]]) -> list[tuple[Trial, Expressed]]:
    """The best of each sweep, then the second of each, the newest sweep first; each one once."""
    sweeps: dict[tuple[float, str], list[tuple[Trial, Expressed]]] = {}
    for pair in fitting:
        sweeps.setdefault((-pair[0].created, pair[0].sweep), []).append(pair)
    ordered = [sorted(sweeps[key], key=lambda pair: _rank(pair[0])) for key in sorted(sweeps)]
    found: list[tuple[Trial, Expressed]] = []
    for row in zip_longest(*ordered):
        for pair in row:
            if pair is not None and all(pair[1].params != other.params for _, other in found):
                found.append(pair)
    return found


def _told(
    own: _Gathered, best: int, priors: _Gathered, chosen: Sequence[tuple[Trial, Expressed]]
) -> Iterator[str]:
    if own.total:
        fit = f"{len(own.fitting)} of {own.total} earlier trials on these data fit this space"
        tried = f"; the best {best} are tried first" if best else ""
        yield f"warm start: {fit}{tried}"
        yield from _why_not(own.reasons)
    if priors.total:
        data = ", ".join(sorted({trial.data for trial, _ in chosen}))
        fit = f"{len(priors.fitting)} of {priors.total} trials on other data fit this space"
        tried = f"; the best {len(chosen)} (of {data}) are tried first" if chosen else ""
        yield f"warm start: {fit}{tried}"
        yield from _why_not(priors.reasons)


def _why_not(reasons: Mapping[str, int]) -> Iterator[str]:
    listed = sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    for reason, count in listed[:REASONS]:
        yield f"  {count} do not fit: {reason}"
    rest = sum(count for _, count in listed[REASONS:])
    if rest:
        yield f"  {rest} do not fit for other reasons"


def warm_started(study: AskTell) -> list[Any]:
    """What a study has adopted, in words; empty where it has adopted nothing."""
    return list(study.study.user_attrs.get(MARK, []))
