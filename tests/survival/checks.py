"""What must hold once a disturbed sweep has ended. Each check returns what is wrong, in words."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import optuna
from counted import events
from optuna.trial import TrialState

from legoray.records import SweepInfo, TrialRecord, read_json, read_trials
from legoray.search.finals import ranked
from legoray.search.journal import open_journal
from legoray.zoo import fields
from legoray.zoo.store import all_runs, connect

SECONDS = ("train_seconds", "evaluate_seconds", "samples_per_second")


def check_records(sweep: Path, trials: int, epochs: int) -> list[str]:
    """Every trial is on record once, ended, with each of its epochs once."""
    found, wrong = read_trials(sweep), []
    search = [r for r in found if r.phase == "search"]
    if len(search) != trials:
        wrong.append(f"{len(search)} trials of the search on record, not {trials}")
    twice = [k for k, n in Counter((r.key, r.phase) for r in found).items() if n > 1]
    wrong += [f"recorded twice: {key}" for key in twice]
    for record in found:
        if record.status != "completed":
            wrong.append(f"trial {record.number} is {record.status}: {record.reason}")
        told = [int(e["epoch"]) for e in record.epochs]
        if record.phase != "baseline" and told != list(range(1, epochs + 1)):
            wrong.append(f"trial {record.number} has epochs {told}")
        if record.phase == "search" and record.test:
            wrong.append(f"trial {record.number} of the search was measured on the test split")
        if record.phase == "final" and not record.test:
            wrong.append(f"the final trial {record.number} was not measured on the test split")
    info = read_json(sweep / "sweep.json", SweepInfo)
    if (info.state, info.ended) != ("finished", "trials"):
        wrong.append(f"the sweep's state is {info.state}, ended '{info.ended}'")
    return wrong


def check_epochs(sweep: Path) -> list[str]:
    """Each training went on from the last epoch that it had reported."""
    wrong = []
    for record in read_trials(sweep):
        reported = 0
        for event in events(sweep / "models" / record.key):
            if event["event"] == "start" and event["after"] < reported:
                wrong.append(
                    f"trial {record.number} went on after epoch {event['after']},"
                    f" though it had reported epoch {reported}"
                )
            if event["event"] == "epoch":
                if event["epoch"] <= reported:
                    wrong.append(f"trial {record.number} reported epoch {event['epoch']} twice")
                reported = max(reported, event["epoch"])
    return wrong


def check_leftovers(sweep: Path) -> list[str]:
    """Nothing half written and no checkpoint of an ended trial is left in the folder."""
    wrong = [str(p) for p in sweep.rglob("*") if p.name.startswith(".") or p.name == "last"]
    wrong += [str(p) for p in (sweep / "lock.json", sweep / "ray") if p.exists()]
    return [f"left in the sweep's folder: {path}" for path in wrong]


def check_study(sweep: Path, trials: int) -> list[str]:
    """Optuna has each trial once, and nothing that runs or waits."""
    info = read_json(sweep / "sweep.json", SweepInfo)
    storage = open_journal(sweep / "study.journal")
    rows = optuna.load_study(study_name=info.id, storage=storage).get_trials(deepcopy=False)
    states = Counter(row.state for row in rows)
    wrong = [
        f"{states[state]} rows of the study are {state.name}"
        for state in (TrialState.RUNNING, TrialState.WAITING)
        if states[state]
    ]
    complete = [row for row in rows if row.state == TrialState.COMPLETE]
    if len({row.user_attrs["key"] for row in complete}) != trials or len(complete) != trials:
        wrong.append(f"{len(complete)} rows of the study are complete, not {trials}")
    outcomes = {str(r.user_attrs.get("outcome")) for r in rows if r.state == TrialState.FAIL}
    if outcomes - {"interrupted", "rejected"}:
        wrong.append(f"rows of the study have failed: {outcomes}")
    return wrong


def check_mlflow(sweep: Path, uri: str, epochs: int) -> list[str]:
    """MLflow has a run for every record, each epoch of it once, and nothing that runs."""
    client, info = connect(uri), read_json(sweep / "sweep.json", SweepInfo)
    experiment = client.get_experiment_by_name(info.name)
    if experiment is None:
        return [f"MLflow has no experiment '{info.name}'"]
    runs = all_runs(client, [experiment.experiment_id], "")
    wrong = [
        f"run '{run.info.run_name}' is {run.info.status}"
        for run in runs
        if run.info.status != "FINISHED"
    ]
    records = {r.number: r for r in read_trials(sweep)}
    trials = [run for run in runs if fields.NUMBER in run.data.tags]
    numbers = Counter(int(run.data.tags[fields.NUMBER]) for run in trials)
    if numbers != Counter(list(records)):
        wrong.append(f"MLflow has the trials {sorted(numbers.elements())}")
    if len(runs) - len(trials) != 1:
        wrong.append(f"MLflow has {len(runs) - len(trials)} runs of the sweep itself")
    for run in trials:
        record = records.get(int(run.data.tags[fields.NUMBER]))
        if record is not None and record.epochs:
            name = f"valid/{info.select}"
            steps = [m.step for m in client.get_metric_history(run.info.run_id, name)]
            if sorted(steps) != list(range(1, epochs + 1)):
                wrong.append(f"run '{run.info.run_name}' has {info.select} of epochs {steps}")
    if not client.search_registered_models():
        wrong.append("MLflow has no registered model")
    return wrong


def board(sweep: Path) -> list[tuple[str, str, object, object]]:
    """The leaderboard: what was trained, best first, with all numbers but the seconds."""
    info, records = read_json(sweep / "sweep.json", SweepInfo), read_trials(sweep)
    ordered = ranked(records, info.select, "max")
    finals = sorted((r for r in records if r.phase == "final"), key=lambda r: r.key)
    return [_row(record) for record in [*sorted(ordered, key=_place(info.select)), *finals]]


def _place(select: str):
    return lambda record: (-record.best[select], record.key)


def _row(record: TrialRecord) -> tuple[str, str, object, object]:
    epochs = [{k: v for k, v in e.items() if k not in SECONDS} for e in record.epochs]
    return record.key, record.label, epochs, record.test


def check_board(sweep: Path, undisturbed: Path) -> list[str]:
    """The leaderboard equals the undisturbed one, to the last bit, up to the trials' order."""
    own, other = board(sweep), board(undisturbed)
    wrong = []
    for name, one, two in (("lacks", other, own), ("alone has", own, other)):
        keys = {row[0] for row in two}
        wrong += [
            f"the disturbed leaderboard {name} {r[1]} ({r[0]})" for r in one if r[0] not in keys
        ]
    if not wrong and own != other:
        differ = [a[1] for a, b in zip(own, other, strict=True) if a != b]
        wrong.append(f"the numbers differ: {', '.join(differ)}")
    return wrong
