"""A causal language model that answers questions: greedily, or by sampling with a seed per key.

Sampling adds Gumbel noise to the logits and takes the largest (Gumbel 1954), which draws exactly
from the softmax. The noise of a row comes from a generator of its own, seeded by the seed and the
row's key, so that an answer does not depend on what else is in the batch.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from legoray.errors import InputError, Problem
from legoray.llm.catalogue import Source, locate, tokenizer_checksum, weights_checksum
from legoray.llm.generation.questions import Question
from legoray.llm.load import load_tokenizer, quiet, quiet_libraries, text_config

Precision = Literal["float32", "bfloat16"]
_WRITES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_ADVICE = "choose a causal language model, such as 'smollm2'"


@dataclass(frozen=True)
class Settings:
    """How answers are written."""

    max_new_tokens: int
    temperature: float = 0.0  # 0 takes the likeliest token always
    seed: int = 1


@dataclass(frozen=True)
class Answer:
    """What a model answered."""

    text: str
    cut: bool = False  # it ended at the token limit
    refused: bool = False  # the server says that the model refused
    too_long: str = ""  # why the question was not asked: it is more than the model reads


class LocalModel:
    """A causal language model in this process; on the GPU where there is one."""

    def __init__(self, model: str, precision: Precision, settings: Settings) -> None:
        """Load the model.

        Raises:
            InputError: it is not here, its weights are damaged, or it is not a model that writes.
        """
        source = locate(model)
        self.settings = settings
        self._model = _load(source, precision, weights_checksum(source))
        self._tokenizer = load_tokenizer(model)
        self._positions = _positions(self._model)
        self._ends = _end_tokens(self._model, self._tokenizer)
        self._name = model

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers to some questions, as one batch padded on the left.

        A question that is longer than the model reads is not asked: its answer says so.

        Raises:
            InputError: the model computes NaN, or there is no room for any question.
        """
        rows = [self._encode(question) for question in questions]
        long = [self._too_long(len(row)) for row in rows]
        asked = [number for number, told in enumerate(long) if not told]
        found = self._answered([rows[n] for n in asked], [questions[n].key for n in asked])
        answered = dict(zip(asked, found, strict=True))
        return [answered.get(n) or Answer("", too_long=told) for n, told in enumerate(long)]

    def _answered(self, rows: Sequence[list[int]], keys: list[str]) -> list[Answer]:
        """The answers to questions of token ids, padded on the left."""
        if not rows:
            return []
        width = max(map(len, rows))
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, width - len(row) :] = torch.tensor(row)
            mask[number, width - len(row) :] = 1
        written = self._generate(ids, mask, keys)
        return [self._decode(row) for row in written[:, width:].tolist()]

    def _generate(self, ids: Tensor, mask: Tensor, keys: list[str]) -> Tensor:
        from transformers import GenerationConfig, LogitsProcessorList

        config = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=self.settings.max_new_tokens,
            eos_token_id=self._ends or None,
            pad_token_id=self._ends[0] if self._ends else 0,
        )
        steer = Steer(keys, self.settings)
        device = self._model.device
        try:
            with torch.inference_mode(), quiet():
                found: Tensor = self._model.generate(
                    input_ids=ids.to(device),
                    attention_mask=mask.to(device),
                    generation_config=config,
                    logits_processor=LogitsProcessorList([steer]),
                )
        except torch.OutOfMemoryError:
            message = f"{len(keys)} questions of {ids.shape[1]:,} tokens at once are too many"
            raise InputError(Problem("--batch", message, "give a smaller one")) from None
        return found.cpu()

    def _encode(self, question: Question) -> list[int]:
        """Token ids: by the tokenizer's chat template, or the two texts one after the other."""
        tokenizer = self._tokenizer
        if not tokenizer.chat_template:
            text = "\n\n".join(part for part in (question.system, question.user, "") if part)
            ids: list[int] = tokenizer(text, verbose=False)["input_ids"]
            return ids or [self._ends[0] if self._ends else 0]
        try:
            return _chat(tokenizer, _messages(question.system, question.user))
        except Exception as error:  # templates raise what they like, such as 'no system role'
            if not question.system:
                raise InputError(Problem(self._name, f"its chat template fails: {error}")) from None
        return _chat(tokenizer, _messages("", f"{question.system}\n\n{question.user}"))

    def _decode(self, ids: list[int]) -> Answer:
        ends = [place for place, token in enumerate(ids) if token in self._ends]
        kept = ids[: ends[0]] if ends else ids
        return Answer(self._tokenizer.decode(kept, skip_special_tokens=True), cut=not ends)

    def _too_long(self, tokens: int) -> str:
        """Why a question of so many tokens cannot be asked; nothing where it can."""
        new, most = self.settings.max_new_tokens, self._positions
        if not most or tokens + new <= most:
            return ""
        if new >= most:
            message = f"is {new:,}, and {self._name} reads {most:,} tokens with the question"
            raise InputError(Problem("max_new_tokens", message, "give the prompt a lower one"))
        return (
            f"the question has {tokens:,} tokens; with {new} new ones that is more than the "
            f"{most:,} that {self._name} reads"
        )


class Steer:
    """A step of generation: the noise of sampling, and a stop at NaN."""

    def __init__(self, keys: Sequence[str], settings: Settings) -> None:
        """One row of a batch per key."""
        self._keys, self._temperature = keys, settings.temperature
        self._random = [
            np.random.Generator(np.random.PCG64(seed_of(settings.seed, key))) for key in keys
        ]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores `[B, V]` whose largest is the next token of each row."""
        bad = scores.isnan().any(dim=1)
        if bool(bad.any()):
            key = self._keys[int(bad.nonzero()[0, 0])]
            hint = "try --precision float32, or look at the model's weights"
            raise InputError(Problem(key, "the model's scores are NaN for this question", hint))
        if not self._temperature:
            return scores
        noise = np.stack([random.gumbel(size=scores.shape[1]) for random in self._random])
        return scores.float() / self._temperature + torch.from_numpy(noise).to(scores.device)


def seed_of(seed: int, key: str) -> int:
    """The seed of one item's or user's answer, below 2^31."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:4]) >> 1


def identity(model: str, precision: Precision) -> dict[str, str]:
    """What a model is, for a record: its weights are read, but not loaded.

    Raises:
        InputError: the model is not here, or is not one that writes.
    """
    source = locate(model)
    check_writes(source)
    return {
        "model": source.id,
        "revision": source.revision,
        "weights": weights_checksum(source),
        "tokenizer": tokenizer_checksum(source),
        "precision": precision,
    }


def check_writes(source: Source) -> None:
    """Refuse encoders and decoders without a head.

    Raises:
        InputError: the model is one.
    """
    names = list(getattr(text_config(source), "architectures", None) or [])
    if names and not any(name.endswith(_WRITES) for name in names):
        message = f"is a {names[0]}, which does not write texts"
        raise InputError(Problem(source.name, message, _ADVICE))


def _messages(system: str, user: str) -> list[dict[str, str]]:
    first = [{"role": "system", "content": system}] if system else []
    return [*first, {"role": "user", "content": user}]


def _chat(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    """A conversation's token ids. Control tokens that stand in an item's own text do not count."""
    ids: list[int] = tokenizer.apply_chat_template(
        messages,
        tokenize=True,
        add_generation_prompt=True,
        return_dict=False,
        sanitize_control_tokens=True,
        enable_thinking=False,  # asked of templates that know it, such as Qwen3's
    )
    return ids


@functools.lru_cache(maxsize=1)
def _load(source: Source, precision: Precision, checksum: str) -> Any:
    check_writes(source)
    quiet_libraries()
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, GenerationConfig

    try:
        with torch.random.fork_rng(devices=[]), quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source.folder,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                dtype=torch.bfloat16 if precision == "bfloat16" else torch.float32,
            )
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        message = f"cannot be loaded as a causal language model: {lines[0] if lines else error!r}"
        raise InputError(Problem(str(source.folder), message, _ADVICE)) from None
    model, loading = loaded
    lacking = sorted({*loading["missing_keys"], *map(str, loading["mismatched_keys"])})
    if lacking:
        message = f"the weights lack {len(lacking)} tensors, such as {lacking[0]}"
        raise InputError(Problem(str(source.folder), message, _ADVICE))
    # a model's own defaults (a repetition penalty, sampling) would act beside what is recorded;
    # only the tokens that end an answer are kept
    ends = model.generation_config.eos_token_id
    model.generation_config = GenerationConfig(eos_token_id=ends)
    model.requires_grad_(False).eval()
    return model.to("cuda") if torch.cuda.is_available() else model


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    own = model.generation_config.eos_token_id
    found = own if isinstance(own, list) else [own]
    return sorted({int(end) for end in [*found, tokenizer.eos_token_id] if end is not None})


def _positions(model: Any) -> int | None:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(limit) if limit else None
