"""What of a sweep lands in MLflow, with a real SQLite store."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
from made_sweeps import baseline, model_folder, on_disk, sweep_info, trial

from legoray.errors import InputError
from legoray.records import TrialRecord, read_trials, write_json
from legoray.spaceconfig import TrackingConfig
from legoray.zoo import record as recording
from legoray.zoo.leaderboard import leaderboard
from legoray.zoo.record import Recorder, send_missing
from legoray.zoo.store import connect

if TYPE_CHECKING:
    from mlflow import MlflowClient

EPOCHS = 3


def unfinished(record, epochs):
    """A trial's record as it was after some epochs."""
    early = {"status": "running", "epochs": record.epochs[:epochs], "costs": {}, "ended": None}
    return record.model_copy(update=early | {"best": record.epochs[epochs - 1] if epochs else {}})


def push_all(recorder, record):
    """As the search does: at the start, at each epoch, at the end."""
    for epochs in range(len(record.epochs) + 1):
        recorder.push(unfinished(record, epochs))
    recorder.push(record)


def runs_of(client, name="mind-test"):
    experiment = client.get_experiment_by_name(name)
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def contents(client):
    """All that a second sending must not change."""
    found = {}
    for name, run in runs_of(client).items():
        history = {
            key: len(client.get_metric_history(run.info.run_id, key)) for key in run.data.metrics
        }
        found[name] = (run.info.run_id, run.info.status, run.data.params, history, run.outputs)
    return {name: (a, b, c, d, str(e)) for name, (a, b, c, d, e) in found.items()}


def finished_sweep(project):
    """A finished sweep on disk: five trials, three finals of the winner, a baseline."""
    statuses = ["completed", "completed", "pruned", "infeasible", "completed"]
    found = [trial(n, auc=0.55 + 0.02 * n, status=s) for n, s in enumerate(statuses)]
    finals = [
        trial(10 + n, phase="final", label=found[4].label, seed=8 + n, auc=0.63,
              test={"auc": 0.60 + 0.01 * n, "auc/cold-item": 0.5, "groups/all": 90.0,
                    "groups/cold-item": 7.0})
        for n in range(3)
    ]  # fmt: skip
    folder = project / "sweeps" / "mind-test"
    on_disk(folder, sweep_info(), *found, *finals, baseline(20, "random"))
    for record in (*found, *finals):
        if record.status == "completed":
            model_folder(folder, record)
    return folder


@dataclass(frozen=True)
class Recorded:
    """A sweep that was recorded as it ran."""

    project: Path
    folder: Path
    winner: TrialRecord
    recorder: Recorder
    client: MlflowClient

    @property
    def tracking(self):
        return TrackingConfig(uri=f"sqlite:///{self.project / 'mlflow.db'}")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, empty_store):
    """A recorded sweep, to be looked at only."""
    project = tmp_path_factory.mktemp("project")
    shutil.copy(empty_store, project / "mlflow.db")
    folder = finished_sweep(project)
    tracking = TrackingConfig(uri=f"sqlite:///{project / 'mlflow.db'}")
    recorder = Recorder(tracking, sweep_info(), folder)
    records = read_trials(folder)
    for record in records:
        push_all(recorder, record)
    winner = next(r for r in records if r.phase == "final")
    assert recorder.finish(winner), recorder.problem
    return Recorded(project, folder, winner, recorder, connect(tracking.uri))


@pytest.fixture
def again(recorded, tmp_path):
    """A copy of the recorded sweep and its store, to be changed."""
    project = tmp_path / "again"
    shutil.copytree(recorded.project, project)
    folder = project / "sweeps" / "mind-test"
    uri = f"sqlite:///{project / 'mlflow.db'}"
    state = json.loads((folder / "tracking.json").read_text())
    write_json(folder / "tracking.json", state | {"uri": uri})
    return Recorded(project, folder, recorded.winner, recorded.recorder, connect(uri))


def test_slices_of_the_test_are_metrics_and_a_table(recorded):
    runs = runs_of(recorded.client)
    table = "| slice | impressions | auc |\n| :-- | --: | --: |\n| all | 90 | 0.6000 |\n"
    final = runs["cnn+attention+dot seed 8"]
    assert final.data.metrics["test/auc/cold-item"] == 0.5
    assert final.data.metrics["test/groups/cold-item"] == 7
    assert final.data.tags["mlflow.note.content"].endswith(table + "| cold-item | 7 | 0.5000 |")
    assert table + "| cold-item | 7 |" in runs["sweep mind-test"].data.tags["mlflow.note.content"]
    trial_run = runs["cnn+attention+dot #0"]
    assert not any("cold-item" in name for name in trial_run.data.metrics)
    assert "slice" not in trial_run.data.tags["mlflow.note.content"]
    (board,) = leaderboard("mind-test", tracking=recorded.tracking.uri)
    assert not any("/" in name for name in board.metrics)
    assert any("auc/cold-item" in row.test for row in board.rows)


def test_a_sweep_becomes_a_parent_and_its_trials(recorded):
    client = recorded.client
    runs = runs_of(client)
    parent = runs.pop("sweep mind-test")
    assert set(runs) == {
        "cnn+attention+dot #0",
        "pooling+additive+dnn #1",
        "id+gru+dcn #2",
        "attention+pooling+dot #3",
        "cnn+attention+dot #4",
        *(f"cnn+attention+dot seed {seed}" for seed in (8, 9, 10)),
        "baseline random",
    }
    assert all(run.data.tags["mlflow.parentRunId"] == parent.info.run_id for run in runs.values())
    states = {run.data.tags["status"]: run.info.status for run in runs.values()}
    assert states == {"completed": "FINISHED", "pruned": "KILLED", "infeasible": "FAILED"}
    assert parent.info.status == "FINISHED"
    assert "synthetic data" in parent.data.tags["mlflow.note.content"]
    assert parent.data.tags["winner"] == "cnn+attention+dot seed 8"


def test_runs_show_their_composition_and_how_to_load_it(recorded):
    client = recorded.client
    runs = runs_of(client)
    run = runs["cnn+attention+dot #0"]
    note = run.data.tags["mlflow.note.content"]
    identity = run.info.run_id
    assert f"![cnn+attention+dot](get-artifact?path=composition.svg&run_uuid={identity})" in note
    (model,) = run.outputs.model_outputs
    assert f"load_model('models:/{model.model_id}')" in note
    assert f"load_model('runs:/{identity}/cnn+attention+dot')" in note
    assert "Validation auc **0.5500** in epoch 3 of 3." in note
    picture = Path(client.download_artifacts(identity, "composition.svg")).read_text()
    drawn = ElementTree.fromstring(picture)
    words = [e.text for e in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"cnn", "attention", "dot", "candidate vectors", "score"} <= set(words)
    assert "composition.svg" not in runs["baseline random"].data.tags["mlflow.note.content"]
    parent = runs["sweep mind-test"]
    told = parent.data.tags["mlflow.note.content"]
    rows = [line for line in told.splitlines() if line.startswith(("| 1 |", "| 2 |", "| 3 |"))]
    assert [row.split("|")[4].strip() for row in rows] == ["0.6300", "0.5700", "0.5500"]
    assert "0.6100 ± 0.0100" in rows[0]
    final = runs["cnn+attention+dot seed 8"].info.run_id
    assert f"run_uuid={final}" in told
    assert parent.data.metrics["sweep/completed"] == 3
    assert parent.data.metrics["sweep/best_auc"] == pytest.approx(0.63)
    experiment = client.get_experiment_by_name("mind-test")
    assert "MIND sample" in experiment.tags["mlflow.note.content"]


def test_a_report_is_kept_with_the_sweep(again):
    recorder = Recorder(again.tracking, sweep_info(), again.folder)
    page = again.folder / "report.html"
    page.write_text("<p>first</p>")
    assert recorder.finish(again.winner)
    assert recorder.attach(page), recorder.problem
    parent = runs_of(again.client)["sweep mind-test"].info.run_id
    kept = Path(again.client.download_artifacts(parent, "report.html"))
    assert kept.read_text() == "<p>first</p>"
    page.write_text("<p>second</p>")
    assert send_missing(again.folder).problem == ""
    kept = Path(again.client.download_artifacts(parent, "report.html"))
    assert kept.read_text() == "<p>second</p>"
    assert not recorder.attach(again.folder / "none.html")


def test_a_trial_carries_all_that_its_numbers_depend_on(recorded):
    client = recorded.client
    run = runs_of(client)["cnn+attention+dot #4"]
    tags = run.data.tags
    wanted = {
        "composition": "cnn+attention+dot", "content": "cnn", "behavior": "attention",
        "predictor": "dot", "phase": "search", "status": "completed", "data": "mind_sample",
        "synthetic": "yes", "fingerprint": "f1a2b3c4d5e6", "git_revision": "0123abc", "seed": "7",
        "legoray.trial_key": "k0047", "legoray.number": "4", "legoray.sweep": "s-0001",
    }  # fmt: skip
    assert wanted.items() <= tags.items()
    assert json.loads(tags["protocol"]) == sweep_info().protocol
    assert json.loads(tags["versions"])["torch"] == "2.13.0"
    assert run.data.params["model.content.name"] == "cnn"
    assert run.data.params["train.learning_rate"] == "0.001"
    assert run.data.params["train.clip_norm"] == "null"
    assert run.data.params["evaluate.metrics"] == '["auc", "ndcg@5"]'
    assert run.data.metrics["best/auc"] == pytest.approx(0.63)
    assert run.data.metrics["cost/trainable"] == 12000
    assert (run.info.start_time, run.info.end_time) == (1760000040000, 1760000049500)
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == (
        "mind_sample (synthetic)",
        "f1a2b3c4d5e6",
    )


def test_each_epoch_is_one_point_of_each_metric(recorded):
    client = recorded.client
    run = runs_of(client)["cnn+attention+dot #4"]
    points = client.get_metric_history(run.info.run_id, "valid/ndcg_at_5")
    assert [(p.step, p.value) for p in points] == [(1, 0.3), (2, 0.31), (3, 0.32)]
    for name in ("train/loss", "valid/auc", "speed/train_seconds"):
        assert len(client.get_metric_history(run.info.run_id, name)) == EPOCHS
    assert [p.step for p in client.get_metric_history(run.info.run_id, "best/auc")] == [3]
    final = runs_of(client)["cnn+attention+dot seed 9"]
    assert final.data.metrics["test/auc"] == pytest.approx(0.61)


def test_an_epoch_that_is_told_after_later_ones_is_kept(project, client, tracking):
    record = trial(0, auc=0.6)
    folder = project / "sweeps" / "mind-test"
    on_disk(folder, sweep_info(), unfinished(record, 0))
    recorder = Recorder(tracking, sweep_info(), folder)
    first, _, third = record.epochs
    for epochs in ([first], [first, third]):
        told = unfinished(record, 0).model_copy(update={"epochs": epochs})
        on_disk(folder, sweep_info(), told)
        recorder.push(told)
        assert recorder.flush() == 0
    on_disk(folder, sweep_info(), record)
    recorder.push(record)  # the report of its second epoch was lost with its process
    assert recorder.finish(record)
    run = runs_of(client)["cnn+attention+dot #0"]
    history = client.get_metric_history(run.info.run_id, "valid/auc")
    points = sorted((point.step, point.value) for point in history)
    assert points == [(int(epoch["epoch"]), epoch["auc"]) for epoch in record.epochs]


def test_completed_trials_leave_a_model_and_others_do_not(recorded):
    client = recorded.client
    runs = runs_of(client)
    for name, run in runs.items():
        models = run.outputs.model_outputs if run.outputs else []
        complete = (
            run.data.tags["status"] == "completed" and run.data.tags.get("phase") != "baseline"
        )
        assert len(models) == int(complete), name
    model_id = runs["cnn+attention+dot #4"].outputs.model_outputs[0].model_id
    model = client.get_logged_model(model_id)
    assert str(model.status) == "READY"
    assert {m.key: m.value for m in model.metrics}["best/auc"] == pytest.approx(0.63)
    files = {f.name: f for f in (recorded.project / "mlruns").rglob("*") if f.is_file()}
    assert not any(name.endswith((".pkl", ".pickle")) for name in files)
    description = (files["MLmodel"]).read_text()
    assert "loader_module: legoray.zoo.pyfunc" in description
    assert "cloudpickle" not in files["requirements.txt"].read_text()


def test_the_winner_is_champion(recorded):
    recorder, winner = recorded.recorder, recorded.winner
    version = recorded.client.get_model_version_by_alias("mind-test", "champion")
    assert version.version == int(recorder.state.version)
    assert version.run_id == recorder.state.trials[f"{winner.number}-{winner.key}"].run_id
    assert version.tags["composition"] == winner.label


def test_sending_everything_again_changes_nothing(again):
    before = contents(again.client)
    recorder = Recorder(again.tracking, sweep_info(), again.folder)
    for record in read_trials(again.folder):
        push_all(recorder, record)
    assert recorder.finish(again.winner)
    assert contents(again.client) == before
    assert len(again.client.search_model_versions("name = 'mind-test'")) == 1


def test_without_its_state_file_the_recorder_finds_its_runs_again(again):
    before = contents(again.client)
    (again.folder / "tracking.json").write_text('{"uri": ')
    recorder = Recorder(again.tracking, sweep_info(), again.folder)
    assert recorder.finish(again.winner)
    assert contents(again.client) == before
    assert len(again.client.search_model_versions("name = 'mind-test'")) == 1


def test_killed_in_the_middle_and_resumed(project, client, tracking):
    """A recorder dies with its process; its successor goes on in the same runs."""
    folder = project / "sweeps" / "mind-test"
    done, dying, lost = trial(0), trial(1), trial(2)
    on_disk(folder, sweep_info(), done, unfinished(dying, 2), unfinished(lost, 1))
    model_folder(folder, done)
    script = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from pathlib import Path
from made_sweeps import *
from legoray.spaceconfig import TrackingConfig
from legoray.records import read_trials
from legoray.zoo.record import Recorder
recorder = Recorder(TrackingConfig(), sweep_info(), Path({str(folder)!r}))
for record in read_trials(Path({str(folder)!r})):
    recorder.push(record)
recorder._send_waiting()
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    before = runs_of(client)
    assert before["pooling+additive+dnn #1"].info.status == "RUNNING"
    assert before["sweep mind-test"].info.status == "RUNNING"

    recorder = Recorder(tracking, sweep_info(), folder)
    recorder.push(done)
    assert settled(recorder)
    assert runs_of(client)["pooling+additive+dnn #1"].info.status == "KILLED"
    assert runs_of(client)["pooling+additive+dnn #1"].data.tags["status"] == "interrupted"
    recorder.push(unfinished(dying, 2))
    assert settled(recorder)
    assert runs_of(client)["pooling+additive+dnn #1"].info.status == "RUNNING"
    recorder.push(dying)
    assert recorder.finish(done)

    after = runs_of(client)
    assert {name: run.info.run_id for name, run in after.items()} == {
        name: run.info.run_id for name, run in before.items()
    }
    statuses = {name: run.info.status for name, run in after.items()}
    assert statuses == {
        "sweep mind-test": "FINISHED",
        "cnn+attention+dot #0": "FINISHED",
        "pooling+additive+dnn #1": "FINISHED",
        "id+gru+dcn #2": "KILLED",
    }
    run_id = after["pooling+additive+dnn #1"].info.run_id
    assert [p.step for p in client.get_metric_history(run_id, "valid/auc")] == [1, 2, 3]


def settled(recorder):
    """Wait until the thread has sent what was pushed."""
    for _ in range(1200):
        if not recorder.waiting:
            return True
        time.sleep(0.05)
    return False


def test_an_interrupted_sweep_leaves_nothing_running(project, client, tracking):
    folder = project / "sweeps" / "mind-test"
    on_disk(folder, sweep_info(), trial(0), unfinished(trial(1), 1))
    recorder = Recorder(tracking, sweep_info(), folder)
    model_folder(folder, trial(0))
    recorder.push(unfinished(trial(1), 1))
    assert recorder.finish(trial(0), interrupted=True)
    assert not client.search_registered_models()  # it has not won yet
    statuses = {name: run.info.status for name, run in runs_of(client).items()}
    assert statuses == {
        "sweep mind-test": "KILLED",
        "cnn+attention+dot #0": "FINISHED",
        "pooling+additive+dnn #1": "KILLED",
    }


def test_a_dead_sweep_can_be_sent_by_its_folder_alone(project, client, tracking):
    folder = project / "sweeps" / "mind-test"
    on_disk(folder, sweep_info(), trial(0), unfinished(trial(1), 1))
    Recorder(tracking, sweep_info(), folder)  # of a process that died before it sent anything
    recorder = send_missing(folder)
    assert not recorder.waiting
    statuses = {name: run.info.status for name, run in runs_of(client).items()}
    assert statuses == {
        "sweep mind-test": "KILLED",
        "cnn+attention+dot #0": "FINISHED",
        "pooling+additive+dnn #1": "KILLED",
    }
    with pytest.raises(InputError, match="no such file"):
        send_missing(folder.parent)


def test_a_store_that_lost_everything_is_filled_again(again, empty_store, monkeypatch, tmp_path):
    """The state file says that all was sent, but the store has nothing of it."""
    monkeypatch.chdir(tmp_path)  # where MLflow's own default store would be, and is not
    uri = f"sqlite:///{again.project / 'new.db'}"
    shutil.copy(empty_store, again.project / "new.db")
    state = json.loads((again.folder / "tracking.json").read_text())
    write_json(again.folder / "tracking.json", state | {"uri": uri})
    recorder = Recorder(TrackingConfig(uri=uri), sweep_info(), again.folder)
    assert recorder.finish(again.winner), recorder.problem
    assert set(runs_of(connect(uri))) == set(runs_of(again.client))
    assert not (tmp_path / "mlflow.db").exists()


def test_a_locked_database_costs_the_sweep_nothing(project, client, tracking, monkeypatch):
    monkeypatch.setattr(recording, "FIRST_PAUSE", 0.1)
    folder = project / "sweeps" / "mind-test"
    on_disk(folder, sweep_info(), trial(0))
    with sqlite3.connect(project / "mlflow.db", isolation_level=None) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        recorder = Recorder(tracking, sweep_info(), folder)
        started = time.monotonic()
        push_all(recorder, trial(0))
        assert time.monotonic() - started < 0.5
        lock.execute("ROLLBACK")
    assert recorder.finish(trial(0)), recorder.problem
    assert runs_of(client)["cnn+attention+dot #0"].info.status == "FINISHED"


def test_one_trial_that_mlflow_refuses_does_not_hold_up_the_others(project, client, tracking):
    folder = project / "sweeps" / "mind-test"
    bad = trial(0, costs={"per|cent": 1.0})  # no name for a metric
    on_disk(folder, sweep_info(), bad, trial(1))
    recorder = Recorder(tracking, sweep_info(), folder)
    for record in (bad, trial(1)):
        recorder.push(record)
    assert recorder.finish(trial(1))
    assert recorder.waiting == 1
    assert "per|cent" in recorder.problem
    runs = runs_of(client)
    assert runs["pooling+additive+dnn #1"].info.status == "FINISHED"
    assert runs["cnn+attention+dot #0"].info.status == "KILLED"  # closed, for the sweep is over


def test_pushing_is_quick_and_leaves_the_thread_to_send(project, tracking):
    folder = project / "sweeps" / "mind-test"
    on_disk(folder, sweep_info())
    recorder = Recorder(tracking, sweep_info(), folder)
    started = time.monotonic()
    for number in range(8):
        recorder.push(trial(number))
    assert time.monotonic() - started < 0.5
    assert settled(recorder)
    assert recorder.finish()
    assert not any(t.name == "legoray-zoo" for t in threading.enumerate())


@pytest.mark.parametrize(
    ("value", "message"), [("mlflow.db", "is not an address"), ("", "is not an address")]
)
def test_an_address_that_is_none_is_the_users_mistake(project, value, message):
    with pytest.raises(InputError, match=message):
        Recorder(TrackingConfig(uri=value), sweep_info(), project)


def test_unlike_numbers_survive(project, client, tracking):
    """NaN and infinities are numbers of a diverged trial, not errors of the recorder's."""
    folder = project / "sweeps" / "mind-test"
    lines = [{"epoch": 1.0, "loss": float("nan"), "auc": float("inf")}]
    record = trial(0, status="infeasible").model_copy(update={"epochs": lines})
    on_disk(folder, sweep_info(), record)
    recorder = Recorder(tracking, sweep_info(), folder)
    recorder.push(record)
    assert recorder.finish()
    assert not recorder.waiting, recorder.problem


def test_mlflow_is_not_imported_before_it_is_needed():
    code = "import sys, legoray.zoo.record; assert 'mlflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_closing_command_opens_the_store_that_was_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    far = f"sqlite:///{tmp_path}/far/zoo.db"
    for uri, command in [
        ("sqlite:///mlflow.db", "mlflow ui"),
        (f"sqlite:///{tmp_path}/mlflow.db", "mlflow ui"),
        (far, f"mlflow ui --backend-store-uri {far}"),
    ]:
        recorder = Recorder(TrackingConfig(uri=uri), sweep_info(), tmp_path / str(len(uri)))
        assert recorder.links()[0] == command
