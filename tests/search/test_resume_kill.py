"""The real thing: a driver is killed and started again; `test_interrupt` has Ctrl-C."""

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

from legoray.records import TrialRecord, read_trials
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
        env |= {"TINY_MARK": self.mark, "TINY_HOLD": str(sweep.with_name("hold"))}
        self.output = sweep.with_name(f"output-{self.mark}.txt")
        command = [sys.executable, str(HERE / "drive.py"), str(space), str(sweep), *(more or [])]
        self.process = subprocess.Popen(
            command,
            env=env,
            cwd=space.parent,
            start_new_session=True,
            stdout=self.output.open("w"),
            stderr=subprocess.STDOUT,
        )

    def until(self, condition, what: str, seconds: float = 240.0) -> None:
        """Wait for something while the driver works."""
        end = time.monotonic() + seconds
        while not condition():
            dead = self.process.poll() is not None
            if dead or time.monotonic() > end:
                state = f"ended with {self.process.returncode}" if dead else "still runs"
                raise AssertionError(f"no sign of '{what}'; driver {state}: {self.told()}")
            time.sleep(0.1)

    def ended(self, seconds: float = 240.0) -> int:
        """Wait for the driver's end; its exit code."""
        return self.process.wait(seconds)

    def told(self) -> str:
        return self.output.read_text()

    def family(self) -> dict[int, str]:
        """Every living process that inherited the driver's environment, and what it is."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    dead = "Z" in (entry / "stat").read_text().rpartition(")")[2].split()[0]
                    if not dead and self.mark in (entry / "environ").read_text(errors="ignore"):
                        command = (entry / "cmdline").read_text(errors="ignore")
                        found[int(entry.name)] = command.replace("\0", " ").strip()[:200]
                except OSError:
                    continue
        return found

    def end(self) -> None:
        """Whatever happens, leave nothing behind."""
        for pid in self.family():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


def wait_until_gone(driver: Driver, seconds: float = 60.0) -> None:
    """A dead driver's Ray goes with it; its two agents look for the others for a minute longer."""
    end = time.monotonic() + seconds
    while left := [name for name in driver.family().values() if not name.endswith("Agent")]:
        assert time.monotonic() < end, f"left behind: {left}"
        time.sleep(0.1)


def records(sweep: Path) -> list[TrialRecord]:
    return read_trials(sweep) if sweep.exists() else []


def under_way(sweep: Path, more_than: int) -> bool:
    """A trial has epochs behind it and more than one before it, and more have ended than before."""
    found = records(sweep)
    ended = sum(r.status == "completed" for r in found)
    return ended > more_than and any(
        r.status == "running" and 0 < len(r.epochs) < EPOCHS - 1 for r in found
    )


@pytest.mark.slow
def test_a_sweep_survives_sigkill(sample_tables, tmp_path, monkeypatch):
    monkeypatch.setenv("LEGORAY_HOME", str(sample_tables.parents[1]))
    space, sweep = tmp_path / "killed.yaml", tmp_path / "sweep"
    space.write_text(SPACE)
    hold, drivers = tmp_path / "hold", []  # while the first exists, no epoch begins

    def start(sleep: float, more: list[str] | None = None) -> Driver:
        drivers.append(Driver(space, sweep, sleep=sleep, more=more))
        return drivers[-1]

    try:
        driver = start(0.5)
        driver.until(lambda: under_way(sweep, 0), "a trial ended, another under way")
        hold.touch()
        second = start(0.0)  # refused while the first one lives
        assert second.ended() == 2
        assert "already being run by process" in second.told()
        os.kill(driver.process.pid, signal.SIGKILL)
        driver.ended()
        wait_until_gone(driver)
        before = {r.number: r for r in records(sweep)}
        assert any(r.status == "running" for r in before.values())

        hold.unlink()
        driver = start(0.0)
        assert driver.ended() == 0, driver.told()
        check_finished(sweep, before)

        began = time.monotonic()
        driver = start(0.0)
        assert driver.ended() == 0, driver.told()
        assert "has ended: all trials are done" in driver.told()
        assert "popularity" in driver.told()
        assert time.monotonic() - began < 60
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
