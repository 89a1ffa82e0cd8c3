"""Names of language models, and what is said where one is missing."""

from __future__ import annotations

import io
import json
import re
import shutil
import socket

import pytest
from llm_cases import FAMILIES, VARIANTS
from rich.console import Console

from legoray.errors import InputError
from legoray.llm.catalogue import (
    entries,
    folder_problem,
    locate,
    place_of,
    read_config,
    tokenizer_checksum,
    weights_checksum,
)
from legoray.llm.listing import print_models


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


def test_the_entries_are_whole():
    """Each family is among those whose splits are tested; each revision is a commit."""
    families = {*FAMILIES, *VARIANTS}
    for name, entry in entries().items():
        assert entry.family in families, name
        assert entry.revision is None or re.fullmatch("[0-9a-f]{40}", entry.revision), name
        assert isinstance(entry.path, str) or len(entry.path) == len(entry.packages), name
        assert isinstance(entry.path, str) or re.fullmatch("[0-9a-f]{64}", entry.checksum), name
    unpinned = [name for name, entry in entries().items() if entry.revision is None]
    assert unpinned == ["glm4-9b"]
    assert len({entry.hub for entry in entries().values()}) == len(entries())


@pytest.fixture
def hub_cache(tmp_path, monkeypatch, tiny_bert):
    """A function that lays a model into an empty cache of the hub, as a download does."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def fetch(hub, revision):
        model = tmp_path / f"models--{hub.replace('/', '--')}"
        shutil.copytree(tiny_bert, model / "snapshots" / revision)
        (model / "refs").mkdir()
        (model / "refs" / "main").write_text(revision)
        return model / "snapshots" / revision

    return fetch


def test_a_short_name_means_its_pinned_revision(hub_cache):
    entry = entries()["bert"]
    assert place_of(entry) == ""
    folder = hub_cache(entry.hub, entry.revision)
    source = locate("bert")
    assert (source.folder, source.revision) == (folder, entry.revision)
    assert source.licence == entry.licence
    assert place_of(entry) == "cache"


def test_another_revision_is_not_taken_for_the_pinned_one(hub_cache):
    entry = entries()["bert"]
    folder = hub_cache(entry.hub, "0" * 40)
    assert place_of(entry) == ""
    with pytest.raises(InputError) as caught:
        locate("bert")
    assert "the cache has 000000000000: write google-bert/bert-base-uncased" in str(caught.value)
    assert f"hf download {entry.hub} --revision {entry.revision}" in str(caught.value)
    assert locate(entry.hub).folder == folder  # the hub id is not pinned


def test_the_models_are_listed_with_their_places(hub_cache):
    hub_cache(entries()["gpt2"].hub, entries()["gpt2"].revision)
    output = io.StringIO()
    print_models(Console(file=output, width=300))
    lines = {line.split()[0]: line for line in output.getvalue().splitlines()}
    assert set(entries()) <= set(lines)
    assert "installed" in lines["minilm"]
    assert "hub's cache" in lines["gpt2"]
    assert "not here" in lines["roberta"]
    assert all(entry.licence in lines[name] for name, entry in entries().items())
