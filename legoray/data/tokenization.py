"""Text to token ids: tokenizers of the data set's own words, and tokenizing many texts at once."""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from legoray.errors import InputError, Problem

PADDING, UNKNOWN = "[PAD]", "[UNK]"
CHUNK = 8192  # texts that are tokenized at a time
RAY_FROM = 300_000  # below so many texts Ray Data takes longer to start than the work takes

Encoded = tuple[NDArray[np.int64], NDArray[np.int32]]  # tokens per text, and all their ids


def word_tokenizer(texts: Iterable[str], min_count: int = 1) -> Tokenizer:
    """A tokenizer of lower-case words: letters, marks and digits; all else separates.

    Id 0 is padding, 1 any word that occurs fewer than `min_count` times; then words by frequency.
    """
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    separator = Regex(r"[^\p{L}\p{M}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(separator, behavior="removed")
    trainer = trainers.WordLevelTrainer(
        vocab_size=2**31 - 1,  # the library's own default would drop words silently
        min_frequency=min_count,
        special_tokens=[PADDING, UNKNOWN],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def load_tokenizer_file(file: Path) -> Tokenizer:
    """Read a `tokenizer.json`.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        return Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(Problem(str(file), "no such file")) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Problem(str(file), f"cannot be read: {error}")) from None
    except Exception as error:  # the library raises bare Exception for bad content
        raise InputError(Problem(str(file), f"is damaged: {error}")) from None


def tokenizer_checksum(tokenizer: Tokenizer) -> str:
    """A hash of everything that decides a tokenizer's output."""
    return hashlib.sha256(tokenizer.to_str().encode()).hexdigest()


def vocabulary_size(tokenizer: Tokenizer, shift: int) -> int:
    """One more than the highest shifted id; ids need not be dense."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0) + 1 + shift


def encode(texts: Sequence[str], *, length: int, tokenizer: Tokenizer) -> Encoded:
    """Tokenize texts without special tokens, spread over Ray Data where that helps.

    Returns:
        Tokens per text `[len(texts)]`, and all their ids, one text after another.
    """
    spec = tokenizer.to_str()
    chunks = [texts[i : i + CHUNK] for i in range(0, len(texts), CHUNK)]
    if _use_ray(len(texts)):
        parts = _encode_by_ray(chunks, spec, length)
    else:
        own = _ready(spec, length)
        parts = [_encode_chunk(own, chunk) for chunk in chunks]
    counts = np.concatenate([np.zeros(0, np.int64), *(count for count, _ in parts)])
    ids = np.concatenate([np.zeros(0, np.int32), *(ids for _, ids in parts)])
    if len(counts) != len(texts):
        raise RuntimeError(f"{len(counts)} texts came back of {len(texts)}")
    return counts, ids


def _encode_by_ray(chunks: Sequence[Sequence[str]], spec: str, length: int) -> list[Encoded]:
    """Counts and ids of every chunk, by Ray Data, in the chunks' order."""
    from legoray.data.engine import ray_data

    data = ray_data()
    import ray

    blocks = [pa.table({"text": pa.array(chunk, pa.large_string())}) for chunk in chunks]
    done = data.from_arrow(blocks).map_batches(
        functools.partial(_encode_batch, spec=spec, length=length),
        batch_size=None,
        batch_format="pyarrow",
    )
    rows = [row for ref in done.to_arrow_refs() for row in ray.get(ref).to_pylist()]
    return [
        (np.frombuffer(row["counts"], np.int64), np.frombuffer(row["ids"], np.int32))
        for row in rows
    ]


def _ready(spec: str, length: int) -> Tokenizer:
    """A tokenizer of its own that cuts at `length` and never pads."""
    tokenizer = Tokenizer.from_str(spec)
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=length)
    return tokenizer


def _encode_chunk(tokenizer: Tokenizer, texts: Sequence[str]) -> Encoded:
    rows = [e.ids for e in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    counts = np.fromiter((len(row) for row in rows), np.int64, len(rows))
    ids = np.fromiter((i for row in rows for i in row), np.int32, int(counts.sum()))
    return counts, ids


def _use_ray(texts: int) -> bool:
    """Whether Ray Data shall do it: much to do, Ray runs, this is its driver, and a CPU is free.

    Inside a trial every CPU may be taken: waiting for one there would be waiting for ever.
    """
    wish = os.environ.get("LEGORAY_RAY_DATA", "auto")
    if not texts or wish == "never" or "ray" not in sys.modules:
        return False
    import ray

    if not ray.is_initialized() or ray.get_runtime_context().get_task_id() is not None:
        return False
    enough = wish == "always" or texts >= RAY_FROM
    return enough and ray.available_resources().get("CPU", 0) >= 1


def _encode_batch(batch: pa.Table, spec: str, length: int) -> pa.Table:
    """One chunk of texts as one row of raw bytes."""
    counts, ids = _encode_chunk(_ready(spec, length), batch["text"].to_pylist())
    return pa.table(
        {
            "counts": pa.array([counts.tobytes()], pa.large_binary()),
            "ids": pa.array([ids.tobytes()], pa.large_binary()),
        }
    )
