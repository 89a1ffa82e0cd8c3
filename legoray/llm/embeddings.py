"""The input embeddings of a language model: of its own tokens, or of whole words.

Only that one tensor is read, never the whole model.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from legoray.data.wordfile import Found
from legoray.errors import InputError, Problem
from legoray.llm.catalogue import Source, locate, weight_files, weights_checksum
from legoray.llm.load import facts, load_tokenizer, quiet, text_config


def input_embeddings(name: str) -> Tensor:
    """The embedding `[V, W]` of each of a language model's tokens, as float32.

    Args:
        name: short name, folder or hub id.

    Raises:
        InputError: the model is not here or is damaged.
    """
    facts(name)
    source = locate(name)
    return _embeddings(source, weights_checksum(source))


def word_embeddings(name: str, words: Sequence[str]) -> Found:
    """For each word the mean of the input embeddings of its pieces, as it stands within a text.

    A word with a piece that the model does not know is not found.

    Raises:
        InputError: as `input_embeddings`.
    """
    table = input_embeddings(name)
    own = load_tokenizer(name)
    tokenizer = Tokenizer.from_str(own.backend_tokenizer.to_str())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    pieces = _pieces(tokenizer, words)
    known = [bool(row) and own.unk_token_id not in row for row in pieces]
    place = np.flatnonzero(np.array(known, bool))
    kept = [pieces[number] for number in place]
    if not kept:
        return Found(place, np.empty((0, table.shape[1]), np.float32))
    starts = torch.tensor([0, *(len(row) for row in kept[:-1])]).cumsum(dim=0)
    flat = torch.tensor([piece for row in kept for piece in row])
    return Found(place, F.embedding_bag(flat, table, starts, mode="mean").numpy())


def _pieces(tokenizer: Tokenizer, words: Sequence[str]) -> list[list[int]]:
    """Token ids of each word after a space, or at a text's start where that takes fewer."""
    within, alone = (
        [row.ids for row in tokenizer.encode_batch(texts, add_special_tokens=False)]
        for texts in ([f" {word}" for word in words], list(words))
    )
    return [a if len(a) <= len(b) else b for a, b in zip(within, alone, strict=True)]


@functools.lru_cache(maxsize=2)
def _embeddings(source: Source, checksum: str) -> Tensor:
    name = _embedding_name(source)
    try:
        for file in weight_files(source.folder):
            with safe_open(file, framework="pt") as opened:
                for key in opened.keys():  # noqa: SIM118  (not a mapping)
                    if key == name or key.endswith(f".{name}"):
                        return opened.get_tensor(key).float()
    except (SafetensorError, OSError) as error:
        raise InputError(
            Problem(str(source.folder), f"its weights cannot be read: {error}", "fetch them again")
        ) from None
    raise InputError(Problem(str(source.folder), f"its weights hold no tensor '{name}'"))


def _embedding_name(source: Source) -> str:
    """What the model calls its table of input embeddings."""
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]), torch.device("meta"), quiet():
        model = AutoModel.from_config(text_config(source), trust_remote_code=False)
    table = model.get_input_embeddings()
    return next(f"{name}.weight" for name, module in model.named_modules() if module is table)
