"""A tiny random model that writes, prompts for it, and a data set to write about."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from llm_cases import SMALL
from rich.console import Console

from legoray.data.written import part_files, read_written, written_folder
from legoray.llm.generation.augment import augment
from legoray.llm.generation.job import Asked

ROOT = Path(__file__).resolve().parents[2]
TITLES = (ROOT / "datasets/mind_sample/train/news.tsv").read_text(encoding="utf-8")

PROMPT = """\
name: short
attribute: short
user: "{title} -> "
max_new_tokens: 12
"""


def write_writer(folder, *, positions=256, template=None):
    """A random Llama with a head, and a tokenizer of pieces of words; the folder's name."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    core = ByteLevelBPETokenizer()
    lines = TITLES.splitlines()[:300]
    specials = ["</s>", "<user>"]
    core.train_from_iterator(lines, vocab_size=400, special_tokens=specials, show_progress=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core._tokenizer, eos_token="</s>", additional_special_tokens=["<user>"]
    )
    tokenizer.chat_template = template
    sizes = {**SMALL, "pad_token_id": None, "max_position_embeddings": positions}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = AutoConfig.for_model(
            "llama",
            **sizes,
            num_key_value_heads=2,
            vocab_size=400,
            eos_token_id=0,
            bos_token_id=None,
            initializer_range=0.5,  # what it writes depends on what it reads
        )
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def write_prompt(folder, text=PROMPT, **changes):
    """A prompt file, some of its lines replaced."""
    for old, new in changes.items():
        text = "\n".join(new if line.startswith(old) else line for line in text.splitlines())
    path = Path(folder) / "short.yaml"
    path.write_text(text + "\n", encoding="utf-8")
    return str(path)


def write_dataset(folder, home, tables):
    """The embedded corpus as a data set of the test's own, prepared already."""
    shutil.copytree(tables, home / "tables" / tables.name)
    text = (ROOT / "datasets/mind_sample.yaml").read_text(encoding="utf-8")
    text = text.replace("path: mind_sample", f"path: {ROOT}/datasets/mind_sample")
    path = Path(folder) / "sample.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def asked(dataset, **given):
    """A small request."""
    return Asked(**{"dataset": dataset, "limit": 24, "batch": 4, **given})


def run(request):
    """Augment, and what it said."""
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    augment(request, console)
    return console.export_text()


def rows_of(home, attribute="short"):
    """What is written: all rows of all parts, and key -> text."""
    folder = written_folder(home, "mind_sample", attribute)
    import pyarrow.parquet as pq

    every = [row for path in part_files(folder) for row in pq.read_table(path).to_pylist()]
    table = read_written(folder)
    return every, dict(zip(table["key"].to_pylist(), table["text"].to_pylist(), strict=True))
