"""The completed trials of earlier sweeps, on any data: of folders beside a sweep's, of MLflow."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from legoray.config import TrialConfig
from legoray.errors import InputError
from legoray.records import Metrics, SweepInfo, read_trials
from legoray.zoo import fields
from legoray.zoo.earlier import folders_beside
from legoray.zoo.store import SQLITE, all_runs, open_zoo, resolve_uri


@dataclass(frozen=True)
class Trial:
    """One configuration, and what came of it."""

    place: str  # of which sweep and number; no two trials share it
    sweep: str
    created: float  # when the trial began, or its sweep
    data: str
    alike: bool  # whether its values compare with those of the sweep that asks
    select: str
    config: dict[str, Any]
    best: Metrics
    costs: Metrics


def earlier_trials(sweep: SweepInfo, folder: Path, tracking: str) -> tuple[list[Trial], str]:
    """What was searched before, each training once, and why MLflow could not be asked.

    Parts of one's own are left in: whether a space has them is its own matter.

    Args:
        sweep: that asks.
        folder: its own.
        tracking: MLflow's address; one question is asked there.
    """
    found = {trial.place: trial for trial in _beside(sweep, folder)}
    problem = ""
    try:
        for trial in _runs(sweep, tracking):
            found.setdefault(trial.place, trial)
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        problem = f"warm start: {tracking} cannot be asked: {first[:200]}"
    return [found[place] for place in sorted(found)], problem


def _alike(sweep: SweepInfo, fingerprint: str, protocol: Mapping[str, Any], select: str) -> bool:
    ours = (sweep.fingerprint, dict(sweep.protocol), sweep.select)
    return ours == (fingerprint, dict(protocol), select)


def _beside(sweep: SweepInfo, folder: Path) -> Iterable[Trial]:
    for place, info in folders_beside(folder):
        try:
            records = read_trials(place)
        except InputError:
            continue
        for record in records:
            if record.phase != "search" or record.status != "completed" or record.reused:
                continue
            if math.isfinite(record.best.get(info.select, math.nan)):
                yield Trial(
                    place=f"{info.id}/{record.number}",
                    sweep=info.id,
                    created=info.created,
                    data=info.data,
                    alike=_alike(sweep, info.fingerprint, info.protocol, info.select),
                    select=info.select,
                    config=record.config,
                    best=record.best,
                    costs=record.costs,
                )


def _runs(sweep: SweepInfo, tracking: str) -> Iterable[Trial]:
    uri = resolve_uri(tracking)
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).is_file():
        return
    client = open_zoo(uri)
    experiments = [str(e.experiment_id) for e in client.search_experiments()]
    where = f"tags.`{fields.KIND}` = 'trial' and tags.phase = 'search'"
    where += " and tags.status = 'completed'"
    for run in all_runs(client, experiments, where):
        tags, metrics = run.data.tags, run.data.metrics
        select, own = tags.get("select", ""), tags.get(fields.SWEEP, "")
        best, costs = _named(metrics, "best"), _named(metrics, "cost")
        config = config_of(run.data.params)
        known = math.isfinite(best.get(select, math.nan)) and tags.get("reused") != "yes"
        if config is None or not known or own == sweep.id:
            continue
        yield Trial(
            place=f"{own}/{tags.get(fields.NUMBER)}",
            sweep=own,
            created=run.info.start_time / 1000,
            data=tags.get("data", ""),
            alike=_alike(sweep, tags.get("fingerprint", ""), _json(tags.get("protocol")), select),
            select=select,
            config=config,
            best=best,
            costs=costs,
        )


def config_of(params: Mapping[str, str]) -> dict[str, Any] | None:
    """A configuration of its leaves as MLflow has them; None where they are none of ours."""
    tree: dict[str, Any] = {}
    for path, text in params.items():
        *above, last = path.split(".")
        at = tree
        for key in above:
            at = at.setdefault(key, {})
            if not isinstance(at, dict):
                return None
        at[last] = _value(text)
    try:
        return TrialConfig.model_validate(tree).model_dump()
    except ValueError:
        return None


def _value(text: str) -> Any:
    """What `fields.flatten` wrote: a text as it is, everything else as JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _json(text: str | None) -> dict[str, Any]:
    found = _value(text or "{}")
    return found if isinstance(found, dict) else {}


def _named(metrics: Mapping[str, float], group: str) -> Metrics:
    return {fields.metric_name(k): v for k, v in metrics.items() if k.startswith(f"{group}/")}
