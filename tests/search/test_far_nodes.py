"""A sweep over two nodes that share no folder, at an S3 address; its driver dies with its disk."""

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
from ray_nodes import Cluster
from storage_server import BUCKET, served

from legoray.records import TrialRecord

ROOT = Path(__file__).parents[2]
TRIALS, EPOCHS = 4, 2
HOME, SWEEP = f"s3://{BUCKET}/home", f"s3://{BUCKET}/sweeps/far"
SPACE = f"""\
name: far
data: {ROOT}/datasets/mind_sample.yaml
model:
  hidden_size: 8
  content: {{name: pooling}}
  behavior: {{name: pooling}}
  predictor: {{name: dot}}
train: {{epochs: {EPOCHS}, learning_rate: {{log: [1e-3, 1e-1]}}}}
evaluate: {{metrics: [auc], select: auc}}
search: {{trials: {TRIALS}, scheduler: {{name: none}}, sampler: {{name: random}}}}
final: {{top: 1, seeds: 1, baselines: [random]}}
"""


class World:
    """The nodes, the service, and drivers on machines of their own."""

    def __init__(self, base, cluster, server):
        self.base, self.cluster, self.server = base, cluster, server
        (base / "far.yaml").write_text(SPACE)

    def start(self, machine: str, *, env=None) -> subprocess.Popen:
        own = {"LEGORAY_HOME": HOME, "LEGORAY_NODE_CACHE": str(self.base / machine)}
        command = [sys.executable, str(ROOT / "run_search.py"), str(self.base / "far.yaml")]
        command += ["--address", self.cluster.address, "--folder", SWEEP]
        out = (self.base / f"{machine}.txt").open("w")
        return subprocess.Popen(
            command, env={**self.cluster.env, **own, **(env or {})}, cwd=self.base,
            stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def told(self, machine: str) -> str:
        return (self.base / f"{machine}.txt").read_text()

    def records(self) -> list[TrialRecord]:
        """As the address has them."""
        client, found = self.server.client(), []
        for name in self.server.names("sweeps/far/trials/"):
            if name.endswith(".json"):
                body = client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
                found.append(TrialRecord.model_validate_json(body))
        return sorted(found, key=lambda record: record.number)


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_at_an_address_outlives_its_driver_and_that_one_s_disk(tmp_path):
    short = Path(f"/tmp/lr{uuid.uuid4().hex[:6]}")
    short.mkdir()
    caches = [{"LEGORAY_NODE_CACHE": str(tmp_path / name)} for name in ("head", "node")]
    with served() as server:
        cluster = Cluster(short, env={**server.env, **caches[0]}, second_env=caches[1])
        world = World(tmp_path, cluster, server)
        drivers = []
        try:
            _refused(world)
            drivers.append(world.start("one"))
            _until(world, drivers[-1], "one", lambda found: sum(map(_ended, found)) >= 1)
            drivers[-1].send_signal(signal.SIGKILL)
            drivers[-1].wait()
            shutil.rmtree(tmp_path / "one")
            before = world.records()
            drivers.append(world.start("two"))
            assert drivers[-1].wait(1200) == 0, world.told("two")[-3000:]
            _check(world, before)
        finally:
            for driver in drivers:
                if driver.poll() is None:
                    driver.kill()
            cluster.stop()
            shutil.rmtree(short, ignore_errors=True)


def _ended(record: TrialRecord) -> bool:
    return record.status == "completed"


def _until(world, driver, machine, condition, seconds=900.0) -> None:
    end = time.monotonic() + seconds
    while not condition(world.records()):
        assert driver.poll() is None, world.told(machine)[-3000:]
        assert time.monotonic() < end, world.told(machine)[-3000:]
        time.sleep(0.3)


def _refused(world) -> None:
    """Before anything is trained: exit code 2 and what is wrong."""
    gone = world.start("gone", env={"AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
    assert gone.wait(300) == 2
    told = " ".join(world.told("gone").split())
    assert f"error: {HOME}: " in told
    assert "the service cannot be reached" in told
    assert f"error: {SWEEP}: " in told
    assert "Traceback" not in told


def _check(world, before: list[TrialRecord]) -> None:
    found = world.records()
    assert [r.phase for r in found] == ["search"] * TRIALS + ["final", "baseline"]
    assert {r.status for r in found} == {"completed"}
    assert len({r.key for r in found}) == len(found)
    assert len({r.node for r in found[:TRIALS]}) == 2, [r.node for r in found]
    kept = {r.number: (r.key, r.ended) for r in before if _ended(r)}
    assert kept.items() <= {r.number: (r.key, r.ended) for r in found}.items()
    for record in found[:-1]:
        assert [e["epoch"] for e in record.epochs] == list(range(1, EPOCHS + 1))
        names = world.server.names(f"sweeps/far/models/{record.key}/")
        assert any("/files/best/model.safetensors-" in name for name in names)
        assert not any("/last/files/" in name and not name.endswith("/") for name in names)
    assert "has ended: all trials are done" in world.told("two")
    assert f"legoray leaderboard {SWEEP}" in world.told("two")
    _look(world, found[TRIALS].key)


def _look(world, key: str) -> None:
    """From a fourth machine: the table, and a model that scores."""
    env = {**world.cluster.env, "LEGORAY_NODE_CACHE": str(world.base / "four")}
    (world.base / "new.txt").write_text("Storm closes coastal roads\n")
    history = ["--history", "Storm closes roads", "--candidates", str(world.base / "new.txt")]
    for words, expected in (
        (["leaderboard", SWEEP], "pooling+pooling+dot"),
        (["recommend", f"{SWEEP}/models/{key}", *history], "Storm closes coastal roads"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "legoray.cli", *words],
            env={**os.environ, **env}, cwd=world.base, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
        assert expected in done.stdout
