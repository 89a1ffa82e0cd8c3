"""Two real Ray nodes on one host: a sweep handed in by `ray job submit`, as the README says it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from ray_nodes import Cluster

from legoray.records import read_trials
from legoray.zoo import fields
from legoray.zoo.locate import located
from legoray.zoo.store import open_zoo

ROOT = Path(__file__).parents[2]
SENT = ("run_search.py", ".gitignore", ".rayignore", "legoray", "datasets", "search_spaces")
IGNORED = (".venv", ".legoray", "sweeps", "mlruns", "runs", "tests", "docs", ".git")
SPACE = """\
name: spread
data: datasets/mind_sample.yaml
model:
  hidden_size: 8
  content: {{choice: [{{name: id}}, {{name: pooling}}]}}
  behavior: {{name: pooling}}
  predictor: {{name: dot}}
train: {{epochs: 2, learning_rate: {{log: [1e-3, 1e-1]}}}}
evaluate: {{metrics: [auc], select: auc}}
search: {{trials: 6, scheduler: {{name: none}}, sampler: {{name: random}}}}
final: {{top: 1, seeds: 1, baselines: [random]}}
"""


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_submitted_sweep_is_stopped_and_goes_on_on_both_nodes(sample_tables, tmp_path):
    short = Path(f"/tmp/lr{uuid.uuid4().hex[:6]}")  # sockets' paths must be short
    short.mkdir()
    work, home = tmp_path / "work", tmp_path / "home"
    _checkout(work)
    (work / "search_spaces" / "spread.yaml").write_text(SPACE.format())
    home.mkdir()
    (home / "tables").symlink_to(sample_tables.parent)
    cluster = Cluster(short, env={"LEGORAY_HOME": str(home), "RAY_JOB_STOP_WAIT_TIME_S": "120"})
    try:
        _stopped_job(cluster, work, home / "sweeps" / "spread")
        _job_that_goes_on(cluster, work, home / "sweeps" / "spread")
        _check_upload(short)
        _check_zoo(home, home / "sweeps" / "spread")
        _refused_without_home(cluster, work)
        _search_by_address(cluster, work, tmp_path / "second", str(home))
    finally:
        cluster.stop()
        shutil.rmtree(short, ignore_errors=True)


def _checkout(folder: Path) -> None:
    """What a search needs of the repository, and beside it what git ignores and Ray must too."""
    folder.mkdir()
    for name in SENT:
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, folder)
        else:
            skip = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=skip)
    for name in IGNORED:
        (folder / name).mkdir()
        (folder / name / "heavy").write_text("this stays here")


def _job(cluster: Cluster, *words: str, folder: Path, seconds: int = 900):
    command = cluster.ray("job", words[0], "--address", cluster.dashboard, *words[1:])
    return subprocess.run(
        command, env=cluster.env, cwd=folder, capture_output=True, text=True, timeout=seconds,
        check=False,
    )  # fmt: skip


SUBMIT = ("submit", "--working-dir", ".", "--submission-id")
SEARCH = ("--", "python", "run_search.py", "search_spaces/spread.yaml")


def _stopped_job(cluster: Cluster, work: Path, sweep: Path) -> None:
    """`ray job stop` is as Ctrl-C: nothing stays running, and the log says how to go on."""
    done = _job(cluster, *SUBMIT, "first", "--no-wait", *SEARCH, folder=work)
    assert done.returncode == 0, done.stderr[-3000:]
    end = time.monotonic() + 900
    while not any(r.status == "completed" for r in (read_trials(sweep) if sweep.exists() else ())):
        logs = _job(cluster, "logs", "first", folder=work).stdout
        assert time.monotonic() < end, logs[-3000:]
        time.sleep(1)
    stopped = _job(cluster, "stop", "first", folder=work)
    assert "was stopped" in stopped.stdout, stopped.stdout + stopped.stderr
    logs = _job(cluster, "logs", "first", folder=work).stdout
    assert "was interrupted" in logs
    command = "ray job submit --working-dir . -- python run_search.py search_spaces/spread.yaml"
    assert f"to go on: {command}" in logs
    assert not any(line.startswith("\x1b") for line in logs.splitlines())
    assert not any(r.status == "running" for r in read_trials(sweep))


def _job_that_goes_on(cluster: Cluster, work: Path, sweep: Path) -> None:
    """The same command again ends the sweep: each trial once, on both nodes."""
    before = {r.number: r for r in read_trials(sweep)}
    done = _job(cluster, *SUBMIT, "second", *SEARCH, folder=work)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "going on with 'spread'" in done.stdout
    assert "has ended: all trials are done" in done.stdout
    assert f"mlflow ui --backend-store-uri sqlite:///{sweep.parents[1]}/mlflow.db" in done.stdout
    records = read_trials(sweep)
    assert [r.phase for r in records] == ["search"] * 6 + ["final", "baseline"]
    assert {r.status for r in records} == {"completed"}
    assert [bool(r.test) for r in records] == [r.phase != "search" for r in records]
    assert len({r.node for r in records[:6]}) == 2, [r.node for r in records]
    kept = {n: r.ended for n, r in before.items() if r.status == "completed"}
    assert kept.items() <= {r.number: r.ended for r in records}.items()


def _refused_without_home(cluster: Cluster, work: Path) -> None:
    """Without LEGORAY_HOME all would go with the job's folder."""
    unset = json.dumps({"env_vars": {"LEGORAY_HOME": ""}})
    done = _job(cluster, *SUBMIT, "third", "--runtime-env-json", unset, *SEARCH, folder=work)
    assert done.returncode == 1
    assert "error: LEGORAY_HOME: is not set, and this job's folder is a copy" in done.stdout


def _check_upload(folder: Path) -> None:
    """The job ran from a copy of its own, without what git ignores."""
    packages = "head/session_*/runtime_resources/working_dir_files/_ray_pkg_*/run_search.py"
    (program,) = {path.resolve() for path in folder.glob(packages)}
    assert (program.parent / "legoray" / "cli.py").exists()
    assert [name for name in IGNORED if (program.parent / name).exists()] == []


def _check_zoo(zoo: Path, sweep: Path) -> None:
    """The store outlives the job's copy: a run for every record, all ended, and the champion."""
    tracking = f"sqlite:///{zoo}/mlflow.db"
    client = open_zoo(tracking)
    experiment = client.get_experiment_by_name("spread")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    numbers = [run.data.tags[fields.NUMBER] for run in runs if fields.NUMBER in run.data.tags]
    assert sorted(map(int, numbers)) == [record.number for record in read_trials(sweep)]
    with located("models:/spread@champion", tracking) as model:
        assert model.is_relative_to(zoo)
        assert any(model.iterdir())


def _search_by_address(cluster: Cluster, work: Path, sweep: Path, home: str) -> None:
    """The same command from a shell on the head."""
    done = subprocess.run(
        [
            sys.executable, "run_search.py", "search_spaces/spread.yaml",
            "--address", cluster.address, "--folder", str(sweep), "--trials", "2",
        ],
        env=cluster.env | {"LEGORAY_HOME": home}, cwd=work,
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    records = read_trials(sweep)
    assert [r.phase for r in records] == ["search"] * 2 + ["final", "baseline"]
    assert {r.status for r in records} == {"completed"}
    assert len({r.node for r in records[:2]}) == 2, [r.node for r in records]
