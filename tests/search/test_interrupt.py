"""Ctrl-C once and twice, in real processes: what is said, what is kept, and that it goes on."""

from __future__ import annotations

import os
import signal
import time

import pytest
import tinytrain
from test_resume_kill import SPACE, Driver, records

from legoray.records import SweepInfo, read_json


@pytest.mark.slow
def test_once_ends_softly_and_twice_at_once(sample_tables, tmp_path, monkeypatch):
    monkeypatch.setenv("LEGORAY_HOME", str(sample_tables.parents[1]))
    space, sweep = tmp_path / "killed.yaml", tmp_path / "sweep"
    space.write_text(SPACE)
    hold, drivers = tmp_path / "hold", []  # while it exists, no epoch begins

    def start() -> Driver:
        drivers.append(Driver(space, sweep, sleep=0.3))
        return drivers[-1]

    def running(least=1):
        """So many trials are in an epoch of theirs, after their first, and wait there."""
        return sum(r.status == "running" and bool(r.epochs) for r in records(sweep)) >= least

    try:
        driver = start()
        driver.until(running, "a trial under way")
        hold.touch()
        time.sleep(0.5)
        before = {r.key: len(r.epochs) for r in records(sweep) if r.status == "running"}
        os.kill(driver.process.pid, signal.SIGINT)
        driver.until(lambda: "stopping softly" in driver.told(), "an answer")
        time.sleep(1.0)
        assert driver.process.poll() is None  # it waits for the epochs in progress
        known = len(records(sweep))
        hold.unlink()
        assert driver.ended() == 130, driver.told()
        told = driver.told()
        assert "nothing is lost" in told
        assert f"to go on: python run_search.py {space}" in told
        assert "report.html" in told
        assert (sweep / "report.html").exists()
        assert len(records(sweep)) == known  # nothing new began
        stopped = [r for r in records(sweep) if r.status == "interrupted"]
        assert stopped
        for record in stopped:
            assert record.ended is None
            # the epoch that it was in is whole, reported, and in its checkpoint
            assert len(record.epochs) > before.get(record.key, 0)
            trained = tinytrain.events(sweep / "models" / record.key, "epoch")
            assert len(trained) == len(record.epochs)

        driver = start()
        driver.until(lambda: running() or driver.process.poll() is not None, "going on")
        hold.touch()
        os.kill(driver.process.pid, signal.SIGINT)
        driver.until(lambda: "stopping softly" in driver.told(), "an answer")
        began = time.monotonic()
        os.kill(driver.process.pid, signal.SIGINT)
        assert driver.ended() == 130, driver.told()
        assert time.monotonic() - began < 60  # though no epoch could end
        assert "Stopped at once" in driver.told()
        assert f"to go on: python run_search.py {space}" in driver.told()
        assert read_json(sweep / "sweep.json", SweepInfo).state == "interrupted"
        assert not any(r.status == "running" for r in records(sweep))
        again = [r for r in records(sweep) if r.key in {s.key for s in stopped}]
        assert any(r.resumed for r in again)  # it went on, from its last epoch
        for record in again:
            trained = tinytrain.events(sweep / "models" / record.key, "epoch")
            assert [e["epoch"] for e in trained] == list(range(1, len(trained) + 1))
    finally:
        for driver in drivers:
            driver.end()
