"""A real Ray cluster of two nodes on one host."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from legoray.rayinit import QUIET, quiet_environment


@contextlib.contextmanager
def local_ray(importable: Path, **resources: int) -> Iterator[Any]:
    """A local Ray whose workers can import what lies in a folder, and what all tests share."""
    old = os.environ.get("PYTHONPATH")
    found = [str(importable), str(Path(__file__).parent), *([old] if old else [])]
    os.environ["PYTHONPATH"] = os.pathsep.join(found)
    quiet_environment()
    import ray

    with tempfile.TemporaryDirectory(prefix="lr-", ignore_cleanup_errors=True) as folder:
        ray.init(
            address="local",
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=200 * 2**20,
            _temp_dir=folder,
            **resources,
        )
        yield ray
        ray.shutdown()
    os.environ.pop("PYTHONPATH")
    if old is not None:
        os.environ["PYTHONPATH"] = old


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for one in sockets:
        one.close()
    return ports


class Cluster:
    """A head and a second node of one CPU each, each with a folder of its own for its sockets."""

    def __init__(
        self,
        folder: Path,
        *,
        cpus: int = 1,
        second: bool = True,
        env: dict[str, str] | None = None,
        second_env: dict[str, str] | None = None,
    ) -> None:
        """Start it.

        Args:
            folder: with a short path, for the nodes' files.
            cpus: of each node.
            second: start the second node now; otherwise `join` does.
            env: of all nodes, beside this process's own.
            second_env: of the second node, beside that.
        """
        self.mark = uuid.uuid4().hex
        self.folder = folder
        gcs, dashboard, client, agent, self._agent = free_ports(5)
        self.address, self.dashboard = f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}"
        self.env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        self.env |= {**QUIET, "LEGORAY_TEST_MARK": self.mark}
        # Ray Train leaves an actor of its own behind, for which a node that ends would wait.
        self.env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = "0"
        self.env |= env or {}
        self._cpus, self._second_env = cpus, second_env or {}
        self.env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.nodes: list[subprocess.Popen[bytes]] = []
        for _ in range(3):  # on a machine that is too busy a part of the head may give up
            if self._start_head(gcs, dashboard, client, agent):
                break
        else:
            raise AssertionError((folder / "head.log").read_text()[-2000:])
        if second:
            self.join()
            self.wait_for_nodes(2)

    def _start_head(self, gcs: int, dashboard: int, client: int, agent: int) -> bool:
        self._start(
            "head", "--head", f"--port={gcs}", "--dashboard-host=127.0.0.1",
            f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}",
            f"--dashboard-agent-listen-port={agent}",
        )  # fmt: skip
        try:
            self.wait_for_nodes(1)
        except AssertionError:
            if self.nodes[-1].poll() is None:
                raise
            self.nodes.pop()
            return False
        return True

    def join(self) -> None:
        """Start the second node."""
        options = (f"--address={self.address}", f"--dashboard-agent-listen-port={self._agent}")
        self._start("node", *options, env=self._second_env)

    def _start(self, name: str, *options: str, env: dict[str, str] | None = None) -> None:
        log = (self.folder / f"{name}.log").open("wb")
        command = [*self.ray("start"), "--block", f"--num-cpus={self._cpus}"]
        command += ["--node-ip-address=127.0.0.1", f"--temp-dir={self.folder / name}"]
        command += ["--object-store-memory=150000000", *options]
        mark = {"LEGORAY_TEST_NODE": f"{name}-{self.mark}"}
        self.nodes.append(
            subprocess.Popen(
                command, env={**self.env, **(env or {}), **mark}, stdout=log, stderr=log
            )
        )

    def kill(self, name: str) -> None:
        """End a node (`head` or `node`) as a machine without power ends: every process at once."""
        self._kill(f"{name}-{self.mark}")

    @staticmethod
    def ray(*words: str) -> list[str]:
        return [sys.executable, "-m", "ray.scripts.scripts", *words]

    def wait_for_nodes(self, count: int, seconds: float = 300.0) -> None:
        code = (
            "import sys, ray; ray.init(address=sys.argv[1], logging_level='ERROR');"
            "print(sum(n['Alive'] for n in ray.nodes()))"
        )
        end = time.monotonic() + seconds
        seen = ""
        while time.monotonic() < end:
            if any(node.poll() is not None for node in self.nodes):
                seen = (self.folder / "head.log").read_text()[-2000:]
                break
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
        self._kill(self.mark)

    @staticmethod
    def _kill(mark: str) -> None:
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_text("latin-1"):
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue
