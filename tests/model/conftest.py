"""A small prepared data set, and a random language model small enough for every test."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from model_cases import ITEMS, N
from small_tables import write_items

from legoray.data.codes import write_codes
from legoray.data.vectors import write_vectors
from legoray.model.features import open_features


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    """Prepared tables of `ITEMS`."""
    return write_items(tmp_path_factory.mktemp("tables"), ITEMS)


@pytest.fixture(scope="session")
def model_home(tmp_path_factory):
    """A cache folder for all of these tests."""
    return tmp_path_factory.mktemp("model_home")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The folder of a random two-layer BERT with a tokenizer of words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny_bert")
    text = " ".join(" ".join(row.values()) for row in ITEMS).lower()
    words = sorted(set("".join(c if c.isalnum() else " " for c in text).split()))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: n for n, word in enumerate(special + words)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), special, strict=True))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, **{f"{k}_token": v for k, v in names.items()}
    )
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(
            BertConfig(
                vocab_size=len(vocabulary),
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                max_position_embeddings=64,
            )
        ).save_pretrained(folder)
    write_stored(folder / "stored")
    return str(folder)


def write_stored(folder):
    """Vectors and codes of `ITEMS` as files of every form."""
    folder.mkdir()
    random = np.random.default_rng(0)
    vectors = random.standard_normal((N, 5)).astype(np.float32)
    keys = [f"i{n}" for n in range(1, N + 1)]
    np.save(folder / "vectors.npy", vectors)
    pq.write_table(pa.table({"key": keys, "vector": list(vectors)}), folder / "vectors.parquet")
    write_vectors(folder / "vectors.safetensors", keys, torch.from_numpy(vectors))
    write_codes(folder / "codes.parquet", keys, random.integers(1, 4, (N, 2)))


@pytest.fixture(scope="session")
def features_of(tables, model_home):
    """Recipe -> features of `ITEMS`, opened once."""
    opened = {}

    def open_once(recipe):
        if recipe not in opened:
            opened[recipe] = open_features(recipe, tables, model_home)
        return opened[recipe]

    return open_once


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(int(os.environ.get("LEGORAY_TEST_SEED", "7")))
