"""A real S3 service on this machine, with a bucket and with keys that it checks."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest
from ray_nodes import free_ports

from legoray.storage import remote

BUCKET = "legoray-tests"


class Server:
    """Moto's server as a process of its own."""

    def __init__(self) -> None:
        (port,) = free_ports(1)
        self.endpoint = f"http://127.0.0.1:{port}"
        self.env = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self._command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        self.start()

    def start(self) -> None:
        """Start it, with an empty bucket."""
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(self._command, stdout=quiet, stderr=quiet)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(self.endpoint, timeout=5).close()
                break
            time.sleep(0.1)
        self.client().create_bucket(Bucket=BUCKET)

    def client(self):
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="tests",
            aws_secret_access_key="secret",
        )

    def names(self, prefix: str = "") -> list[str]:
        """What the bucket holds."""
        pages = (
            self.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        )
        return [one["Key"] for page in pages for one in page.get("Contents", ())]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def served() -> Iterator[Server]:
    """A server, ended afterwards."""
    server = Server()
    try:
        yield server
    finally:
        server.stop()


def ask_only(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process ask this server, and nothing that it asked before."""
    remote._filesystem.cache_clear()
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)


def plain_environment() -> dict[str, str]:
    """This process's environment without anything of an object store's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
