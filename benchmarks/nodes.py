"""Trials per hour of a sweep on two local Ray nodes against one, in one run.

    python benchmarks/nodes.py [--trials 24] [--seconds 2]

A trial here waits for most of its time, as one does whose worker works on a device of its own; it
does not burn the cores, of which two nodes on one machine have no more than one node. So the ratio
says what LegoRay's own part (proposals, slots, records, the driver) costs where a second node has
its own speed, and nothing about training that is bound by this machine's cores. Each node has one
CPU in Ray's books; slots are started before the time is taken, as they stay warm for a whole sweep.

On 2 cores that were busy with other work (load 12 to 28), `--trials 10 --seconds 8`, in one run:

    nodes  trials per hour  ratio
    1                  423   1.00
    2                  788   1.86
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from rich.console import Console
from rich.table import Table

from legoray.train.job import Job, Outcome, Report, Runtime

ROOT = Path(__file__).resolve().parents[1]
SPACE = """\
name: nodes
data: {root}/datasets/mind_sample.yaml
model:
  content: {{name: id}}
  behavior: {{name: pooling}}
  predictor: {{name: dot}}
train: {{epochs: 2, learning_rate: {{log: [1e-6, 1e-1]}}}}
evaluate: {{metrics: [auc], select: auc}}
search: {{trials: {trials}, scheduler: {{name: none}}, sampler: {{name: random}}}}
final: {{top: 0, baselines: []}}
tracking: {{uri: sqlite:///{folder}/mlflow.db}}
"""


def waiting_train(job: Job, runtime: Runtime, report: Report) -> Outcome:
    """A training of two epochs that waits instead of computing."""
    rows = []
    for epoch in (1, 2):
        time.sleep(float(os.environ["NODES_SECONDS"]) / 2)
        value = 0.5 + job.config.train.learning_rate / 10 + epoch / 1000
        rows.append({"epoch": epoch, "loss": 1 - value, "auc": value, "train_seconds": 1.0})
        report(rows[-1])
    return Outcome(epochs=rows, best=rows[-1], test={}, costs={"seconds": 2.0})


def drive(space: str, folder: str, address: str) -> int:
    """The search, in a process of its own."""
    from legoray.search.run import run_search

    console = Console(file=sys.stderr, highlight=False)
    train = "benchmarks.nodes:waiting_train"
    return run_search(Path(space), folder=folder, address=address, console=console, train_fn=train)


def trials_per_hour(nodes: int, work: Path, trials: int, seconds: float) -> float:
    """Trials per hour between the first trial that ended on every node and the last one."""
    sys.path.insert(0, str(ROOT / "tests"))
    from ray_nodes import Cluster

    short = Path(f"/tmp/lr{uuid.uuid4().hex[:6]}")  # sockets' paths must be short
    short.mkdir()
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {"NODES_SECONDS": str(seconds), "PYTHONPATH": paths}
    env["LEGORAY_HOME"] = str(work / "home")
    folder, space = work / f"sweep{nodes}", work / f"{nodes}.yaml"
    space.write_text(SPACE.format(root=ROOT, trials=trials * nodes, folder=work))
    cluster = Cluster(short, second=nodes > 1, env=env)
    try:
        command = [sys.executable, __file__, "--drive", str(space), str(folder), cluster.address]
        subprocess.run(command, env=cluster.env, cwd=work, check=True, stderr=subprocess.PIPE)
    finally:
        cluster.stop()
        shutil.rmtree(short, ignore_errors=True)
    return _rate(folder, nodes)


def _rate(folder: Path, nodes: int) -> float:
    found = [json.loads(path.read_text()) for path in (folder / "trials").glob("[0-9]*.json")]
    by_node: dict[str, list[float]] = {}
    for record in found:
        assert record["status"] == "completed", record
        by_node.setdefault(record["node"], []).append(record["ended"])
    if len(by_node) != nodes:
        raise SystemExit(f"{nodes} nodes were there, {len(by_node)} had trials")
    warm = max(min(ends) for ends in by_node.values())
    last = min(max(ends) for ends in by_node.values())  # from then on a node may have nothing to do
    ended = sum(warm < end <= last for ends in by_node.values() for end in ends)
    return ended / (last - warm) * 3600


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Trials per hour of two nodes against one.")
    parser.add_argument("--trials", type=int, default=16, help="per node")
    parser.add_argument("--seconds", type=float, default=4.0, help="that a trial waits")
    parser.add_argument("--drive", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.drive:
        sys.exit(drive(*asked.drive))
    table = Table("nodes", "trials per hour", "ratio")
    rates: list[float] = []
    with tempfile.TemporaryDirectory(prefix="legoray-nodes-") as work:
        for nodes in (1, 2):
            rates.append(trials_per_hour(nodes, Path(work), asked.trials, asked.seconds))
            table.add_row(str(nodes), f"{rates[-1]:,.0f}", f"{rates[-1] / rates[0]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
