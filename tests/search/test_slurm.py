"""`cluster/slurm.sh` as Slurm runs it, with a head and a worker that are both this machine.

`srun` and `scontrol` are stand-ins that run the command here and list the nodes; all else is real.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from ray_nodes import Cluster, free_ports

from legoray.rayinit import QUIET
from legoray.records import read_trials

ROOT = Path(__file__).parents[2]
SRUN = """\
#!/bin/bash
# Runs the command on this machine, whatever node is asked for, and ends with it.
echo "srun $*" >>"$STUB_LOG"
while [[ "${1:-}" == --* ]]; do shift; done
exec "$@"
"""
SCONTROL = """\
#!/bin/bash
echo "scontrol $*" >>"$STUB_LOG"
if [ "$1 $2" = "show hostnames" ]; then printf 'node-a\\nnode-b\\n'; fi
"""
SPACE = """\
name: slurm
data: datasets/mind_sample.yaml
model: {content: {name: id}, behavior: {name: pooling}, predictor: {name: dot}}
train: {epochs: 1, learning_rate: {log: [1e-3, 1e-1]}}
evaluate: {metrics: [auc], select: auc}
search: {trials: 4, scheduler: {name: none}, sampler: {name: random}}
final: {top: 0, baselines: []}
"""


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_slurm_script_searches_on_a_head_and_a_worker(sample_tables, tmp_path):
    work, stubs, mark = tmp_path / "work", tmp_path / "stubs", uuid.uuid4().hex
    scratch = Path(f"/tmp/s{mark[:4]}")
    for folder in (work / "search_spaces", stubs, scratch):
        folder.mkdir(parents=True)
    shutil.copy(ROOT / "run_search.py", work)
    for name in ("legoray", "datasets"):
        (work / name).symlink_to(ROOT / name)
    (work / "search_spaces" / "slurm.yaml").write_text(SPACE)
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (stubs / name).write_text(text)
        (stubs / name).chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment |= {k: v for k, v in QUIET.items() if k != "RAY_AUTH_MODE"}
    environment |= {
        "PATH": f"{stubs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "STUB_LOG": str(tmp_path / "stubs.log"),
        "LEGORAY_TEST_MARK": mark,
        "LEGORAY_HOME": str(sample_tables.parents[1]),
        "LEGORAY_SCRATCH": str(scratch),
        "LEGORAY_WAIT": "900",
        "LEGORAY_DASHBOARD_PORT": str(free_ports(1)[0]),
        "SLURM_JOB_ID": str(uuid.uuid4().int % 10_000),
        "SLURM_JOB_NODELIST": "node-[a-b]",
        "SLURM_CPUS_PER_TASK": "1",
        "VENV": str(tmp_path / "none"),
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": "150000000",
    }
    script = subprocess.Popen(
        ["bash", ROOT / "cluster" / "slurm.sh", "search_spaces/slurm.yaml"],
        cwd=work, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        told, _ = script.communicate(timeout=1500)
        logs = "".join(path.read_text()[-1500:] for path in work.glob(".ray-*.log"))
        assert script.returncode == 0, told[-3000:] + logs
        assert "has ended: all trials are done" in told
        records = read_trials(work / "sweeps" / "slurm")
        assert [r.status for r in records] == ["completed"] * 4
        assert len({r.node for r in records}) == 2
        called = (tmp_path / "stubs.log").read_text()
        assert called.count("ray start --block") == 2
        assert "--nodelist=node-a ray start" in called
        assert "--nodelist=node-b ray start" in called
        assert "requeue" not in called
        assert not list(work.glob(".ray-token-*"))
    finally:
        if script.poll() is None:
            script.send_signal(signal.SIGKILL)
        Cluster._kill(mark)
        shutil.rmtree(scratch, ignore_errors=True)


def test_the_token_of_a_slurm_job_is_for_its_user_alone(tmp_path):
    """The script up to where it asks for the nodes, which are not there."""
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    (stubs / "scontrol").write_text("#!/bin/bash\nstat -c %a .ray-token-7 >mode\nexit 1\n")
    (stubs / "scontrol").chmod(0o755)
    done = subprocess.run(
        ["bash", ROOT / "cluster" / "slurm.sh"],
        cwd=tmp_path,
        env={
            "PATH": f"{stubs}:{Path(sys.executable).parent}:/usr/bin:/bin",
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "node-a",
            "VENV": str(tmp_path / "none"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "scontrol names no node of node-a" in done.stderr
    assert (tmp_path / "mode").read_text() == "600\n"
    assert not (tmp_path / ".ray-token-7").exists()
