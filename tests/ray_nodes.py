"""A real Ray cluster of two nodes on one host."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

from legoray.rayinit import QUIET


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
        self.env |= {**QUIET, "LEGORAY_TEST_MARK": self.mark}
        # Ray Train leaves an actor of its own behind, for which a node that ends would wait.
        self.env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = "0"
        self.env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
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
