"""Leaderboards as plain data: which numbers may stand in one ranking, and in what order.

Two numbers compare only where data, fingerprint, protocol and the selecting metric are equal; each
such group is a board of its own. Order follows validation alone; the test's numbers of the finals
stand beside it, as mean and standard deviation over their seeds.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from legoray.objectives import Objective, objectives_of, on_front, values_of
from legoray.records import Metrics, SweepInfo, TrialRecord
from legoray.spaceconfig import ObjectiveConfig
from legoray.zoo import fields
from legoray.zoo.slicetable import totals

OPERATORS = ("model/preset", "model/content", "model/behavior", "model/predictor")
DESCRIBED = ("preset", "content", "behavior", "predictor", "language_model", "text")
RANKED = ("completed", "pruned")


@dataclass(frozen=True)
class Entry:
    """One measured training, wherever it was read from."""

    data: str
    title: str
    synthetic: bool
    fingerprint: str
    protocol: str  # JSON
    select: str
    sweep: str
    number: int
    phase: str
    label: str
    config: str  # equal for all seeds of one configuration
    chosen: Mapping[str, Any]
    status: str
    reason: str
    best: Metrics
    test: Metrics
    costs: Metrics
    model: Mapping[str, str] = field(default_factory=dict)  # as `fields.described`
    reads: str = ""  # as `fields.reads_text`
    objectives: tuple[Objective, ...] = ()  # of the sweep, where it has several
    ties: str = ""  # letters: on the test, models that share one are a tie

    def group(self) -> tuple[str, ...]:
        """Equal where numbers compare."""
        return (self.data, self.fingerprint, self.protocol, self.select)


@dataclass(frozen=True)
class Spread:
    """A number over several seeds."""

    mean: float
    std: float | None  # sample standard deviation; None for a single seed
    seeds: int


@dataclass(frozen=True)
class Row:
    """One configuration. `rank` is None for what was not measured to its end, and for baselines."""

    rank: int | None
    label: str
    settings: str
    sweep: str
    trial: int
    valid: Metrics
    test: dict[str, Spread]
    costs: Metrics
    status: str
    reason: str
    baseline: bool = False
    model: Mapping[str, str] = field(default_factory=dict)
    ties: str = ""  # letters: on the test, rows that share one are a tie
    pareto: bool = False  # on the front of its sweep's objectives


@dataclass(frozen=True)
class Board:
    """All that was measured on one data set under one protocol."""

    data: str
    title: str
    synthetic: bool
    fingerprint: str
    protocol: dict[str, Any]
    select: str
    metrics: list[str]  # the selecting one first
    rows: list[Row]
    baselines: list[Row] = field(default_factory=list)
    objectives: tuple[Objective, ...] = ()  # of all sweeps with several, in order


def entry_of_record(record: TrialRecord, sweep: SweepInfo) -> Entry:
    """A trial as the sweep's folder has it."""
    return Entry(
        data=sweep.data,
        title=sweep.data_title or sweep.data,
        synthetic=sweep.synthetic,
        fingerprint=sweep.fingerprint,
        protocol=json.dumps(sweep.protocol, sort_keys=True),
        select=sweep.select,
        sweep=sweep.name,
        number=record.number,
        phase=record.phase,
        label=record.label,
        config=fields.config_key(record),
        chosen=record.params,
        status=record.status,
        reason=record.reason,
        best=_measured(record.best),
        test=record.test,
        costs=record.costs,
        model=fields.described(record),
        reads=fields.reads_text(record),
        objectives=_several(sweep.objectives, sweep.select),
    )


def entry_of_run(tags: Mapping[str, str], metrics: Metrics) -> Entry:
    """A trial as MLflow has it."""

    def named(group: str) -> Metrics:
        return {fields.metric_name(k): v for k, v in metrics.items() if k.startswith(f"{group}/")}

    return Entry(
        data=tags.get("data", ""),
        title=tags.get("data_title", ""),
        synthetic=tags.get("synthetic") == "yes",
        fingerprint=tags.get("fingerprint", ""),
        protocol=tags.get("protocol", "{}"),
        select=tags.get("select", ""),
        sweep=tags.get("sweep", ""),
        number=int(tags.get(fields.NUMBER, -1)),
        phase=tags.get("phase", ""),
        label=tags.get(fields.LABEL) or tags.get("composition", ""),
        config=tags.get(fields.CONFIG_KEY, ""),
        chosen=_json(tags.get(fields.CHOSEN, "{}")),
        status=tags.get("status", ""),
        reason=tags.get("reason", ""),
        best=_measured(named("best")),
        test=named("test"),
        costs=named("cost"),
        model={name: tags[name] for name in DESCRIBED if name in tags},
        reads=tags.get("reads", ""),
        objectives=_several(_objectives(tags.get(fields.OBJECTIVES, "[]")), tags.get("select", "")),
    )


def _several(configs: Sequence[ObjectiveConfig], select: str) -> tuple[Objective, ...]:
    """The objectives of a sweep that has several; none of one that has one."""
    return objectives_of(configs, select) if len(configs) > 1 else ()


def _objectives(text: str) -> list[ObjectiveConfig]:
    """What `fields.objectives_text` wrote; none where somebody else wrote it."""
    try:
        return [ObjectiveConfig.model_validate(one) for one in json.loads(text)]
    except (ValueError, TypeError):
        return []


def make_boards(entries: Iterable[Entry]) -> list[Board]:
    """One board for each group of numbers that compare."""
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.group(), []).append(entry)
    return [_board(members) for members in groups.values()]


def settings_text(chosen: Mapping[str, Any]) -> str:
    """What the search chose, short: `split=5 rank=8 learning_rate=0.0012`.

    The operators' names are left out, for the composition says them. A name that two parts share
    is told apart by its part.
    """
    paths = {path: value for path, value in chosen.items() if path not in OPERATORS}
    last = [path.rpartition("/")[2] for path in paths]
    words = []
    for path, value in paths.items():
        name = path.rpartition("/")[2]
        if last.count(name) > 1 and path.count("/") > 1:
            name = f"{path.split('/')[1].partition('.')[0]}.{name}"
        words.append(f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}")
    return " ".join(words)


def _told_apart(entries: list[Entry]) -> list[Entry]:
    """The same, where models of equal settings read different texts with these texts said."""
    texts: dict[tuple[str, str], set[str]] = {}
    for entry in entries:
        texts.setdefault((entry.label, settings_text(entry.chosen)), set()).add(entry.reads)
    return [
        replace(entry, chosen={**entry.chosen, "reads": entry.reads})
        if len(texts[entry.label, settings_text(entry.chosen)] - {""}) > 1 and entry.reads
        else entry
        for entry in entries
    ]


def _board(entries: list[Entry]) -> Board:
    entries = _told_apart(entries)
    first = entries[0]
    finals: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.phase == "final":
            finals.setdefault(entry.config, []).append(entry)
    searched = sorted((e for e in entries if e.phase == "search"), key=_order)
    best = _on_fronts(searched)
    rows: list[Row] = []
    for entry in searched:
        own = finals.pop(entry.config, [])
        rank = len(rows) + 1 if _ranked(entry) else None
        rows.append(replace(_row(entry, rank, entry.best, own), pareto=entry in best))
    rows += [_row(own[0], None, _mean([e.best for e in own]), own) for own in finals.values()]
    return Board(
        data=first.data,
        title=first.title or first.data,
        synthetic=first.synthetic,
        fingerprint=first.fingerprint,
        protocol=_json(first.protocol),
        select=first.select,
        metrics=_metric_names(entries),
        rows=rows,
        baselines=_baselines(entries),
        objectives=tuple(dict.fromkeys(one for entry in entries for one in entry.objectives)),
    )


def _on_fronts(searched: list[Entry]) -> list[Entry]:
    """The members of the Pareto front of each sweep that has several objectives."""
    found: list[Entry] = []
    for sweep, objectives in dict.fromkeys((e.sweep, e.objectives) for e in searched):
        kept = [
            e
            for e in searched
            if (e.sweep, e.objectives) == (sweep, objectives) and e.status == "completed"
        ]
        if objectives:
            marks = on_front([values_of(objectives, e.best, e.costs) for e in kept], objectives)
            found += [entry for entry, mark in zip(kept, marks, strict=True) if mark]
    return found


def _baselines(entries: list[Entry]) -> list[Row]:
    labels: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.phase == "baseline":
            labels.setdefault(entry.label, []).append(entry)
    return [_row(own[0], None, _mean([e.best for e in own]), own) for own in labels.values()]


def _row(entry: Entry, rank: int | None, valid: Metrics, tested: list[Entry]) -> Row:
    return Row(
        rank=rank,
        label=entry.label,
        settings=settings_text(entry.chosen),
        sweep=entry.sweep,
        trial=entry.number,
        valid=valid,
        test=_spreads([e.test for e in tested if e.test]),
        costs=entry.costs,
        status=entry.status,
        reason=entry.reason,
        baseline=entry.phase == "baseline",
        model=entry.model,
        ties=next((e.ties for e in tested if e.ties), ""),
    )


def _ranked(entry: Entry) -> bool:
    return entry.status in RANKED and math.isfinite(entry.best.get(entry.select, math.nan))


def _order(entry: Entry) -> tuple[bool, bool, float, int]:
    """Measured before unmeasured, whole before stopped early, then by the selecting metric."""
    value = entry.best.get(entry.select, math.nan)
    sign = -1.0 if fields.greater_is_better(entry.select) else 1.0
    known = sign * value if math.isfinite(value) else math.inf
    return (not _ranked(entry), entry.status != "completed", known, entry.number)


def _metric_names(entries: list[Entry]) -> list[str]:
    select = entries[0].select
    names = dict.fromkeys(name for e in entries for name in totals({**e.best, **e.test}))
    asked = str(_json(entries[0].protocol).get("metrics", "")).split(",")
    known = [name for name in asked if name in names]
    return list(dict.fromkeys([select, *known, *sorted(names)]))


def _measured(best: Metrics) -> Metrics:
    """The metrics alone of an epoch's report."""
    keys = {fields.metric_key("valid", name): name for name in best}
    return {keys[k]: v for k, v in fields.epoch_metrics(best).items() if k.startswith("valid/")}


def _spreads(measured: list[Metrics]) -> dict[str, Spread]:
    columns: dict[str, list[float]] = {}
    for metrics in measured:
        for name, value in metrics.items():
            columns.setdefault(name, []).append(value)
    return {
        name: Spread(
            statistics.fmean(values),
            statistics.stdev(values) if len(values) > 1 else None,
            len(values),
        )
        for name, values in columns.items()
    }


def _mean(measured: list[Metrics]) -> Metrics:
    return {name: spread.mean for name, spread in _spreads(measured).items()}


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {"": text}
    return found if isinstance(found, dict) else {"": text}
