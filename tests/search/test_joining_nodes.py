"""A sweep that began on one node uses a second one that joins, and survives that one's death."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
import tinytrain
from ray_nodes import Cluster

from legoray.records import read_trials
from legoray.search.room import Room

HERE = Path(__file__).parent
EPOCHS, TRIALS = 3, 12
SPACE = f"""\
name: joining
data: {HERE.parents[1]}/datasets/mind_sample.yaml
model: {{content: {{name: id}}, behavior: {{name: pooling}}, predictor: {{name: dot}}}}
train: {{epochs: {EPOCHS}, learning_rate: {{log: [1e-3, 1e-1]}}}}
evaluate: {{metrics: [auc], select: auc}}
search: {{trials: {TRIALS}, scheduler: {{name: none}}, sampler: {{name: random}}}}
final: {{top: 0, baselines: []}}
"""


def test_room_grows_with_the_cluster_and_never_shrinks():
    fitting = [2]
    room = Room(lambda: fitting[0], seconds=0.0)
    assert room() == 2
    fitting[0] = 5
    assert room() == 5
    fitting[0] = 1
    assert room() == 5

    def gone():
        raise ConnectionError

    room._fitting = gone
    assert room() == 5
    still = Room(lambda: fitting[0], seconds=1000.0)
    fitting[0] = 9
    assert still() == 1


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_node_that_joins_is_used_and_one_that_dies_is_survived(sample_tables, tmp_path):
    short = Path(f"/tmp/lr{uuid.uuid4().hex[:6]}")
    short.mkdir()
    space, sweep, hold = tmp_path / "joining.yaml", tmp_path / "sweep", tmp_path / "hold"
    space.write_text(SPACE)
    paths = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    env = {"PYTHONPATH": paths, "LEGORAY_HOME": str(sample_tables.parents[1])}
    env |= {"TINY_SLEEP": "0.5", "TINY_HOLD": str(hold)}
    cluster = Cluster(short, second=False, env=env)
    driver = None
    try:
        command = [sys.executable, str(HERE / "drive.py"), str(space), str(sweep)]
        log = (tmp_path / "driver.txt").open("w")
        driver = subprocess.Popen(
            command, env=cluster.env | {"RAY_ADDRESS": cluster.address}, cwd=tmp_path,
            stdout=log, stderr=log,
        )  # fmt: skip

        def until(condition, what):
            end = time.monotonic() + 900
            while not condition(read_trials(sweep) if sweep.exists() else []):
                told = (tmp_path / "driver.txt").read_text()[-3000:]
                assert driver.poll() is None, f"ended before '{what}': {told}"
                assert time.monotonic() < end, f"no sign of '{what}': {told}"
                time.sleep(0.1)

        until(lambda found: any(r.epochs for r in found), "a first epoch")
        hold.touch()  # from now on no epoch begins
        assert len(read_trials(sweep)) == 1
        cluster.join()
        until(lambda found: len(training(sweep, found)) == 2, "a second trial that trains")
        hold.unlink()
        until(lambda found: len(ended_on(found)) == 2, "trials that ended on both nodes")
        hold.touch()
        cluster.kill("node")
        hold.unlink()
        assert driver.wait(900) == 0, (tmp_path / "driver.txt").read_text()[-3000:]
        check(sweep)
    finally:
        if driver is not None and driver.poll() is None:
            driver.send_signal(signal.SIGKILL)
            driver.wait()
        cluster.stop()
        shutil.rmtree(short, ignore_errors=True)


def training(sweep, found):
    """The trials that run and whose train function has begun."""
    begun = {path.parent.name for path in sweep.glob("models/*/events.jsonl")}
    return [r for r in found if r.status == "running" and r.key in begun]


def ended_on(found):
    return {r.node for r in found if r.status == "completed"}


def check(sweep: Path) -> None:
    """Every trial is there once, with every epoch trained once but the one that was cut off."""
    records = read_trials(sweep)
    assert [r.status for r in records] == ["completed"] * TRIALS
    assert len({r.key for r in records}) == TRIALS
    again = 0
    for record in records:
        assert [e["epoch"] for e in record.epochs] == list(range(1, EPOCHS + 1))
        trained = [e["epoch"] for e in tinytrain.events(sweep / "models" / record.key, "epoch")]
        assert set(trained) == set(range(1, EPOCHS + 1))
        again += len(trained) - EPOCHS
    assert again <= 1
