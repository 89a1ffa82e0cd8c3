"""Weights in another precision: converted once per node, mapped by every process, to the bit."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from llm_cases import flip_a_byte, random_model, word_tokenizer, write_model
from torch import nn

from legoray.data.recipes import States
from legoray.errors import DamagedError, InputError
from legoray.llm import load
from legoray.llm.catalogue import locate
from legoray.llm.load import load_base, settle_quantized
from legoray.llm.quantized import make_steady
from legoray.model.base import Shape
from legoray.model.content.llm import LlmConfig, LlmOperator

CONVERTED = ["bfloat16", "int8", "nf4"]
WIDE = {"hidden_size": 64, "intermediate_size": 128}  # rows of whole blocks, in 4 bits too


@pytest.fixture
def models(monkeypatch, tmp_path):
    """An empty folder of converted models; nothing is in the process's memory."""
    monkeypatch.setenv("LEGORAY_MODELS", str(tmp_path / "models"))
    load._load.cache_clear()
    yield tmp_path / "models"
    load._load.cache_clear()


def copies(models):
    """The folders of converted weights."""
    return sorted(models.glob("[!.]*")) if models.exists() else []


def fresh(name, precision):
    """The model as the libraries convert it, from its own files."""
    source = locate(name)
    given = load._quantization(source, precision) if precision in load.QUANTIZED else None
    model = load._read_weights(source.folder, precision, given)
    model.requires_grad_(False).eval()
    make_steady(settle_quantized(model))
    return model


def pages(file):
    """Kilobytes of a mapped file in this process: in all, and of those that are its own alone."""
    found = {"Size": 0, "Private_Dirty": 0}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        key, _, rest = line.partition(":")
        if key in found:
            found[key] += int(rest.split()[0]) if inside else 0
        elif "-" in key.split(" ")[0] and not rest.endswith("kB"):
            inside = line.endswith(str(file))
    return found["Size"], found["Private_Dirty"]


def assert_same(one, other):
    """Two models are equal to the bit: weights, scales, and what they compute."""
    states, others = one.state_dict(), other.state_dict()
    assert states.keys() == others.keys()
    for name, tensor in states.items():
        assert tensor.dtype == others[name].dtype, name
        assert torch.equal(tensor, others[name]), name
    ids = torch.arange(3, 14)[None]
    with torch.no_grad():
        expected = one(input_ids=ids).last_hidden_state
        assert torch.equal(other(input_ids=ids).last_hidden_state, expected)


@pytest.mark.parametrize("precision", CONVERTED)
@pytest.mark.parametrize("family", ["bert", "llama", "gpt2"])
def test_a_copy_equals_the_freshly_converted_model(models, tmp_path, family, precision):
    name = write_model(tmp_path / "model", family, **WIDE)
    expected = fresh(name, precision)
    assert_same(expected, load_base(name, precision).model)
    (made,) = copies(models)
    assert made.name.startswith(f"model-{precision}-")
    time = (made / "model.safetensors").stat().st_mtime_ns
    load._load.cache_clear()
    assert_same(expected, load_base(name, precision).model)
    assert (made / "model.safetensors").stat().st_mtime_ns == time
    assert (made / "model.safetensors").stat().st_mode & 0o044 == 0o044  # others may read it


@pytest.mark.parametrize("precision", ["float32", *CONVERTED])
def test_minilm_is_mapped_and_no_page_of_it_becomes_the_processs_own(models, precision):
    base = load_base("minilm", precision)
    folder = base.source.folder if precision == "float32" else copies(models)[0]
    (file,) = folder.glob("*.safetensors")
    config = LlmConfig(model="minilm", split=0, precision=precision)
    operator = LlmOperator(config, Shape(hidden_size=8, item_count=4)).train()
    states = States(torch.randn(3, 7, 384), torch.arange(7) < torch.tensor([[7], [3], [5]]))
    trained = [p for p in operator.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.01)
    for _ in range(2):
        nn.functional.mse_loss(operator.train()(states), torch.ones(3, 8)).backward()
        optimizer.step()
        with torch.no_grad():
            operator.eval()(states)
    mapped, own = pages(file)
    assert mapped * 1024 >= file.stat().st_size - 4096
    assert own == 0
    assert len(copies(models)) == (precision != "float32")


def test_weights_that_are_in_that_precision_already_are_not_copied(models, tmp_path):
    folder = tmp_path / "half"
    random_model("llama").bfloat16().save_pretrained(folder)
    word_tokenizer(special=False).save_pretrained(folder)
    base = load_base(str(folder), "bfloat16")
    assert {p.dtype for p in base.model.parameters()} == {torch.bfloat16}
    assert copies(models) == []


def test_other_weights_have_a_copy_of_their_own(models, tmp_path):
    name = write_model(tmp_path / "model", "bert")
    first = load_base(name, "int8")
    shutil.rmtree(name)
    write_model(tmp_path / "model", "llama")
    assert type(load_base(name, "int8").model) is not type(first.model)
    assert len(copies(models)) == 2


TELLING = """
import os, sys
from legoray.llm import load
convert = load._convert
def told(*given):
    os.write(2, b"converting;")
    convert(*given)
load._convert = told
sys.stdout.write(str(load.load_base(sys.argv[1], "int8").model.state_dict().keys()))
"""
KILLED = """
import os, signal, sys
from legoray.llm import load
convert = load._convert
def killed(*given):
    convert(*given)
    os.kill(os.getpid(), signal.SIGKILL)
load._convert = killed
load.load_base(sys.argv[1], "nf4")
"""
FULL = """
import resource, sys
from legoray.errors import InputError
from legoray.llm.load import load_base
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # the weights are larger
try:
    load_base(sys.argv[1], "int8")
except InputError as error:
    print(error)
"""


def started(script, name):
    """A Python process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(load.__file__).parents[2])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", script, name], env=environment, **pipes)


@pytest.mark.slow
def test_one_of_many_processes_converts(models, tiny_bert):
    running = [started(TELLING, tiny_bert) for _ in range(3)]
    ended = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], ended
    assert "".join(error for _, error in ended) == "converting;"
    assert len({out for out, _ in ended}) == 1
    assert_same(fresh(tiny_bert, "int8"), load_base(tiny_bert, "int8").model)
    assert len(copies(models)) == 1


def test_a_killed_conversion_leaves_nothing_that_passes_for_a_copy(models, tiny_bert):
    process = started(KILLED, tiny_bert)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert [entry.name for entry in models.glob(".building-*/model.safetensors")]
    assert copies(models) == []
    assert_same(fresh(tiny_bert, "nf4"), load_base(tiny_bert, "nf4").model)
    assert [entry.name for entry in models.glob(".*")] == [".locks"]


def test_a_full_disk_is_an_input_error_and_leaves_nothing(models, tiny_bert):
    said, error = started(FULL, tiny_bert).communicate(timeout=120)
    assert "cannot be written" in said, error
    assert "set LEGORAY_MODELS to another disk" in said
    assert [entry.name for entry in models.iterdir()] == [".locks"]


@pytest.mark.parametrize("damage", ["changed", "short"])
def test_a_damaged_copy_is_an_error_that_says_what_to_do(models, tiny_bert, damage):
    load_base(tiny_bert, "int8")
    (made,) = copies(models)
    file = made / "model.safetensors"
    load._load.cache_clear()
    if damage == "changed":
        flip_a_byte(file)
    else:
        file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(DamagedError, match="these weights in int8 are damaged") as caught:
        load_base(tiny_bert, "int8")
    assert f"delete the folder {made}" in str(caught.value)
    shutil.rmtree(made)
    assert_same(fresh(tiny_bert, "int8"), load_base(tiny_bert, "int8").model)


def test_damaged_weights_are_named_and_never_copied(models, tmp_path):
    folder = Path(write_model(tmp_path / "model", "bert"))
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:500])
    for precision in CONVERTED:
        with pytest.raises(InputError, match="cannot be loaded as a language model") as caught:
            load_base(str(folder), precision)
        assert str(folder) in str(caught.value)
    assert copies(models) == []


def test_a_folder_that_cannot_be_written_is_named(monkeypatch, tmp_path, tiny_bert):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LEGORAY_MODELS", str(tmp_path / "file" / "models"))
    load._load.cache_clear()
    with pytest.raises(InputError, match="set LEGORAY_MODELS to another disk"):
        load_base(tiny_bert, "nf4")
