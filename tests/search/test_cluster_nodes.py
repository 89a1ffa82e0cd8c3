"""Two real Ray nodes on one host: a sweep handed in by `ray job submit` has trials on both."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from ray_nodes import Cluster

from legoray.records import read_trials
from legoray.zoo import fields
from legoray.zoo.locate import located
from legoray.zoo.store import open_zoo

ROOT = Path(__file__).parents[2]
SENT = ("run_search.py", ".gitignore", "legoray", "datasets", "search_spaces")
IGNORED = (".venv", ".legoray", "sweeps", "mlruns")
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
search: {{trials: 4, scheduler: {{name: none}}, sampler: {{name: random}}}}
final: {{top: 1, seeds: 1, baselines: [random]}}
tracking: {{uri: {tracking}}}
"""


@pytest.mark.cluster
@pytest.mark.slow
def test_a_submitted_sweep_runs_on_both_nodes(sample_tables, tmp_path):
    short = Path(f"/tmp/lr{uuid.uuid4().hex[:6]}")  # sockets' paths must be short
    short.mkdir()
    work, zoo = tmp_path / "work", tmp_path / "zoo"
    _checkout(work)
    space = SPACE.format(tracking=f"sqlite:///{zoo}/mlflow.db")
    (work / "search_spaces" / "spread.yaml").write_text(space)
    cluster = Cluster(short)
    try:
        home = str(sample_tables.parents[1])
        _search_as_a_job(cluster, work, tmp_path / "first", home)
        _check_upload(short)
        _check_zoo(zoo, tmp_path / "first")
        _search_by_address(cluster, work, tmp_path / "second", home)
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


def _search_as_a_job(cluster: Cluster, work: Path, sweep: Path, home: str) -> None:
    """The README's command, from a shell that is on no node."""
    done = subprocess.run(
        [
            *cluster.ray("job", "submit", "--address", cluster.dashboard, "--working-dir", "."),
            "--runtime-env-json", json.dumps({"env_vars": {"LEGORAY_HOME": home}}), "--",
            "python", "run_search.py", "search_spaces/spread.yaml", "--folder", str(sweep),
        ],
        env=cluster.env, cwd=work, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "has ended: all trials are done" in done.stdout
    records = read_trials(sweep)
    assert [r.phase for r in records] == ["search"] * 4 + ["final", "baseline"]
    assert {r.status for r in records} == {"completed"}
    assert [bool(r.test) for r in records] == [r.phase != "search" for r in records]
    assert len({r.node for r in records[:4]}) == 2, [r.node for r in records]


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
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    records = read_trials(sweep)
    assert [r.phase for r in records] == ["search"] * 2 + ["final", "baseline"]
    assert {r.status for r in records} == {"completed"}
    assert len({r.node for r in records[:2]}) == 2, [r.node for r in records]
