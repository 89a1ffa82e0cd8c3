"""A real small disk runs full: the search says so and goes on once there is room."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from legoray.records import SweepInfo, read_json, read_trials

ROOT = Path(__file__).parents[2]
TRIALS, EPOCHS = 2, 2
SPACE = f"""\
name: full
data: {ROOT}/datasets/mind_sample.yaml
model:
  hidden_size: 64
  content: {{name: id}}
  behavior: {{name: pooling}}
  predictor: {{name: dot}}
train:
  {{epochs: {EPOCHS}, patience: {EPOCHS}, batch_size: 512, learning_rate: {{log: [1e-3, 1e-1]}}}}
evaluate: {{metrics: [auc], select: auc}}
search:
  {{trials: {TRIALS}, trainer: local, concurrent: 1, sampler: {{name: random}},
    scheduler: {{name: none}}}}
final: {{top: 0, baselines: []}}
tracking: {{uri: "sqlite:///{{folder}}/mlflow.db"}}
"""


class SmallDisk:
    """A file system in memory of so many KiB."""

    def __init__(self, kib: int) -> None:
        self.place = place = Path(tempfile.mkdtemp(prefix="lr", dir="/tmp"))  # short, for sockets
        command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")

    def grow(self, kib: int) -> None:
        command = ["mount", "-o", f"remount,size={kib}k", str(self.place)]
        subprocess.run(command, check=True)

    def end(self) -> None:
        subprocess.run(["umount", "-l", str(self.place)], check=False)
        self.place.rmdir()


@pytest.fixture
def disk():
    """Makes a small disk of some size; it is gone at the end."""
    made = []

    def make(kib: int) -> SmallDisk:
        made.append(SmallDisk(kib))
        return made[0]

    yield make
    for one in made:
        one.end()


def search(tmp_path, sweep: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """The command as a person runs it."""
    space = tmp_path / "space.yaml"
    space.write_text(SPACE.replace("{folder}", str(tmp_path)))
    return subprocess.run(
        [sys.executable, str(ROOT / "run_search.py"), str(space), "--folder", str(sweep)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env}, cwd=tmp_path,
        capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip


def assert_told(done: subprocess.CompletedProcess[str], *words: str) -> None:
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert "legoray/cli.py" not in said, "a traceback"
    last = said.strip().splitlines()[-1]
    assert last.startswith("error: ")
    for word in words:
        assert word in last


def assert_whole(done: subprocess.CompletedProcess[str], sweep: Path) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    records = read_trials(sweep)
    assert [r.phase for r in records] == ["search"] * TRIALS
    assert {r.status for r in records} == {"completed"}
    assert len({r.key for r in records}) == TRIALS
    assert all([e["epoch"] for e in r.epochs] == list(range(1, EPOCHS + 1)) for r in records)
    assert read_json(sweep / "sweep.json", SweepInfo).state == "finished"


@pytest.mark.slow
def test_the_sweep_s_disk_is_full(sample_tables, tmp_path, disk):
    """In its second epoch: a checkpoint takes 1.5 MB, and the old one stays until it is written."""
    small = disk(3000)
    sweep, home = small.place / "sweep", {"LEGORAY_HOME": str(sample_tables.parents[1])}
    done = search(tmp_path, sweep, **home)
    assert_told(done, "No space left on device", "free some space")
    small.grow(200_000)
    assert_whole(search(tmp_path, sweep, **home), sweep)


@pytest.mark.slow
def test_the_caches_disk_is_full(tmp_path, disk):
    small = disk(600)
    home = {"LEGORAY_HOME": str(small.place / "home")}
    assert_told(search(tmp_path, tmp_path / "sweep", **home), "No space left on device")
    small.grow(200_000)
    assert_whole(search(tmp_path, tmp_path / "sweep", **home), tmp_path / "sweep")


@pytest.mark.slow
def test_ray_s_disk_is_full(sample_tables, tmp_path, disk):
    small = disk(40)
    env = {"LEGORAY_HOME": str(sample_tables.parents[1]), "RAY_TMPDIR": str(small.place)}
    assert_told(search(tmp_path, tmp_path / "sweep", **env), "Ray did not start")
    small.grow(200_000)
    assert_whole(search(tmp_path, tmp_path / "sweep", **env), tmp_path / "sweep")
