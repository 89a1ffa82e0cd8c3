"""What the tests of the store of hidden states share."""

from __future__ import annotations

import dataclasses
import shutil

import torch
from llm_cases import ITEMS
from safetensors.torch import load_file, save_file

from legoray.data.recipes import StateRecipe
from legoray.llm.load import load_tokenizer

ALL = torch.arange(1, len(ITEMS) + 1)
TEMPLATE = "{title} ({category})"
TEXTS = [f"{row['title']} ({row['category']})" for row in ITEMS]


def recipe_of(model, **changes):
    wanted = StateRecipe(model, 1, TEMPLATE, 12, "float32", "float32")
    return dataclasses.replace(wanted, **changes)


def folders_in(home):
    return sorted(f.name for f in (home / "states").iterdir() if not f.name.startswith(".locks"))


def blocks_in(folder):
    """The content of every whole block of a unit, by name."""
    return {f.stem: f.read_bytes() for f in (folder / "blocks").glob("[!.]*.safetensors")}


def one_file(folder, kind):
    (file,) = (folder / kind).glob("[!.]*.safetensors")
    return file


def broken_model(folder, source):
    """A copy of a model in which one word's embedding is infinite; its folder's name."""
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    markets = load_tokenizer(source)("Markets")["input_ids"][1]
    weights["embeddings.word_embeddings.weight"][markets, 0] = float("inf")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return str(folder)
