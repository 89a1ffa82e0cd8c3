"""Load a language model, frozen, and its tokenizer; once per process.

What is loaded here is shared by every later trial of the process and never changed: operators work
on copies of the layers that they adapt.
"""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from legoray.errors import InputError, Problem
from legoray.llm.catalogue import (
    Source,
    locate,
    read_config,
    tokenizer_checksum,
    weights_checksum,
)
from legoray.llm.split import text_part
from legoray.llm.splitcheck import REFUSED, check_split

Precision = Literal["float32", "bfloat16", "int8"]
_NOT_WITHOUT_LAYERS = ("deberta", "deberta-v2")


@dataclass(frozen=True)
class Base:
    """A language model in memory, frozen, in evaluation mode."""

    source: Source
    model: nn.Module
    layers: int
    hidden_size: int  # of the states between two layers
    output_size: int  # of the states after the last layer
    precision: Precision


@dataclass(frozen=True)
class ModelFacts:
    """What `config.json` says of a language model."""

    family: str
    layers: int
    hidden_size: int
    positions: int | None  # longest sequence, None where the family sets no limit
    lowest_split: int  # 1 where the library cannot run the embeddings alone


def facts(name: str) -> ModelFacts:
    """Layers and sizes of a language model, read from its `config.json` alone.

    Raises:
        InputError: the model is not here, is of a kind unknown to transformers, shares its layers'
            weights, or is an encoder-decoder.
    """
    source = locate(name, weights=False)
    return _facts(source, (source.folder / "config.json").stat().st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _facts(source: Source, changed: int) -> ModelFacts:
    config = text_config(source)
    family = str(config.model_type)
    if family in REFUSED:
        raise InputError(
            Problem(
                source.name,
                f"models of the family {family} {REFUSED[family]} and cannot be split",
                "choose another model, such as 'minilm'",
            )
        )
    try:
        layers, hidden = int(config.num_hidden_layers), int(config.hidden_size)
    except AttributeError as error:
        raise InputError(
            Problem(source.name, f"{family} is not a transformer language model: {error}")
        ) from None
    if not getattr(config, "vocab_size", None):
        raise InputError(
            Problem(source.name, f"{family} is not a language model: it has no vocabulary")
        )
    lowest = int(family in _NOT_WITHOUT_LAYERS)
    return ModelFacts(family, layers, hidden, _positions(config, family), lowest)


def _positions(config: Any, family: str) -> int | None:
    limit = getattr(config, "max_position_embeddings", None)
    if not limit:
        return None
    # RoBERTa-like models and MPNet count positions from padding_idx + 1
    offset = 2 if "roberta" in family or family in {"mpnet", "camembert"} else 0
    return int(limit) - offset


def text_config(source: Source) -> Any:
    """The library's configuration of the model's language part; no code of the model's is run.

    Raises:
        InputError: the file is damaged, of a kind unknown to transformers, or an encoder-decoder's.
    """
    quiet_libraries()
    from transformers import AutoConfig

    read_config(source)
    try:
        config = AutoConfig.from_pretrained(source.folder, trust_remote_code=False)
    except Exception as error:  # the library checks a file by many kinds of exceptions
        raise InputError(
            Problem(
                str(source.folder / "config.json"), f"transformers cannot read it: {_first(error)}"
            )
        ) from None
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(
            Problem(
                source.name,
                f"{config.model_type} is an encoder-decoder",
                "choose an encoder or a decoder, such as 'minilm'",
            )
        )
    return config.get_text_config()


def load_base(name: str, precision: Precision = "float32") -> Base:
    """The frozen language model, from this process's memory if it was loaded before.

    Args:
        name: short name, folder or hub id.
        precision: `float32` and `bfloat16` hold and compute in that type; `int8` holds the linear
            layers in 8 bits (LLM.int8, arXiv 2208.07339) and computes in float32 on a CPU, so that
            the numbers do not depend on what the processor has.

    Raises:
        InputError: as `facts`; or the weights are damaged; or the family cannot be split exactly.
    """
    facts(name)
    source = locate(name)
    return _load(source, precision, weights_checksum(source))


@functools.lru_cache(maxsize=3)  # one model in each precision
def _load(source: Source, precision: Precision, checksum: str) -> Base:
    model = _read_weights(source, precision)
    model.requires_grad_(False).eval()
    settle_quantized(model)
    config: Any = model.config
    text = config.get_text_config()
    layers = int(text.num_hidden_layers)
    lowest = int(text.model_type in _NOT_WITHOUT_LAYERS)
    output = check_split(model, layers, source.name, lowest=lowest)
    return Base(source, model, layers, int(text.hidden_size), output, precision)


def _read_weights(source: Source, precision: Precision) -> nn.Module:
    quiet_libraries()
    from safetensors import SafetensorError
    from transformers import AutoModel, BitsAndBytesConfig

    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    options: dict[str, Any] = {"dtype": dtype}
    if precision == "int8":
        options["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
        options["device_map"] = {"": "cuda:0" if torch.cuda.is_available() else "cpu"}
    try:
        # the library draws random numbers for weights that it then overwrites: a trial must not
        # see other numbers because the model was already in memory
        with torch.random.fork_rng(devices=[]), quiet():
            model, loading = AutoModel.from_pretrained(
                source.folder,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(
            Problem(
                str(source.folder),
                f"cannot be loaded as a language model: {_first(error)}",
                "fetch the weights again if they are damaged",
            )
        ) from None
    _check_complete(source, {*loading["missing_keys"], *map(str, loading["mismatched_keys"])})
    return text_part(model)


def _check_complete(source: Source, missing: set[str]) -> None:
    """The library fills weights that a file lacks with random numbers: never train on those."""
    lacking = sorted(name for name in missing if not name.startswith("pooler."))
    if lacking:
        raise InputError(
            Problem(
                str(source.folder),
                f"the weights lack {len(lacking)} tensors, such as {lacking[0]}",
                "the files do not fit the config.json; fetch the model again",
            )
        )


def _first(error: Exception) -> str:
    """The first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def load_tokenizer(name: str) -> Any:
    """The model's tokenizer, padding on the right.

    Raises:
        InputError: the tokenizer's files are missing or damaged.
    """
    source = locate(name, weights=False)
    return _tokenizer(source, tokenizer_checksum(source))


@functools.lru_cache(maxsize=8)
def _tokenizer(source: Source, checksum: str) -> Any:
    quiet_libraries()
    from transformers import AutoTokenizer

    try:
        with quiet():
            return AutoTokenizer.from_pretrained(
                source.folder, trust_remote_code=False, padding_side="right"
            )
    except Exception as error:  # the tokenizers library raises bare Exceptions for damaged files
        raise InputError(
            Problem(str(source.folder), f"its tokenizer cannot be loaded: {_first(error)}")
        ) from None


def settle_quantized(module: nn.Module) -> nn.Module:
    """Keep 8-bit layers on the one code path that gives the same numbers always.

    On a CPU, bitsandbytes computes 8-bit layers differently in training and in evaluation mode, and
    only the former has a gradient. Call this after every `.train()` and `.eval()`.
    """
    for layer in module.modules():
        if type(layer).__module__.startswith("bitsandbytes."):
            layer.training = True
    return module


def quiet_libraries() -> None:
    """Tell the model libraries to say nothing below an error."""
    for name in ("bitsandbytes", "transformers", "peft", "accelerate", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from transformers.utils import logging as messages

    messages.set_verbosity_error()
    messages.disable_progress_bar()


@contextmanager
def quiet() -> Iterator[None]:
    """Without Python warnings: what the libraries warn of is checked here by other means."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
