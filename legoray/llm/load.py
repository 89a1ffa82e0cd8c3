"""Load a language model, frozen, and its tokenizer; once per process.

What is loaded here is shared by every later trial of the process and never changed: operators work
on copies of the layers that they adapt. On a CPU its weights are mapped from files that all
processes of the node share (`legoray.llm.nodecopy`).
"""

from __future__ import annotations

import errno
import functools
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from legoray.llm.nodecopy import needs_copy, node_copy
from legoray.llm.precision import (
    BLOCK,
    QUANTIZED,
    Precision,
    device_of_bases,
    first_line,
    precision_problem,
)
from legoray.llm.quantized import bytes_of, check_blocks, is_quantized, make_steady
from legoray.llm.split import text_part
from legoray.llm.splitcheck import REFUSED, check_split
from legoray.records import SHARED

_NOT_WITHOUT_LAYERS = ("deberta", "deberta-v2")
_SEE_ALL = ("xlnet", "bert-generation")  # generators whose encoders are not causal


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
    causal: bool  # no token sees the ones after it

    def pooling_problem(self, pooling: str) -> str | None:
        """Why a pooling would make vectors that know nothing of their texts."""
        if pooling != "cls" or not self.causal:
            return None
        return (
            "pooling cls reads the first token, which sees none of the text in a model of the "
            f"family {self.family}: take last or mean"
        )


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
    return ModelFacts(
        family, layers, hidden, _positions(config, family), lowest, _causal(config, family)
    )


def _causal(config: Any, family: str) -> bool:
    """Whether the library knows the family as a generator of text alone."""
    from transformers.models.auto import modeling_auto

    if family in _SEE_ALL or getattr(config, "use_bidirectional_attention", False):
        return False
    generates = family in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return generates and family not in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES


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
                str(source.folder / "config.json"),
                f"transformers cannot read it: {first_line(error)}",
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
        precision: see `legoray.llm.precision`. The first process of a node that asks for a
            quantized model converts it and keeps the result; on a GPU each holds its own copy.

    Raises:
        InputError: as `facts`; or the weights are damaged; or the family cannot be split exactly;
            or this machine cannot compute in that precision; or the converted weights cannot be
            kept (`DamagedError` where they were damaged).
    """
    facts(name)
    problem = precision_problem(precision)
    if problem:
        raise InputError(Problem(name, problem))
    source = locate(name)
    return _load(source, precision, weights_checksum(source))


@functools.lru_cache(maxsize=4)  # one model in each precision
def _load(source: Source, precision: Precision, checksum: str) -> Base:
    folder = source.folder
    if needs_copy(source, precision):
        convert = functools.partial(_convert, source, precision)
        folder = node_copy(source, precision, checksum, convert)
    model = text_part(_read_weights(folder, precision))
    model.requires_grad_(False).eval()
    make_steady(settle_quantized(model))
    config: Any = model.config
    text = config.get_text_config()
    layers = int(text.num_hidden_layers)
    lowest = int(text.model_type in _NOT_WITHOUT_LAYERS)
    output = check_split(model, layers, source.name, lowest=lowest)
    return Base(source, model, layers, int(text.hidden_size), output, precision)


def base_bytes(base: Base) -> int:
    """Bytes of a base's parameters and buffers, the scales of quantized weights included."""
    return bytes_of(base.model)


def _convert(source: Source, precision: Precision, folder: Path) -> None:
    """Write a model's weights in another precision."""
    from safetensors import SafetensorError

    quantization = _quantization(source, precision) if precision in QUANTIZED else None
    model: Any = _read_weights(source.folder, precision, quantization)
    check_blocks(model, source.name)
    try:
        with quiet():
            model.save_pretrained(folder)
    except SafetensorError as error:  # the disk is full
        raise OSError(errno.EIO, first_line(error)) from None
    for path in folder.iterdir():
        path.chmod(SHARED)


def _read_weights(folder: Path, precision: Precision, quantization: Any = None) -> nn.Module:
    """The model in a folder; where it lies there in this precision, mapped and not copied."""
    quiet_libraries()
    from safetensors import SafetensorError
    from transformers import AutoModel

    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    options: dict[str, Any] = {"dtype": dtype}
    if precision in QUANTIZED:
        options["device_map"] = {"": str(device_of_bases())}
    if quantization is not None:
        options["quantization_config"] = quantization
    try:
        # the library draws random numbers for weights that it then overwrites: a trial must not
        # see other numbers because the model was already in memory
        with torch.random.fork_rng(devices=[]), quiet():
            model, loading = AutoModel.from_pretrained(
                folder,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(
            Problem(
                str(folder),
                f"cannot be loaded as a language model: {first_line(error)}",
                "fetch the weights again if they are damaged",
            )
        ) from None
    _check_complete(folder, {*loading["missing_keys"], *map(str, loading["mismatched_keys"])})
    return model


def _quantization(source: Source, precision: Precision) -> Any:
    from transformers import BitsAndBytesConfig

    if precision == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=_without_whole_blocks(source) or None,
    )


def _without_whole_blocks(source: Source) -> list[str]:
    """The linear maps whose rows are not whole blocks of nf4, as patterns of their names.

    They stay in float32: on a CPU bitsandbytes 0.50.2 decodes such rows wrongly.
    """
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]), torch.device("meta"), quiet():
        model = AutoModel.from_config(text_config(source), trust_remote_code=False)
    return [
        f"{re.escape(name)}$"
        for name, module in model.named_modules()
        if type(module).__name__ in {"Linear", "Conv1D"} and _columns(module) % BLOCK
    ]


def _columns(module: Any) -> int:
    """How many inputs a linear map has; GPT-2's hold their weights the other way round."""
    shape = module.weight.shape
    return int(shape[0] if type(module).__name__ == "Conv1D" else shape[1])


def _check_complete(folder: Path, missing: set[str]) -> None:
    """The library fills weights that a file lacks with random numbers: never train on those."""
    lacking = sorted(name for name in missing if not name.startswith("pooler."))
    if lacking:
        raise InputError(
            Problem(
                str(folder),
                f"the weights lack {len(lacking)} tensors, such as {lacking[0]}",
                "the files do not fit the config.json; fetch the model again",
            )
        )


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
            Problem(str(source.folder), f"its tokenizer cannot be loaded: {first_line(error)}")
        ) from None


def settle_quantized(module: nn.Module) -> nn.Module:
    """Keep quantized layers on the one code path that gives the same numbers always.

    On a CPU, bitsandbytes computes them differently in training and in evaluation mode, and only
    the former has a gradient. Call this after every `.train()` and `.eval()`.
    """
    for layer in module.modules():
        if is_quantized(layer):
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
