"""The world of a disturbed sweep: a driver, one or two Ray nodes, an MLflow server.

It has two forms. `alone`: the driver starts a Ray of its own, which dies with it. `cluster`: a head
and a second node that outlive the driver. Every process carries the run's mark, and those of a node
the node's, so that each can be killed whole and nothing of anybody else's ever is.
"""

from __future__ import annotations

import os
import random
import re
import sys
from pathlib import Path

from processes import MARK, Driver, MlflowServer, family, kill, kill_family, wait_for
from ray_nodes import Cluster, free_ports

from legoray.rayinit import QUIET
from legoray.records import TrialRecord, read_trials

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROCESS = {
    "worker": re.compile(r"^ray::RayTrainWorker"),
    "trial": re.compile(r"^ray::(_Inner|TrialRunner)\b"),
    "slot": re.compile(r"^ray::TrainController"),
    "mailbox": re.compile(r"^ray::Mailbox"),
}


class World:
    """What runs, and how each of it is killed and started again."""

    def __init__(self, folder: Path, short: Path, mark: str, home: Path) -> None:
        """Nothing is started yet.

        Args:
            folder: of the sweep, the space and the logs.
            short: for Ray's sockets, whose paths must be short.
            mark: of all processes.
            home: where the prepared tables lie.
        """
        self.folder, self.mark, self._short = folder, mark, short
        self.sweep = folder / "sweep"
        self.space = folder / "space.yaml"
        self.env = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "RAY_TMPDIR")}
        self.env |= {**QUIET, MARK: mark, "LEGORAY_HOME": str(home), "OMP_NUM_THREADS": "1"}
        self.env["PYTHONPATH"] = os.pathsep.join(map(str, (HERE, HERE.parent, ROOT)))
        self.env["RAY_worker_niceness"] = "0"  # or a busy machine lets no worker train
        self.env |= {"RAY_TMPDIR": str(short / "own"), "HF_HUB_OFFLINE": "1"}
        (short / "own").mkdir(parents=True, exist_ok=True)
        self.mlflow = MlflowServer(folder / "mlflow", free_ports(1)[0], self.env)
        self.driver: Driver | None = None
        self.cluster: Cluster | None = None
        self._clusters = 0

    # --- starting

    def start(self, form: str) -> None:
        """Start what is missing of a form of the world, and a driver."""
        if not self.mlflow.answers():
            self.mlflow.kill()
            self.mlflow.start()
            wait_for(self.mlflow.answers, "the MLflow server answers", 300)
        command = [sys.executable, str(HERE / "drive.py"), str(self.space), str(self.sweep)]
        if form == "cluster":
            if self.cluster is None:
                self._clusters += 1
                folder = self._short / f"c{self._clusters}"
                folder.mkdir()
                self.cluster = Cluster(folder, env=self.env)
            command.append(self.cluster.address)
        self.driver = Driver(command, log=self.folder / "driver.log", env=self.env)

    def end_cluster(self) -> None:
        """End the two nodes, so that a driver can have a Ray of its own."""
        if self.cluster is not None:
            self.cluster.stop()
            self.cluster = None

    # --- looking

    def records(self) -> list[TrialRecord]:
        """The sweep's records, but for one that is being replaced."""
        return read_trials(self.sweep) if self.sweep.exists() else []

    def epochs(self) -> int:
        """How many epochs have been reported by now."""
        return sum(len(record.epochs) for record in self.records())

    def processes(self, kind: str) -> list[int]:
        """The ids of the processes of a kind."""
        return [pid for pid, name in family(self.mark).items() if PROCESS[kind].match(name)]

    # --- killing

    def kill(self, victim: str, dice: random.Random) -> bool:
        """Kill something with SIGKILL; whether it was there.

        `worker`, `trial`, `slot` and `mailbox` are one process each, `driver` too; `mlflow` is the
        server and its workers, `node` all processes of the second Ray node, `machine` everything.
        """
        if victim in PROCESS:
            found = self.processes(victim)
            kill([dice.choice(sorted(found))] if found else [])
            return bool(found)
        assert self.driver is not None
        if victim == "driver":
            self.driver.kill()
        elif victim == "mlflow":
            self.mlflow.kill()
        elif victim == "node":
            assert self.cluster is not None
            self.cluster.kill("node")
        else:
            kill_family(self.mark)
            self.driver.process.wait()
            self.mlflow.kill()
            if self.cluster is not None:
                self.cluster.stop()
                self.cluster = None
        return True

    def bring_back(self, victim: str) -> None:
        """Start again what does not come back by itself: a server, a node."""
        if victim == "mlflow":
            self.mlflow.start()
        elif victim == "node":
            assert self.cluster is not None
            self.cluster.join()

    def end(self) -> None:
        """Leave nothing behind."""
        kill_family(self.mark)
        self.mlflow.kill()
