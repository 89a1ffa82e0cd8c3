"""A store that is migrated once, a real tracking server that can be killed, and a text model."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from made_models import save_cnn

from legoray.spaceconfig import TrackingConfig
from legoray.zoo.store import connect


@pytest.fixture
def project(tmp_path, monkeypatch, empty_store):
    """A project folder with an empty store, entered."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def uri(project):
    """Address of the project's store."""
    return f"sqlite:///{project / 'mlflow.db'}"


@pytest.fixture
def client(uri):
    """A client of the project's store."""
    return connect(uri)


@pytest.fixture
def tracking():
    """The configuration that a user has who sets nothing."""
    return TrackingConfig()


@pytest.fixture(scope="session")
def text_model(tmp_path_factory):
    """A small cnn model's folder; it reads title and category."""
    return save_cnn(tmp_path_factory.mktemp("model") / "best")


class Server:
    """A real `mlflow` server on loopback, to be started and killed at will."""

    def __init__(self, folder: Path, command: str = "server") -> None:
        self.folder, self.command = folder, command
        self.port = _free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        program = str(Path(sys.executable).parent / "mlflow")
        arguments = [program, self.command, "--workers", "1", "--port", str(self.port)]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                arguments,
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait()

    def _wait(self) -> None:
        for _ in range(1800):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.address}/health", timeout=5)
                return
            time.sleep(0.1)
        raise AssertionError((self.folder / "server.log").read_text())

    def kill(self) -> None:
        """SIGKILL, its children included."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(project):
    """A server over the project's store; the test starts it."""
    made = Server(project)
    yield made
    made.kill()


@pytest.fixture
def interface(project):
    """`mlflow ui` in the project's folder, as a user starts it; the test starts it."""
    made = Server(project, "ui")
    yield made
    made.kill()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
