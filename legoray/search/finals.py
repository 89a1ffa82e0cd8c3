"""After the search: the best models trained anew on other seeds, and measured once on the test."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from legoray.objectives import objectives_of
from legoray.records import TrialRecord
from legoray.search.pareto import front, spread
from legoray.search.sweep import Sweep, trial_key
from legoray.spaceconfig import FinalConfig
from legoray.zoo.fields import config_key

if TYPE_CHECKING:
    from legoray.search.space import Space


@dataclass(frozen=True)
class Final:
    """A training whose configuration is known: its key, and what the search chose in it."""

    key: str
    config: dict[str, Any]
    params: dict[str, Any] = field(default_factory=dict)


def ranked(records: list[TrialRecord], select: str, mode: str) -> list[TrialRecord]:
    """Trials of the search by their best validation value, best first.

    Trials that ran to their end come before those that were stopped: a stopped one was behind.
    """
    usable = [
        r
        for r in records
        if r.phase == "search"
        and r.status in ("completed", "pruned")
        and math.isfinite(r.best.get(select, math.nan))
    ]
    sign = -1.0 if mode == "max" else 1.0
    return sorted(usable, key=lambda r: (r.status != "completed", sign * r.best[select], r.number))


def finals_of(sweep: Sweep, plan: FinalConfig, select: str, mode: str) -> list[Final]:
    """The final trainings: the best `top` configurations, each on `seeds` seeds of its own.

    With `each: content` the best `top` of every content operator, so that operators compare on the
    test split; with `each: preset`, of every preset. The seeds are not the search's: the seed that
    won was lucky more often than not.

    With several objectives members of the Pareto front take the place of the best: `top` of them
    that lie far apart, the best of the first objective among them.
    """
    found: list[Final] = []
    taken: Counter[str] = Counter()
    for record in _finalists(sweep, plan, select, mode):
        kind = _group(record, plan)
        taken[kind] += 1
        if taken[kind] > plan.top:
            continue
        for number in range(1, plan.seeds + 1):
            config = {**record.config, "seed": int(record.config["seed"]) + number}
            found.append(Final(trial_key(config, sweep.info), config, record.params))
    return found


def _finalists(sweep: Sweep, plan: FinalConfig, select: str, mode: str) -> list[TrialRecord]:
    """Trials in the order in which they become final ones, as long as there is room for them."""
    best = {r.key: r for r in reversed(ranked(sweep.of("search"), select, mode))}
    records = list(reversed(best.values()))
    objectives = objectives_of(sweep.info.objectives, select)
    if len(objectives) < 2:
        return records
    groups: dict[str, list[TrialRecord]] = {}
    for record in records:
        groups.setdefault(_group(record, plan), []).append(record)
    fronts = (front(members, objectives) for members in groups.values())
    return [record for members in fronts for record in spread(members, objectives, plan.top)]


def _group(record: TrialRecord, plan: FinalConfig) -> str:
    """What a trial competes within."""
    if plan.each == "all":
        return ""
    model = record.config["model"]
    return str(model.get("preset", "") if plan.each == "preset" else model["content"]["name"])


def count_groups(space: Space, plan: FinalConfig) -> int:
    """Within how many groups the trials of a space compete for the finals."""
    if plan.each == "preset" and space.presets is not None:
        return len(space.presets.options)
    return len(space.fits.parts["content"]) if plan.each == "content" else 1


@dataclass(frozen=True)
class Summary:
    """One composition's final trainings together."""

    label: str
    config: str  # a digest of the configuration without its seed, and of the texts read
    chosen: dict[str, Any]  # what the search chose, by path
    seeds: int
    mean: dict[str, float]
    std: dict[str, float]  # sample standard deviation; 0 for one seed
    valid: float


def summaries(sweep: Sweep, select: str) -> list[Summary]:
    """Mean and standard deviation over the seeds of each configuration that was tested."""
    return [_summary(name, records, select) for name, records in final_groups(sweep).items()]


def final_groups(sweep: Sweep) -> dict[str, list[TrialRecord]]:
    """Completed final trainings by their configuration without its seed, and the texts read."""
    groups: dict[str, list[TrialRecord]] = {}
    for record in sweep.of("final"):
        if record.status == "completed":
            groups.setdefault(config_key(record), []).append(record)
    return groups


def valid_of(records: list[TrialRecord], select: str) -> float:
    """The mean of a configuration's best validation values over its seeds."""
    return statistics.fmean(r.best.get(select, math.nan) for r in records)


def _summary(name: str, records: list[TrialRecord], select: str) -> Summary:
    shared = set.intersection(*(set(r.test) for r in records))
    columns = {m: [r.test[m] for r in records] for m in sorted(shared)}
    return Summary(
        label=records[0].label,
        config=name,
        chosen=records[0].params,
        seeds=len(records),
        mean={m: statistics.fmean(values) for m, values in columns.items()},
        std={m: _spread(values) for m, values in columns.items()},
        valid=valid_of(records, select),
    )


def _spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def winner(sweep: Sweep, select: str, mode: str) -> TrialRecord | None:
    """The model to keep: chosen by validation alone.

    Of the configurations that were trained anew, the one with the best mean over its seeds, and of
    it the best seed; without final trainings, the best trial of the search.
    """
    sign = -1.0 if mode == "max" else 1.0
    groups = final_groups(sweep)
    scored = [(valid_of(records, select), records) for records in groups.values()]
    scored = [(value, records) for value, records in scored if math.isfinite(value)]
    if not scored:
        return next(iter(ranked(sweep.of("search"), select, mode)), None)
    _, records = min(scored, key=lambda pair: sign * pair[0])
    return min(records, key=lambda r: sign * r.best[select])
