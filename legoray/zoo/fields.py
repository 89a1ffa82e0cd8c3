"""What is written of a trial, and under which names: the one table that writing and reading share.

    metrics  valid/auc     per epoch (step = epoch)   best/auc   of the epoch validation selected
             train/loss    per epoch                  test/auc   finals and baselines only
             speed/...     per epoch                  cost/...   seconds, parameters, memory_mb ...
    params   model.content.name, train.learning_rate, ... : the whole configuration, flattened
    tags     readable ones without a prefix; `legoray.` for what only programs read

MLflow allows no `@` in a metric's name: `ndcg@5` is written as its own evaluators write it,
`ndcg_at_5`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from legoray.model.presets import AUGMENTED
from legoray.records import Metrics, Status, SweepInfo, TrialRecord, digest

SWEEP = "legoray.sweep"
KIND = "legoray.kind"  # sweep | trial
NUMBER = "legoray.number"
TRIAL_KEY = "legoray.trial_key"
SOURCE_RUN = "legoray.source_run"  # the run in which a reused result was measured
ORIGINAL = "original"  # a text that is the data's own
CONFIG_KEY = "legoray.config_key"  # of the configuration without its seed: finals share it
CHOSEN = "legoray.chosen"  # what the search chose, as JSON
LABEL = "legoray.label"  # the model's name in tables
OBJECTIVES = "objectives"  # of several, as JSON
PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
LONGEST_NOTE = 7500  # characters; MLflow takes 8,000
LONGEST = 4000  # characters of a tag or parameter; MLflow's own limits are a little higher

RUN_STATUS: Mapping[Status, str] = {
    "running": "RUNNING",
    "completed": "FINISHED",
    "pruned": "KILLED",
    "interrupted": "KILLED",
    "infeasible": "FAILED",
    "failed": "FAILED",
}
LOWER_IS_BETTER = frozenset({"logloss", "loss"})
_TRAIN = ("loss",)
_SPEED = ("train_seconds", "evaluate_seconds", "samples_per_second")


def metric_key(group: str, name: str) -> str:
    """`("valid", "ndcg@5")` as `valid/ndcg_at_5`."""
    return f"{group}/{name.replace('@', '_at_')}"


def metric_name(key: str) -> str:
    """The inverse of `metric_key`, without the group."""
    return key.partition("/")[2].replace("_at_", "@")


def greater_is_better(metric: str) -> bool:
    """Whether more of a metric is better."""
    return metric not in LOWER_IS_BETTER


def epoch_metrics(epoch: Metrics) -> Metrics:
    """One epoch's report under its names in MLflow; `epoch` itself is the step."""
    named: Metrics = {}
    for name, value in epoch.items():
        if name == "epoch":
            continue
        group = "train" if name in _TRAIN else "speed" if name in _SPEED else "valid"
        named[metric_key(group, name)] = float(value)
    return named


def closing_metrics(record: TrialRecord) -> Metrics:
    """The best epoch's, the test's and the costs' numbers of a trial that has ended."""
    best = {name: v for name, v in record.best.items() if name not in (*_TRAIN, *_SPEED)}
    groups = (("best", best), ("test", record.test), ("cost", record.costs))
    return {metric_key(g, name): float(v) for g, values in groups for name, v in values.items()}


def sweep_metrics(records: Sequence[TrialRecord], select: str) -> Metrics:
    """A sweep's own numbers: its trials by status, its epochs and seconds, its best value."""
    search = [record for record in records if record.phase == "search"]
    values = [r.best[select] for r in search if r.status == "completed" and select in r.best]
    best = max if greater_is_better(select) else min
    found = {"trials": float(len(search))}
    found |= {status: float(sum(r.status == status for r in search)) for status in RUN_STATUS}
    found["epochs"] = float(sum(len(r.epochs) for r in records))
    found["seconds"] = sum(r.costs.get("seconds", 0.0) for r in records)
    found |= {f"best_{select}": best(values)} if values else {}
    return {metric_key("sweep", name): value for name, value in found.items() if value}


def epoch_times(record: TrialRecord) -> list[int]:
    """When each epoch ended, in milliseconds: the same each time it is asked.

    MLflow drops a metric that it already has with the same time, so sending twice changes nothing.
    """
    moment, times = record.started, []
    for epoch in record.epochs:
        seconds = epoch.get("train_seconds", 0.0) + epoch.get("evaluate_seconds", 0.0)
        moment += seconds or 1.0
        times.append(int(moment * 1000))
    return times


def flatten(tree: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of a configuration as (`model.content.name`, text)."""
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from flatten(value, f"{at}.{key}" if at else str(key))
    else:
        yield at[:250], (tree if isinstance(tree, str) else json.dumps(tree, default=str))[:LONGEST]


def params_of(record: TrialRecord) -> dict[str, str]:
    """The whole configuration of a trial, flattened."""
    return dict(flatten(record.config)) if record.config else {}


def config_key(record: TrialRecord) -> str:
    """The same for all seeds of a configuration on the same texts; baselines go by their label."""
    if not record.config:
        return digest({"baseline": record.label})
    told = {name: part for name, part in record.config.items() if name != "seed"}
    return digest({**told, "reads": record.reads} if record.reads else told)


def reads_text(record: TrialRecord) -> str:
    """The attributes that a trial read, with the fingerprints of those written later."""
    reads = record.reads or {}
    return ", ".join(f"{name} ({texts[:8]})" if texts else name for name, texts in reads.items())


def run_name(record: TrialRecord) -> str:
    """`cnn+attention+dot #7`, `cnn+attention+dot seed 2`, `baseline popularity`.

    MLflow's table cuts names after some 25 letters, so what tells runs apart stands first.
    """
    if record.phase == "baseline":
        return f"baseline {record.label}"
    if record.phase == "final":
        return f"{record.label} seed {record.config.get('seed', '?')}"
    return f"{record.label} #{record.number}"


def model_name(label: str) -> str:
    """A composition's label as MLflow accepts it for a model's name."""
    return "".join("-" if letter in "/:.%\"'" else letter for letter in label)


def operators(record: TrialRecord) -> dict[str, str]:
    """The three parts' names of a trial; empty for baselines."""
    model = record.config.get("model", {})
    parts = {kind: model.get(kind, {}) for kind in ("content", "behavior", "predictor")}
    return {kind: str(part["name"]) for kind, part in parts.items() if "name" in part}


def described(record: TrialRecord) -> dict[str, str]:
    """What a trial's model is, for tables: its preset, parts and language model, and its text.

    `text` is `augmented` where an attribute of such a name is read, else names those that were
    written later, or is `original`.
    """
    model = record.config.get("model")
    if not model:
        return {}
    content = model["content"]
    later = [name for name, texts in (record.reads or {}).items() if texts]
    text = f"with {', '.join(later)}" if later else ORIGINAL
    if AUGMENTED in json.dumps([content, *(record.reads or ())]):
        text = AUGMENTED
    found = {**operators(record), "text": text}
    found |= {"preset": str(model["preset"])} if model.get("preset") else {}
    language = _language_model(content)
    return found | ({"language_model": language} if language else {})


def _language_model(settings: Mapping[str, Any]) -> str:
    """The language model that a part's settings name; empty where there is none."""
    if settings.get("model"):
        return str(settings["model"])
    inner = [value for value in settings.values() if isinstance(value, Mapping)]
    return next((name for name in map(_language_model, inner) if name), "")


def sweep_tags(sweep: SweepInfo) -> dict[str, str]:
    """What every run of a sweep carries: where its numbers come from and what they compare with."""
    return {
        SWEEP: sweep.id,
        "sweep": sweep.name,
        "data": sweep.data,
        "data_title": sweep.data_title or sweep.data,
        "synthetic": "yes" if sweep.synthetic else "no",
        "fingerprint": sweep.fingerprint,
        "protocol": json.dumps(sweep.protocol, sort_keys=True)[:LONGEST],
        "select": sweep.select,
        **({OBJECTIVES: objectives_text(sweep)} if sweep.objectives else {}),
        "git_revision": sweep.git_revision,
        "versions": json.dumps(sweep.versions, sort_keys=True)[:LONGEST],
        "mlflow.source.name": sweep.space_file,
        "mlflow.source.git.commit": sweep.git_revision,
    }


def objectives_text(sweep: SweepInfo) -> str:
    """The objectives of a sweep as JSON: names, or names with limits."""
    told = [one.name if one.limit is None else one.model_dump() for one in sweep.objectives]
    return json.dumps(told)


def fixed_tags(record: TrialRecord, sweep: SweepInfo) -> dict[str, str]:
    """Tags of a trial that never change."""
    return {
        **sweep_tags(sweep),
        **described(record),
        KIND: "trial",
        NUMBER: str(record.number),
        TRIAL_KEY: record.key,
        CONFIG_KEY: config_key(record),
        CHOSEN: json.dumps(record.params, sort_keys=True, default=str)[:LONGEST],
        "composition": "+".join(operators(record).values()) or record.label,
        LABEL: record.label,
        "phase": record.phase,
        "reads": reads_text(record)[:LONGEST],
        "seed": str(record.config.get("seed", "")),
    }


def changing_tags(record: TrialRecord) -> dict[str, str]:
    """Tags of a trial that change while it runs, beside its note (`legoray.zoo.note`)."""
    return {
        "status": record.status,
        "reason": record.reason[:LONGEST],
        "node": record.node,
        "resumed": str(record.resumed),
        "reused": "yes" if record.reused else "no",
        "reused_from": source_text(record),
        SOURCE_RUN: record.source.get("run", ""),
    }


def source_text(record: TrialRecord) -> str:
    """Where a reused result was measured: `mind_small, trial 7`; empty for others."""
    told = record.source
    return f"{told.get('sweep', '')}, trial {told.get('trial', '?')}" if record.reused else ""
