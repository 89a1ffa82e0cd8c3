"""Token authentication, on and off, against real heads: who gets in, and what others are told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from ray_nodes import Cluster

TOKEN = "0123456789abcdef" * 2
CONNECT = """
import sys
from legoray.cli import run
from legoray.rayinit import ensure_ray

def connect():
    ensure_ray(sys.argv[1])
    import ray
    print("nodes:", sum(node["Alive"] for node in ray.nodes()))

run(connect)
"""


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", ["token", "disabled"])
def test_who_gets_in(mode, tmp_path):
    short = Path(f"/tmp/lr{uuid.uuid4().hex[:6]}")
    short.mkdir()
    env = {"RAY_AUTH_MODE": mode}
    if mode == "token":
        env["RAY_AUTH_TOKEN"] = TOKEN
    cluster = Cluster(short, second=False, env=env)
    try:
        for given, expected in cases(mode, tmp_path):
            check(cluster.address, given, tmp_path, expected)
    finally:
        cluster.stop()
        shutil.rmtree(short, ignore_errors=True)


def cases(mode, folder):
    """The environments of drivers, and what each of them gets: a message, or in."""
    file = folder / "token"
    file.write_text(f"{TOKEN}\n")
    if mode == "disabled":
        return [({"RAY_AUTH_MODE": "disabled"}, "")]
    ours = {"RAY_AUTH_MODE": "token"}
    return [
        ({"RAY_AUTH_MODE": "disabled"}, "demands a token, and RAY_AUTH_MODE is 'disabled'"),
        ({}, "demands a token, and RAY_AUTH_MODE is 'disabled'"),
        (ours, "RAY_AUTH_MODE: is 'token', but there is no token"),
        ({**ours, "RAY_AUTH_TOKEN": "other"}, "refuses the token in RAY_AUTH_TOKEN"),
        ({**ours, "RAY_AUTH_TOKEN_PATH": "/nowhere/t"}, "/nowhere/t cannot be read: No such file"),
        ({**ours, "RAY_AUTH_TOKEN_PATH": str(file)}, ""),
        ({**ours, "RAY_AUTH_TOKEN": TOKEN}, ""),
    ]


def check(address, given, folder, expected):
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    env |= {"HOME": str(folder), **given}  # no token file of whoever runs the tests
    done = subprocess.run(
        [sys.executable, "-c", CONNECT, address],
        env=env, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    told = " ".join(done.stderr.split())
    if not expected:
        assert done.returncode == 0, told[-2000:]
        assert done.stdout == "nodes: 1\n"
        return
    assert done.returncode == 2, told[-2000:]
    assert expected in told, told[-2000:]
    assert "Traceback" not in told
    assert TOKEN not in told
