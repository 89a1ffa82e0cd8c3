"""The store's work shared out over two real Ray nodes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import torch
from llm_cases import ITEMS
from ray_nodes import Cluster

from legoray.data.recipes import StateRecipe
from legoray.llm import build
from legoray.llm.store import open_states

ALL = torch.arange(1, len(ITEMS) + 1)
# Run on the cluster: makes the states, then tells the nodes on which actors computed.
MAKE = """
import json, sys
from pathlib import Path
import ray
from legoray.data.recipes import StateRecipe
from legoray.llm import build
from legoray.llm.store import ensure_states
from ray.util.state import list_actors

build.block_size = lambda length, width: 1
recipe = StateRecipe(sys.argv[1], 1, "{title}", 12, "float32", "float32")
said = []
ensure_states(recipe, Path(sys.argv[2]), Path(sys.argv[3]), said.append)
actors = [a for a in list_actors() if "BlockActor" in a.class_name]
print(json.dumps({"said": said, "nodes": [a.node_id for a in actors]}))
"""


@pytest.mark.cluster
@pytest.mark.slow
def test_actors_on_two_nodes_fill_one_store(tmp_path, item_tables, tiny_bert, monkeypatch):
    short = Path(f"/tmp/lr{uuid.uuid4().hex[:6]}")  # sockets' paths must be short
    short.mkdir()
    cluster = Cluster(short)
    try:
        done = subprocess.run(
            [sys.executable, "-c", MAKE, tiny_bert, str(item_tables), str(tmp_path / "shared")],
            env=cluster.env | {"RAY_ADDRESS": cluster.address, "LEGORAY_RAY_DATA": "always"},
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
    finally:
        cluster.stop()
        shutil.rmtree(short, ignore_errors=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert any("computed by Ray Data: 2 actors, 1 CPUs" in line for line in told["said"])
    assert len(set(told["nodes"])) == 2
    monkeypatch.setattr(build, "block_size", lambda length, width: 1)
    recipe = StateRecipe(tiny_bert, 1, "{title}", 12, "float32", "float32")
    ours = open_states(recipe, item_tables, tmp_path / "alone")
    monkeypatch.setattr(build, "compute_block", None)  # all of it is there
    theirs = open_states(recipe, item_tables, tmp_path / "shared")
    assert len(theirs.rows.blocks) == len(ours.rows.blocks) == len(ITEMS)
    torch.testing.assert_close(
        theirs.gather(ALL).hidden, ours.gather(ALL).hidden, rtol=1e-6, atol=1e-6
    )
