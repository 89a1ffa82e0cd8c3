"""A sweep recorded by a real tracking server that dies in the middle and comes back."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest
from made_models import save_cnn
from made_sweeps import model_folder, on_disk, sweep_info, trial

from legoray.errors import InputError
from legoray.spaceconfig import TrackingConfig
from legoray.zoo import record as recording
from legoray.zoo.leaderboard import leaderboard
from legoray.zoo.locate import located
from legoray.zoo.recommend import recommend
from legoray.zoo.record import Recorder
from legoray.zoo.store import connect
from legoray.zoo.view import VIEW


def wait_for(condition, seconds=120.0):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.05)


def running(record, epochs):
    early = {"status": "running", "epochs": record.epochs[:epochs], "costs": {}, "ended": None}
    return record.model_copy(update=early)


def test_a_server_that_dies_and_comes_back_loses_nothing(server, project, monkeypatch):
    monkeypatch.setattr(recording, "FIRST_PAUSE", 0.2)
    folder = project / "sweeps" / "mind-test"
    records = [trial(number, auc=0.5 + 0.05 * number) for number in range(3)]
    on_disk(folder, sweep_info(), *records)
    for record in records[:2]:
        model_folder(folder, record)
    save_cnn(folder / "models" / records[2].key / "best")

    recorder = Recorder(TrackingConfig(uri=server.address), sweep_info(), folder)
    started = time.monotonic()
    recorder.push(records[0])
    recorder.push(running(records[1], 1))
    assert time.monotonic() - started < 3.0  # the sweep does not wait for the dead
    wait_for(lambda: recorder.problem)
    assert server.address in recorder.problem
    assert recorder.waiting == 2

    server.start()
    wait_for(lambda: not recorder.waiting)
    assert not recorder.problem

    server.kill()
    recorder.push(running(records[1], 2))
    recorder.push(records[1])
    recorder.push(records[2])
    assert not recorder.finish(records[2])  # the end comes while the server is away
    assert recorder.waiting == 2
    assert recorder.state.ending
    with pytest.raises(InputError, match="cannot be read"):
        leaderboard(tracking=server.address)

    server.start()
    assert recorder.flush() == 0
    assert recorder.state.ended, recorder.problem
    check(server.address, records)


def check(address, records):
    """Everything is there once, closed, and the champion's model comes back and scores."""
    client = connect(address)
    experiment = client.get_experiment_by_name("mind-test").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    assert len(runs) == 4
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for run in runs.values():
        if "sweep" not in run.info.run_name:
            points = client.get_metric_history(run.info.run_id, "valid/auc")
            assert [p.step for p in points] == [1, 2, 3]
            assert len(run.outputs.model_outputs) == 1
    (board,) = leaderboard("mind-test", tracking=address)
    assert [row.trial for row in board.rows] == [2, 1, 0]
    logged = next(r for r in runs.values() if "#2" in r.info.run_name).outputs.model_outputs[0]
    with located("models:/mind-test@champion", address) as found:
        assert (found / "model.safetensors").is_file()
    fetched = "import sys; from legoray.zoo.locate import located as at\n"
    fetched += "with at(*sys.argv[1:]) as found: assert (found / 'model.safetensors').is_file()"
    for name in ("models:/mind-test@champion", f"models:/{logged.model_id}"):
        # a process that knows of no other store, such as a search that reuses
        done = subprocess.run(
            [sys.executable, "-c", fetched, name, address], capture_output=True, text=True,
            cwd=Path.cwd().parent, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        assert "Downloading" not in done.stderr  # bars of files would run through the trials' lines
    items = [{"title": "Storm", "category": "weather"}, {"title": "Cup", "category": "sport"}]
    best = recommend("models:/mind-test@champion", items[:1], items, tracking=address)
    local = Path.cwd() / "sweeps" / "mind-test" / "models" / records[2].key / "best"
    assert best == recommend(local, items[:1], items)


def test_plain_mlflow_ui_shows_runs_models_and_files(interface, project, tracking):
    """What `mlflow ui` serves in the project's folder, by the addresses its pages use."""
    folder = project / "sweeps" / "mind-test"
    on_disk(folder, sweep_info(), trial(0), trial(1))
    model_folder(folder, trial(0))
    recorder = Recorder(tracking, sweep_info(), folder)
    assert recorder.finish(trial(0)), recorder.problem
    experiment = recorder.state.experiment_id
    assert f"/experiments/{experiment}/runs?" in recorder.links()[-1]
    assert VIEW in recorder.links()[-1]

    interface.start()

    def ask(path, **body):
        content = json.dumps(body).encode() if body else None
        request = urllib.request.Request(f"{interface.address}/ajax-api/2.0/mlflow/{path}", content)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    runs = ask("runs/search", experiment_ids=[experiment])["runs"]
    names = {run["info"]["run_name"] for run in runs}
    assert names == {"sweep mind-test", "cnn+attention+dot #0", "pooling+additive+dnn #1"}
    tags = ask(f"experiments/get?experiment_id={experiment}")["experiment"]["tags"]
    view = json.loads(next(t["value"] for t in tags if t["key"].endswith(VIEW)))
    assert json.loads(view["state"])["orderByKey"] == "metrics.`best/auc`"
    (sent,) = (s for s in recorder.state.trials.values() if s.model)
    files = ask(f"logged-models/{sent.model}/artifacts/directories")["files"]
    assert "MLmodel" in {file["path"].rpartition("/")[2] for file in files}
    champion = ask(f"registered-models/alias?name={quote('mind-test')}&alias=champion")
    assert champion["model_version"]["run_id"] == sent.run_id
