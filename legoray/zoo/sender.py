"""Writes a sweep into MLflow, synchronously; `legoray.zoo.record` decides when, and guards it.

Every call may be repeated: what was sent is looked up in the state file, or found again in MLflow
by its tags, and a metric that arrives twice with the same time is dropped by MLflow.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from legoray.records import Metrics, SweepInfo, TrialRecord, digest, read_trials
from legoray.zoo import fields
from legoray.zoo.comparison import read_comparison, write_comparison
from legoray.zoo.fronts import send_front
from legoray.zoo.note import (
    PICTURE,
    experiment_note,
    leaders,
    picture_of,
    records_of,
    sweep_note,
    trial_note,
)
from legoray.zoo.package import log_model
from legoray.zoo.registry import register
from legoray.zoo.state import SentTrial, TrackingState, save_state
from legoray.zoo.store import all_runs, artifact_root, connect
from legoray.zoo.view import save_view

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric, Run

MOST_METRICS = 800  # per call; MLflow takes 1,000 entries in all, 100 of each other kind
MOST_PARAMS = 90


class Sender:
    """One sweep's connection to MLflow. Any method may raise whatever MLflow raises."""

    def __init__(self, state: TrackingState, sweep: SweepInfo, folder: Path) -> None:
        self.state = state
        self.sweep = sweep
        self.folder = folder
        self._client: MlflowClient | None = None
        self._viewed = False

    def start(self) -> MlflowClient:
        """Connect, find or make the experiment and the parent run, and adopt earlier runs."""
        if self._client is not None:
            return self._client
        client = connect(self.state.uri)
        experiment = self._experiment(client)
        runs = all_runs(client, [experiment], f"tags.`{fields.SWEEP}` = '{self.sweep.id}'")
        there = {run.info.run_id for run in runs}
        self.update(
            experiment_id=experiment,
            parent=self._parent(client, experiment, runs),
            trials={p: sent for p, sent in self.state.trials.items() if sent.run_id in there},
        )
        for run in runs:
            if run.data.tags.get(fields.KIND) == "trial":
                self._adopt(client, run)
        self._client = client
        return client

    def alive(self) -> None:
        """Raise what MLflow raises if the store does not answer."""
        self.start().search_experiments(max_results=1)

    def has(self, record: TrialRecord, model: Path | None) -> bool:
        """Whether MLflow is known to have all of a trial; never before it was asked once."""
        sent = self.state.trials.get(f"{record.number}-{record.key}")
        if self._client is None or sent is None or sent.sent != digest(record.model_dump()):
            return False
        return sent.model is not None or model is None

    def send(self, record: TrialRecord, model: Path | None) -> None:
        """Bring MLflow up to date with one trial."""
        client = self.start()
        place = f"{record.number}-{record.key}"
        if self.has(record, model):
            return
        sent = self.state.trials.get(place)
        if sent is None:
            sent = SentTrial(run_id=self._new_run(client, record))
            self._remember(place, sent)
        metrics, epochs = _news(record, sent)
        params = {} if sent.sent else fields.params_of(record)
        tags = {k: v for k, v in fields.changing_tags(record).items() if v or sent.sent}
        tags[fields.NOTE] = self._note(record, sent.run_id, sent.model)
        _log(client, sent.run_id, metrics, params, tags)
        self._remember(place, sent.model_copy(update={"epochs": epochs}))
        if not sent.sent and (drawn := picture_of(record)):
            client.log_text(sent.run_id, drawn, PICTURE)
        self._show(client, record)
        logged = sent.model
        if model is not None and logged is None:
            last = max(epochs, default=0)
            logged = self._send_model(client, record, sent.run_id, model, last)
        if record.status != "running":
            ended = int((record.ended or time.time()) * 1000)
            client.set_terminated(sent.run_id, fields.RUN_STATUS[record.status], ended)
        elif not sent.sent:
            client.update_run(sent.run_id, status="RUNNING")
        now = digest(record.model_dump())
        self._remember(place, SentTrial(run_id=sent.run_id, epochs=epochs, sent=now, model=logged))

    def end(self, winner: TrialRecord | None, model: Path | None, interrupted: bool) -> None:
        """Register the winner, close every run that is still open, and the parent run.

        The best of a search that was interrupted is told but not registered: it has not won yet.
        """
        client = self.start()
        parent = str(self.state.parent)
        if winner is not None:
            self.send(winner, model)
            sent = self.state.trials[f"{winner.number}-{winner.key}"]
            if sent.model and not interrupted:
                self._register(client, sent, winner, model)
                self._send_front(client)
            _log(client, parent, tags={"winner": fields.run_name(winner)})
        self._close_open(client)
        note = self._sweep_note(winner, interrupted)
        state = "interrupted" if interrupted else "finished"
        records = records_of(self.folder)
        moment = max(map(_ended, records), default=0)  # the same each time
        summed = _metrics(fields.sweep_metrics(records, self.sweep.select), moment, 0)
        _log(client, parent, summed, tags={fields.NOTE: note, "status": state})
        client.set_terminated(parent, "KILLED" if interrupted else "FINISHED")
        self.update(ending=False, ended=True)

    def _sweep_note(self, winner: TrialRecord | None, interrupted: bool) -> str:
        from legoray.zoo.promotion import champion_line

        sent = self.state.trials.get(f"{winner.number}-{winner.key}") if winner else None
        champion = None if interrupted else self.state.champion
        return sweep_note(
            self.sweep,
            winner,
            self.state.register_as,
            self.state.version,
            registry="" if champion is None else champion_line(champion),
            winner_run=None if sent is None else sent.run_id,
            rows=leaders(self.folder, self.sweep),
        )[: fields.LONGEST_NOTE]

    def _register(
        self, client: MlflowClient, sent: SentTrial, winner: TrialRecord, model: Path | None
    ) -> None:
        """Make the winner a version, and champion if it is better; the sweep's folder tells it."""
        from legoray.zoo.promotion import settle

        name, before = self.state.register_as, self.state.champion
        version = register(client, name, sent, winner, self.sweep)
        found = settle(client, name, version, model, self.sweep)
        if found.outcome == "same" and before is not None and before.version == version:
            found = before
        self.update(version=version, champion=found)
        comparison = read_comparison(self.folder)
        if comparison is not None:
            told = comparison.model_copy(update={"champion": found})
            write_comparison(self.folder, told)

    def attach(self, path: Path) -> None:
        """Keep a file, such as the report, with the parent run; the same one is sent once."""
        told = hashlib.sha256(path.read_bytes()).hexdigest()
        if told != self.state.report:
            self.start().log_artifact(str(self.state.parent), str(path))
            self.update(report=told)

    def _send_front(self, client: MlflowClient) -> None:
        """Mark and register the members of the Pareto front, where there are several objectives."""
        if self.sweep.objectives:
            records, known = read_trials(self.folder), self.state.trials
            send_front(client, self.state.register_as, records, known, self.sweep)

    def _experiment(self, client: MlflowClient) -> str:
        found = client.get_experiment_by_name(self.state.experiment)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)
        root = artifact_root(self.state.uri)
        location = str(root / self.state.experiment) if root else None
        return str(client.create_experiment(self.state.experiment, artifact_location=location))

    def _parent(self, client: MlflowClient, experiment: str, runs: list[Run]) -> str:
        """The sweep's own run, open again if it was closed."""
        for run in runs:
            if run.data.tags.get(fields.KIND) == "sweep":
                if not self.state.ended:
                    client.update_run(run.info.run_id, status="RUNNING")
                return str(run.info.run_id)
        tags = fields.sweep_tags(self.sweep) | {
            fields.KIND: "sweep",
            fields.NOTE: sweep_note(self.sweep, None, self.state.register_as, None),
            "status": "searching",
        }
        started = int(self.sweep.created * 1000) or None
        run = client.create_run(experiment, started, tags=tags, run_name=f"sweep {self.sweep.name}")
        return str(run.info.run_id)

    def _adopt(self, client: MlflowClient, run: Run) -> None:
        """Take over a run of an earlier process: one that is still open died with it."""
        place = f"{run.data.tags.get(fields.NUMBER)}-{run.data.tags.get(fields.TRIAL_KEY)}"
        if run.info.status == "RUNNING":
            _log(client, run.info.run_id, tags={"status": "interrupted"})
            client.set_terminated(run.info.run_id, "KILLED")
        known = self.state.trials.get(place)
        if known is None:
            steps = {
                metric.step
                for name in run.data.metrics
                if name.startswith(("train/", "valid/"))
                for metric in client.get_metric_history(run.info.run_id, name)
            }
            self._remember(place, SentTrial(run_id=run.info.run_id, epochs=sorted(steps)))
        elif known.run_id == run.info.run_id and run.info.status == "RUNNING":
            self._remember(place, known.model_copy(update={"sent": ""}))

    def _new_run(self, client: MlflowClient, record: TrialRecord) -> str:
        tags = fields.fixed_tags(record, self.sweep) | {fields.PARENT: str(self.state.parent)}
        run = client.create_run(
            str(self.state.experiment_id),
            int((record.started or time.time()) * 1000),
            tags={name: value for name, value in tags.items() if value},
            run_name=fields.run_name(record),
        )
        client.log_inputs(run.info.run_id, [_dataset(self.sweep)])
        return str(run.info.run_id)

    def _send_model(
        self, client: MlflowClient, record: TrialRecord, run_id: str, model: Path, last: int
    ) -> str:
        experiment = str(self.state.experiment_id)
        model_id = log_model(
            client, experiment_id=experiment, run_id=run_id, name=record.label, folder=model
        )
        closing = _metrics(fields.closing_metrics(record), _ended(record), last, model_id)
        _log(client, run_id, closing, tags={fields.NOTE: self._note(record, run_id, model_id)})
        return model_id

    def _note(self, record: TrialRecord, run_id: str, model: str | None) -> str:
        return trial_note(record, self.sweep, run_id, model)[: fields.LONGEST]

    def _show(self, client: MlflowClient, record: TrialRecord) -> None:
        """Once an epoch tells the metrics' names: the table of runs that shows them."""
        if self._viewed or not record.epochs:
            return
        names = [fields.metric_name(key) for key in fields.epoch_metrics(record.epochs[0])
                 if key.startswith("valid/")]  # fmt: skip
        created = self.sweep.created
        experiment = str(self.state.experiment_id)
        save_view(
            client,
            experiment,
            select=self.sweep.select,
            metrics=names,
            created=created,
            note=experiment_note(self.sweep),
        )
        self._viewed = True

    def _close_open(self, client: MlflowClient) -> None:
        """Nothing stays 'running' once its sweep has ended."""
        own = f"tags.`{fields.SWEEP}` = '{self.sweep.id}' and attributes.status = 'RUNNING'"
        for run in all_runs(client, [str(self.state.experiment_id)], own):
            if run.info.run_id != self.state.parent:
                _log(client, run.info.run_id, tags={"status": "interrupted"})
                client.set_terminated(run.info.run_id, "KILLED")

    def _remember(self, place: str, sent: SentTrial) -> None:
        if self.state.trials.get(place) != sent:
            self.update(trials=self.state.trials | {place: sent})

    def update(self, **changes: object) -> None:
        """Change the state, in memory and on disk."""
        self.state = self.state.model_copy(update=changes)
        save_state(self.folder, self.state)


def _dataset(sweep: SweepInfo) -> DatasetInput:
    """The data set as MLflow's table of runs shows it: its name and fingerprint."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    name = f"{sweep.data} (synthetic)" if sweep.synthetic else sweep.data
    dataset = Dataset(name, sweep.fingerprint[:36], "local", json.dumps({"uri": sweep.tables}))
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "train")])


def _news(record: TrialRecord, sent: SentTrial) -> tuple[list[Metric], list[int]]:
    """Metrics that MLflow lacks, and the epochs that it then has.

    Epochs need not come in order: one whose report was lost with its process is told at the end.
    """
    metrics: list[Metric] = []
    for moment, epoch in zip(fields.epoch_times(record), record.epochs, strict=True):
        step = int(epoch["epoch"])
        if step not in sent.epochs:
            metrics += _metrics(fields.epoch_metrics(epoch), moment, step)
    known = sorted({*sent.epochs, *(int(epoch["epoch"]) for epoch in record.epochs)})
    if record.status != "running":
        metrics += _metrics(fields.closing_metrics(record), _ended(record), max(known, default=0))
    return metrics, known


def _ended(record: TrialRecord) -> int:
    """When a trial ended, in milliseconds: the same each time, so that nothing is kept twice."""
    return int((record.ended or record.started) * 1000)


def _metrics(values: Metrics, moment: int, step: int, model_id: str | None = None) -> list[Metric]:
    from mlflow.entities import Metric

    return [Metric(name, v, moment, step, model_id=model_id) for name, v in values.items()]


def _log(
    client: MlflowClient,
    run_id: str,
    metrics: Sequence[Metric] = (),
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Log all of it in as few calls as MLflow's limits allow: one, for an ordinary trial."""
    from mlflow.entities import Param, RunTag

    pairs = [Param(name, value) for name, value in (params or {}).items()]
    named = [RunTag(name, value) for name, value in (tags or {}).items()]
    while metrics or pairs or named:
        client.log_batch(
            run_id, metrics=metrics[:MOST_METRICS], params=pairs[:MOST_PARAMS], tags=named
        )
        metrics, pairs, named = metrics[MOST_METRICS:], pairs[MOST_PARAMS:], []
