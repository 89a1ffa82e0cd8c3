"""Tiny language models and tables, made once."""

from __future__ import annotations

import pytest
import torch
from llm_cases import write_model, write_tables

from legoray.llm import build
from legoray.llm.gguf import models_folder


@pytest.fixture(scope="session", autouse=True)
def _models(tmp_path_factory):
    """Copies of the tiny models' weights do not stay on this machine; what was there is used."""
    folder = tmp_path_factory.mktemp("models")
    for kept in models_folder().glob("[!.]*"):
        (folder / kept.name).symlink_to(kept)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEGORAY_MODELS", str(folder))
        yield


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    """The folder of a random three-layer BERT."""
    return write_model(tmp_path_factory.mktemp("bert"), "bert")


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory):
    """The folder of a random three-layer Llama whose tokenizer has no special tokens."""
    return write_model(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture(scope="session")
def item_tables(tmp_path_factory):
    """Prepared tables of `ITEMS`."""
    return write_tables(tmp_path_factory.mktemp("tables"))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(7)


@pytest.fixture
def pairs(monkeypatch):
    """Blocks of two texts each: the seven items make four."""
    monkeypatch.setattr(build, "block_size", lambda length, width: 2)
