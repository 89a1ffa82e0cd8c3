"""The real thing: a driver is killed, interrupted, and started again until its sweep is done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import optuna
import pytest
import tinytrain
from optuna.trial import TrialState

from legoray.records import SweepInfo, TrialRecord, read_json, read_trials
from legoray.search.journal import open_journal

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TRIALS, EPOCHS = 5, 3
SPACE = f"""\
name: killed
data: {ROOT}/datasets/mind_sample.yaml
model:
  hidden_size: 8
  content: {{choice: [{{name: id}}, {{name: pooling}}]}}
  behavior: {{name: pooling}}
  predictor: {{name: dot}}
train: {{epochs: {EPOCHS}, learning_rate: {{log: [1e-3, 1e-1]}}}}
evaluate: {{metrics: [auc], select: auc}}
search: {{trials: {TRIALS}, concurrent: 2, scheduler: {{name: none}}, sampler: {{name: random}}}}
final: {{top: 1, seeds: 1}}
"""


class Driver:
    """A driver in a session of its own; every process below it is known by a mark."""

    def __init__(self, space: Path, sweep: Path, *, sleep: float, more: list[str] | None = None):
        self.mark = uuid.uuid4().hex
        env = {**os.environ, "PYTHONPATH": f"{HERE}:{ROOT}", "TINY_SLEEP": str(sleep)}
        env |= {"TINY_MARK": self.mark}
        command = [sys.executable, str(HERE / "drive.py"), str(space), str(sweep), *(more or [])]
        self.process = subprocess.Popen(
            command,
            env=env,
            cwd=space.parent,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def family(self) -> list[int]:
        """Every living process that inherited the driver's environment."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    dead = "Z" in (entry / "stat").read_text().rpartition(")")[2].split()[0]
                    if not dead and self.mark in (entry / "environ").read_text(errors="ignore"):
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    def end(self) -> None:
        """Whatever happens, leave nothing behind."""
        for pid in self.family():
            os.kill(pid, signal.SIGKILL)
        self.process.communicate()


def wait_for(condition, seconds: float, what: str):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what}")


def records(sweep: Path) -> list[TrialRecord]:
    return read_trials(sweep) if sweep.exists() else []


def under_way(sweep: Path, more_than: int) -> bool:
    """A trial is in the middle of its epochs, and more have ended than before."""
    found = records(sweep)
    ended = sum(r.status == "completed" for r in found)
    return ended > more_than and any(r.status == "running" and r.epochs for r in found)


@pytest.mark.slow
def test_a_sweep_survives_sigkill_and_ctrl_c(sample_tables, tmp_path, monkeypatch):
    monkeypatch.setenv("LEGORAY_HOME", str(sample_tables.parents[1]))
    space, sweep = tmp_path / "killed.yaml", tmp_path / "sweep"
    space.write_text(SPACE)
    drivers = []

    def start(sleep: float, more: list[str] | None = None) -> Driver:
        drivers.append(Driver(space, sweep, sleep=sleep, more=more))
        return drivers[-1]

    try:
        driver = start(0.7)
        wait_for(lambda: under_way(sweep, 0), 120, "a trial ended and another one under way")
        second = start(0.0)  # refused while the first one lives
        assert "already being run by process" in second.process.communicate(timeout=60)[0]
        assert second.process.returncode == 2
        os.kill(driver.process.pid, signal.SIGKILL)
        driver.process.wait()
        wait_for(lambda: not driver.family(), 60, "its Ray is gone")
        before = {r.number: r for r in records(sweep)}
        assert any(r.status == "running" for r in before.values())

        driver = start(0.7)
        done = sum(r.status == "completed" for r in before.values())
        wait_for(lambda: under_way(sweep, done), 120, "going on")
        os.kill(driver.process.pid, signal.SIGINT)
        output, _ = driver.process.communicate(timeout=60)
        assert driver.process.returncode == 130, output
        assert "was interrupted" in output
        assert f"to go on: python run_search.py {space}" in output
        assert not any(r.status == "running" for r in records(sweep))
        assert read_json(sweep / "sweep.json", SweepInfo).state == "interrupted"

        output, _ = (driver := start(0.0)).process.communicate(timeout=180)
        assert driver.process.returncode == 0, output
        check_finished(sweep, before)

        began = time.monotonic()
        output, _ = (driver := start(0.0)).process.communicate(timeout=60)
        assert driver.process.returncode == 0, output
        assert "has ended: all trials are done" in output
        assert "popularity" in output
        assert time.monotonic() - began < 30
        check_finished(sweep, before)
    finally:
        for driver in drivers:
            driver.end()


def check_finished(sweep: Path, before: dict[int, TrialRecord]) -> None:
    """Every trial once, none running, each epoch trained once, the test measured for the final."""
    found = records(sweep)
    search = [r for r in found if r.phase == "search"]
    assert [r.status for r in search] == ["completed"] * TRIALS
    assert len({r.key for r in found}) == len(found)
    assert {n: r.key for n, r in before.items()}.items() <= {r.number: r.key for r in found}.items()
    assert any(r.resumed for r in search)
    for record in found:
        if record.phase != "baseline":
            assert [e["epoch"] for e in record.epochs] == list(range(1, EPOCHS + 1))
            folder = sweep / "models" / record.key
            trained = [e["epoch"] for e in tinytrain.events(folder, "epoch")]
            assert sorted(trained) == list(range(1, EPOCHS + 1))
            assert len(tinytrain.events(folder, "test")) == (record.phase == "final")
            assert not (folder / "last").exists()
    assert [r.label for r in found if r.phase == "baseline"] == ["random", "popularity"]
    assert sum(r.phase == "final" for r in found) == 1
    info = json.loads((sweep / "sweep.json").read_text())
    assert (info["state"], info["ended"]) == ("finished", "trials")
    study = optuna.load_study(study_name=info["id"], storage=open_journal(sweep / "study.journal"))
    states = [t.state for t in study.get_trials(deepcopy=False)]
    assert states.count(TrialState.COMPLETE) == TRIALS
    assert TrialState.RUNNING not in states
    assert TrialState.WAITING not in states
