"""Two real Ray nodes on one host: a sweep handed in by `ray job submit` has trials on both."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from legoray.rayinit import QUIET
from legoray.records import read_trials

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SPACE = """\
name: spread
data: {root}/datasets/mind_sample.yaml
model:
  hidden_size: 8
  content: {{choice: [{{name: id}}, {{name: pooling}}]}}
  behavior: {{name: pooling}}
  predictor: {{name: dot}}
train: {{epochs: 2, learning_rate: {{log: [1e-3, 1e-1]}}}}
evaluate: {{metrics: [auc], select: auc}}
search: {{trials: 4, scheduler: {{name: none}}, sampler: {{name: random}}}}
final: {{top: 0, baselines: []}}
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for one in sockets:
        one.close()
    return ports


class Cluster:
    """A head and a second node of one CPU each, each with a folder of its own for its sockets."""

    def __init__(self, folder: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.folder = folder
        gcs, dashboard, client, agent, other = free_ports(5)
        self.address, self.dashboard = f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}"
        self.env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        self.env |= {**QUIET, "LEGORAY_TEST_MARK": self.mark, "PYTHONPATH": str(ROOT)}
        self.nodes: list[subprocess.Popen[bytes]] = []
        self._start(
            "head", "--head", f"--port={gcs}", "--dashboard-host=127.0.0.1",
            f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}",
            f"--dashboard-agent-listen-port={agent}",
        )  # fmt: skip
        self.wait_for_nodes(1)
        self._start("node", f"--address={self.address}", f"--dashboard-agent-listen-port={other}")
        self.wait_for_nodes(2)

    def _start(self, name: str, *options: str) -> None:
        log = (self.folder / f"{name}.log").open("wb")
        command = [*self.ray("start"), "--block", "--num-cpus=1", "--node-ip-address=127.0.0.1"]
        command += [f"--temp-dir={self.folder / name}", "--object-store-memory=150000000"]
        self.nodes.append(
            subprocess.Popen([*command, *options], env=self.env, stdout=log, stderr=log)
        )

    @staticmethod
    def ray(*words: str) -> list[str]:
        return [sys.executable, "-m", "ray.scripts.scripts", *words]

    def wait_for_nodes(self, count: int, seconds: float = 180.0) -> None:
        code = (
            "import sys, ray; ray.init(address=sys.argv[1], logging_level='ERROR');"
            "print(sum(n['Alive'] for n in ray.nodes()))"
        )
        end = time.monotonic() + seconds
        seen = ""
        while time.monotonic() < end:
            done = subprocess.run(
                [sys.executable, "-c", code, self.address],
                env=self.env, capture_output=True, text=True, check=False,
            )  # fmt: skip
            seen = done.stdout + done.stderr[-500:]
            if done.stdout.strip().endswith(str(count)):
                return
            time.sleep(1)
        raise AssertionError(f"no {count} nodes: {seen}")

    def stop(self) -> None:
        """End what was started here, by process id: first the nodes, then what outlives them."""
        for node in self.nodes:
            node.send_signal(signal.SIGTERM)
        for node in self.nodes:
            try:
                node.wait(20)
            except subprocess.TimeoutExpired:
                node.kill()
                node.wait()
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and self.mark in (entry / "environ").read_text("latin-1"):
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue


@pytest.mark.cluster
@pytest.mark.slow
def test_a_submitted_sweep_runs_on_both_nodes(sample_tables, tmp_path):
    short = Path(f"/tmp/lr{uuid.uuid4().hex[:6]}")  # sockets' paths must be short
    short.mkdir()
    work, sweep = tmp_path / "work", tmp_path / "sweep"
    work.mkdir()
    (work / "spread.yaml").write_text(SPACE.format(root=ROOT))
    (work / "drive.py").write_text((HERE / "drive.py").read_text())
    (work / "tinytrain.py").write_text((HERE / "tinytrain.py").read_text())
    cluster = Cluster(short)
    try:
        settings = {"LEGORAY_HOME": str(sample_tables.parents[1]), "TINY_SLEEP": "1"}
        variables = ", ".join(f'"{k}": "{v}"' for k, v in settings.items())
        done = subprocess.run(
            [
                *cluster.ray("job", "submit", "--address", cluster.dashboard),
                "--working-dir", str(work),
                "--runtime-env-json", f'{{"env_vars": {{{variables}}}}}',
                "--", sys.executable, "drive.py", "spread.yaml", str(sweep),
            ],
            env=cluster.env, capture_output=True, text=True, timeout=400, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert "has ended: all trials are done" in done.stdout
        records = read_trials(sweep)
        assert [r.status for r in records] == ["completed"] * 4
        assert len({r.node for r in records}) == 2, [r.node for r in records]
        _search_by_address(cluster, work, tmp_path / "second", settings)
    finally:
        cluster.stop()


def _search_by_address(cluster: Cluster, work: Path, sweep: Path, settings: dict[str, str]) -> None:
    """The same search, real training and all, by `run_search.py --address` from a shell."""
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "run_search.py"), "spread.yaml",
            "--address", cluster.address, "--folder", str(sweep), "--trials", "2",
        ],
        env=cluster.env | settings, cwd=work,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    records = read_trials(sweep)
    assert [r.status for r in records] == ["completed"] * 2
    assert len({r.node for r in records}) == 2, [r.node for r in records]
