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
GROUPED = {"num_key_value_heads": 2}
WINDOW = {**GROUPED, "head_dim": 8, "sliding_window": 4}  # smaller than the texts of the tests
# what a family needs beside SMALL
FAMILIES = {
    "bert": {},
    "roberta": {},
    "distilbert": {"dim": 32, "n_heads": 4, "hidden_dim": 64},
    "mpnet": {},
    "electra": {"embedding_size": 16},
    "modernbert": {
        "bos_token_id": 1,
        "eos_token_id": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
        "local_attention": 4,
        "global_attn_every_n_layers": 2,
    },
    "deberta-v2": {"relative_attention": True, "conv_kernel_size": 3},
    "xlm-roberta": {},
    "llama": GROUPED,
    "mistral": {**GROUPED, "sliding_window": 4},
    "qwen2": GROUPED,
    "smollm3": GROUPED,
    "gemma": {**GROUPED, "head_dim": 8},
    "gemma2": {**WINDOW},
    "phi": {},
    "phi3": GROUPED,
    "gpt_neox": {},
    "olmo2": GROUPED,
    "qwen3": {**GROUPED, "head_dim": 8},
    "gemma3_text": {**WINDOW, "sliding_window_pattern": 2},
    "gpt2": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 16},
    "glm": {**GROUPED, "head_dim": 8},
}
_GPT = {"n_embd": 32, "n_layer": LAYERS, "n_head": 4, "n_positions": 64}
_EXPERTS = {**GROUPED, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "num_experts": 4}
# another family, or other settings of one of FAMILIES: its name and what it needs beside SMALL
VARIANTS = {
    "phi3-window": ("phi3", {**GROUPED, "sliding_window": 4}),
    "qwen2-window": (
        "qwen2",
        {**GROUPED, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    ),
    "opt-plain": ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
    "opt-350m": (
        "opt",
        {"ffn_dim": 64, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
    ),
    "neox-serial": ("gpt_neox", {"use_parallel_residual": False}),
    "llama-scaled": (
        "llama",
        {
            **GROUPED,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        },
    ),
    "embedding-gemma": ("gemma3_text", {**WINDOW, "use_bidirectional_attention": True}),
    "deberta": ("deberta", {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    "glm4": ("glm4", {**GROUPED, "head_dim": 8}),
    "cohere": ("cohere", GROUPED),
    "cohere2": ("cohere2", {**GROUPED, "sliding_window": 4}),
    "falcon": ("falcon", {"alibi": False}),
    "falcon-alibi": ("falcon", {"alibi": True}),
    "stablelm": ("stablelm", GROUPED),
    "granite": ("granite", GROUPED),
    "olmo3": ("olmo3", {**GROUPED, "sliding_window": 4}),
    "starcoder2": ("starcoder2", {**GROUPED, "sliding_window": 4}),
    "nemotron": ("nemotron", GROUPED),
    "bloom": ("bloom", {"n_layer": LAYERS, "n_head": 4}),
    "mpt": ("mpt", {"d_model": 32, "n_layers": LAYERS, "n_heads": 4}),
    "gptj": ("gptj", {**_GPT, "rotary_dim": 4}),
    "gpt_bigcode": ("gpt_bigcode", _GPT),
    "gpt_neo": (
        "gpt_neo",
        {
            "num_layers": LAYERS,
            "num_heads": 4,
            "attention_types": [[["global", "local", "global"], 1]],
            "window_size": 4,
        },
    ),
    "openai-gpt": ("openai-gpt", _GPT),
    "xglm": ("xglm", {"d_model": 32, "num_layers": 3, "attention_heads": 4, "ffn_dim": 64}),
    "roformer": ("roformer", {"embedding_size": 16}),
    "rembert": ("rembert", {"input_embedding_size": 16, "output_embedding_size": 16}),
    "roberta-prelayernorm": ("roberta-prelayernorm", {}),
    "nomic_bert": ("nomic_bert", {}),
    "eurobert": ("eurobert", GROUPED),
    "mixtral": ("mixtral", {**GROUPED, "num_local_experts": 4, "sliding_window": 4}),
    "qwen3_moe": ("qwen3_moe", {**_EXPERTS, "head_dim": 8, "mlp_only_layers": [1]}),
    "gpt_oss": ("gpt_oss", {**WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "mamba": ("mamba", {}),
    "lfm2": ("lfm2", {**GROUPED, "layer_types": ["conv", "full_attention", "conv"]}),
}


def settings(name, vocabulary=60, **sizes):
    """The library's configuration of a small model of FAMILIES or VARIANTS, or of any family."""
    from transformers import AutoConfig

    family, own = VARIANTS.get(name) or (name, FAMILIES.get(name, {}))
    return AutoConfig.for_model(family, **{**SMALL, "vocab_size": vocabulary, **own, **sizes})


def random_model(name, vocabulary=60, **sizes):
    """A random model in evaluation mode; the caller's random numbers are kept.

    Norms and biases are random too: as the library begins them, at one and nought, a norm too many
    or too few would hardly show.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return built(settings(name, vocabulary, **sizes))


def built(config):
    """A model of this configuration, in evaluation mode, no weight of which is one or nought."""
    from transformers import AutoModel

    model = AutoModel.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


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
