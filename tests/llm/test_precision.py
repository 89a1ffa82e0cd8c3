"""What this machine computes in: tried by a real product, refused with the nearest."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from legoray.llm import precision
from legoray.llm.precision import PRECISIONS, precision_problem

ROOT = Path(__file__).parents[2]
SPACE = """name: small
data: {data}
model:
  hidden_size: 8
  content:
    choice:
      - {{name: llm, model: minilm, precision: {{choice: [float32, nf4]}}}}
      - {{name: vector, model: minilm, precision: int8}}
  behavior: {{name: additive}}
  predictor: {{name: dot}}
"""


@pytest.mark.parametrize("name", PRECISIONS)
def test_all_precisions_work_here_and_leave_random_numbers_alone(name):
    precision._tried.cache_clear()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with torch.no_grad():
        assert precision_problem(name) is None
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("name", ["int8", "nf4"])
def test_the_weights_that_a_trial_compares_with_are_near_the_given_ones(name):
    weights = torch.randn(96, 128)
    _, held = precision._TRIALS[name](weights, torch.device("cpu"))
    if name == "int8":
        step = weights.abs().amax(dim=1, keepdim=True) / 127
        assert ((held - weights).abs() <= 0.51 * step + 1e-3).all()  # scales are taken in float16
    else:
        largest = weights.view(-1, 64).abs().amax(dim=1)
        assert torch.equal(held.view(-1, 64).abs().amax(dim=1), largest)
        assert len((held.view(-1, 64) / largest[:, None]).unique()) <= 16 * 3  # rounding apart


def test_the_evaluation_path_of_eight_bits_on_a_cpu_is_noticed_as_another_result():
    weights = torch.randn(96, 128)
    layer, held = precision._int8(weights, torch.device("cpu"))
    assert precision._wrong("int8", layer, weights, held) == ""
    layer.training = False  # rounds the activations to 8 bits too
    assert "its product is wrong on this cpu" in precision._wrong("int8", layer, weights, held)


def test_a_layer_without_a_gradient_is_noticed():
    weights = torch.randn(96, 128)
    _, held = precision._nf4(weights, torch.device("cpu"))
    still = lambda inputs: F.linear(inputs.detach(), held).requires_grad_()  # noqa: E731
    assert "its gradient is wrong" in precision._wrong("nf4", still, weights, held)


def test_weights_that_lost_too_much_are_noticed():
    weights = torch.randn(96, 128)
    held = weights + 0.5 * torch.randn(96, 128)
    layer = lambda inputs: F.linear(inputs, held)  # noqa: E731
    assert "its weights are wrong" in precision._wrong("nf4", layer, weights, held)


@pytest.fixture(scope="module")
def without_bitsandbytes(tmp_path_factory):
    """The environment of a Python that has every package of this one but bitsandbytes."""
    folder = tmp_path_factory.mktemp("packages")
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not entry.name.startswith("bitsandbytes"):
            (folder / entry.name).symlink_to(entry)
    return {
        **os.environ,
        "PYTHONPATH": f"{folder}:{ROOT}",
        "HF_HUB_OFFLINE": "1",
        "LEGORAY_HOME": str(tmp_path_factory.mktemp("home")),
        "LEGORAY_MODELS": str(tmp_path_factory.mktemp("models")),
    }


def run_python(environment, *arguments):
    command = [sys.executable, "-S", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


MAIN = "from legoray.cli import main; main()"
REASON = "bitsandbytes cannot be imported (No module named 'bitsandbytes'); nearest: bfloat16"


def test_a_space_is_refused_at_the_check_where_there_is_no_kernel(tmp_path, without_bitsandbytes):
    file = tmp_path / "space.yaml"
    file.write_text(SPACE.format(data=ROOT / "datasets" / "mind_sample.yaml"))
    ran = run_python(without_bitsandbytes, "-c", MAIN, "check", str(file))
    assert ran.returncode == 2
    assert ran.stdout == ""  # nothing was prepared
    assert "Traceback" not in ran.stderr
    assert f"{file}:7: model.content.choice[0].precision.choice[1]" in ran.stderr
    assert f"precision nf4: {REASON}" in ran.stderr
    assert f"{file}:8: model.content.choice[1]" in ran.stderr
    assert f"precision int8: {REASON}" in ran.stderr


def test_a_command_is_refused_too(tmp_path, without_bitsandbytes):
    given = ["vectors", str(ROOT / "datasets" / "mind_sample.yaml"), "--precision", "nf4"]
    output = tmp_path / "vectors.safetensors"
    ran = run_python(without_bitsandbytes, "-c", MAIN, *given, "--output", str(output))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.strip() == f"error: precision nf4: {REASON}"


USE = """
import torch
from legoray.errors import InputError
from legoray.data.recipes import States
from legoray.llm.load import load_base
from legoray.model.base import Shape
from legoray.model.content.llm import LlmConfig, LlmOperator
try:
    load_base("minilm", "nf4")
except InputError as error:
    print(error)
config = LlmConfig(model="minilm", precision="bfloat16")
operator = LlmOperator(config, Shape(hidden_size=8, item_count=3))
states = States(torch.randn(2, 5, 384), torch.ones(2, 5, dtype=torch.bool))
operator(states).sum().backward()
print([tuple(p.grad.shape) for p in operator.encoder_parameters()])
"""


def test_a_worker_without_the_kernel_refuses_and_the_nearest_works(without_bitsandbytes):
    ran = run_python(without_bitsandbytes, "-c", USE)
    assert ran.returncode == 0, ran.stderr
    refused, shapes = ran.stdout.splitlines()
    assert refused == f"minilm: precision nf4: {REASON}"
    assert shapes == "[(8, 384), (384, 8), (8, 384), (384, 8)]"


NOTE = "from legoray.llm.precision import precision_note as n; print(n('bfloat16'), n('int8'))"


def test_a_processor_without_fast_bfloat16_is_said_to_be_slow():
    slow = {**os.environ, "PYTHONPATH": str(ROOT), "ONEDNN_MAX_CPU_ISA": "AVX2"}
    ran = subprocess.run(
        [sys.executable, "-c", NOTE], env=slow, capture_output=True, text=True, timeout=120
    )
    assert ran.stdout.startswith("precision bfloat16 is slow on this processor: a product takes ")
    assert ran.stdout.strip().endswith("None")
