"""Tiny random language models, small tables, and plain full forwards to compare with."""

from __future__ import annotations

import multiprocessing

import torch
from small_tables import write_items

ITEMS = [
    {"title": "Rain floods the harbour town", "category": "weather"},
    {"title": "Striker scores twice in the late cup final", "category": "sport"},
    {"title": "", "category": ""},
    {"title": "Markets", "category": "money"},
    {
        "title": "Choir sings again after the long winter break in the old harbour",
        "category": "music",
    },
    {"title": "Rain again", "category": "weather"},
    {"title": "The town sings in the rain", "category": "music"},
]
LAYERS = 3
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
# what a family needs beside SMALL
FAMILIES = {
    "bert": {},
    "roberta": {},
    "distilbert": {"dim": 32, "n_heads": 4, "hidden_dim": 64},
    "mpnet": {},
    "electra": {"embedding_size": 16},
    "modernbert": {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
    "deberta-v2": {"relative_attention": True, "conv_kernel_size": 3},
    "xlm-roberta": {},
    "llama": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 4},
    "qwen2": {"num_key_value_heads": 2},
    "smollm3": {"num_key_value_heads": 2},
    "gemma": {"num_key_value_heads": 2, "head_dim": 8},
    "gemma2": {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4},
    "phi": {},
    "phi3": {"num_key_value_heads": 2},
    "gpt_neox": {},
    "olmo2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    "gemma3_text": {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4},
    "gpt2": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 16},
    "glm": {"num_key_value_heads": 2, "head_dim": 8},
}


def random_model(family, vocabulary=60, **sizes):
    """A random model of a family, in evaluation mode; the caller's random numbers are kept."""
    from transformers import AutoConfig, AutoModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = AutoConfig.for_model(
            family, **{**SMALL, "vocab_size": vocabulary, **FAMILIES.get(family, {}), **sizes}
        )
        return AutoModel.from_config(config).eval()


def word_tokenizer(*, special=True):
    """A tokenizer of the items' words; `[CLS] ... [SEP]` around a text, or nothing."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    text = " ".join(" ".join(row.values()) for row in ITEMS).lower()
    names = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    vocabulary = {word: n for n, word in enumerate(names + sorted(set(text.split())))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if special:
        core.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
    tokens = {"unk_token": "[UNK]"} | ({"pad_token": "[PAD]"} if special else {})
    return PreTrainedTokenizerFast(tokenizer_object=core, **tokens)


def write_model(folder, family, **sizes):
    """A random model and its tokenizer in a folder; the folder's name."""
    random_model(family, **sizes).save_pretrained(folder)
    word_tokenizer(special=family != "llama").save_pretrained(folder)
    return str(folder)


def write_tables(folder, items=ITEMS):
    """Prepared tables with these items alone."""
    return write_items(folder, items, key="N", shards=1)


def plain_forward(model, tokenizer, texts, length):
    """The library's own forward over each text alone: a list of `[T, H]`."""
    outputs = []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=length)["input_ids"]
        with torch.no_grad():
            states = model(input_ids=torch.tensor([ids])).last_hidden_state
        outputs.append(states[0].float())
    return outputs


def relative_error(found, expected):
    """The largest difference as a share of the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())


def run_forked(work, count):
    """Run a function in forked processes; their exit codes."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work) for _ in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def flip_a_byte(file):
    """Damage a file near its end."""
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
