"""A small prepared data set, and a random language model small enough for every test."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from model_cases import ITEMS

from legoray.data.schema import SCHEMA_VERSION, Manifest, items_schema
from legoray.model.features import open_features
from legoray.records import write_json


def write_tables(folder, items, name="small", fingerprint="f" * 64):
    """Prepared tables with these items alone, in two shards; the folder."""
    attributes = list(items[0])
    rows = [{"item_id": n, "key": f"i{n}", **row} for n, row in enumerate(items, start=1)]
    half = (len(rows) + 1) // 2
    files = []
    for number, shard in enumerate((rows[:half], rows[half:])):
        file = folder / "items" / f"part-{number:05d}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(shard, schema=items_schema(attributes)), file)
        files.append(str(file.relative_to(folder)))
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        title="a small corpus",
        synthetic=True,
        processor="own",
        config_hash="c" * 16,
        fingerprint=fingerprint,
        attributes=attributes,
        text=attributes,
        group="impression",
        max_history=10,
        labeled={},
        counts={"items": len(items)},
        sources=[],
        files=files,
    )
    write_json(folder / "manifest.json", manifest)
    return folder


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    """Prepared tables of `ITEMS`."""
    return write_tables(tmp_path_factory.mktemp("tables"), ITEMS)


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
    return str(folder)


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
