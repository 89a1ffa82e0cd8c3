"""Names of language models, and what is said where one is missing."""

from __future__ import annotations

import json
import shutil
import socket

import pytest

from legoray.errors import InputError
from legoray.llm.catalogue import (
    entries,
    folder_problem,
    locate,
    read_config,
    tokenizer_checksum,
    weights_checksum,
)


def test_the_embedded_model_needs_no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    source = locate("minilm")
    config = read_config(source)
    entry = entries()["minilm"]
    assert (config["num_hidden_layers"], config["hidden_size"]) == (entry.layers, entry.hidden_size)
    assert config["model_type"] == entry.family
    assert source.licence == "Apache-2.0"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("minilmm", "did you mean 'minilm'?"),
        ("zzz", "known: "),
        ("", "there is no language model"),
        ("./nowhere", "no such folder of a language model"),
        ("/nowhere/at/all", "absolute path"),
        ("bert", "hf download google-bert/bert-base-uncased"),
        ("nobody/nothing", "unset HF_HUB_OFFLINE"),
    ],
)
def test_a_name_that_leads_nowhere_says_what_to_do(name, said):
    with pytest.raises(InputError) as caught:
        locate(name)
    assert said in str(caught.value)


def test_a_folder_needs_a_configuration_and_safetensors(tmp_path, tiny_bert):
    with pytest.raises(InputError, match=r"has no config\.json"):
        locate(str(tmp_path))
    shutil.copy(f"{tiny_bert}/config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(InputError, match="pickled weights are not read"):
        locate(str(tmp_path))
    assert locate(str(tmp_path), weights=False).folder == tmp_path


def test_checksums_follow_the_files(tmp_path, tiny_bert):
    folder = tmp_path / "copy"
    shutil.copytree(tiny_bert, folder)
    first = weights_checksum(locate(str(folder))), tokenizer_checksum(locate(str(folder)))
    assert first == (weights_checksum(locate(tiny_bert)), tokenizer_checksum(locate(tiny_bert)))
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert weights_checksum(locate(str(folder))) != first[0]
    assert tokenizer_checksum(locate(str(folder))) == first[1]
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["new"] = 59
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert tokenizer_checksum(locate(str(folder))) != first[1]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": '])
def test_a_broken_configuration_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json: is damaged"):
        read_config(locate(str(tmp_path), weights=False))


def test_a_relative_folder_would_not_be_found_by_workers(tmp_path, monkeypatch, tiny_bert):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELS", str(tmp_path))
    shutil.copytree(tiny_bert, "mine")
    assert locate("mine").folder == locate("$MODELS/mine").folder == tmp_path / "mine"
    assert f"write {tmp_path}/mine" in str(folder_problem("mine"))
    assert f"write {tmp_path}/mine" in str(folder_problem("./mine"))
    for fine in ("minilm", "owner/name", "$MODELS/mine", "~/mine", str(tmp_path)):
        assert folder_problem(fine) is None
