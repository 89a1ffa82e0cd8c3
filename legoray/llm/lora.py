"""LoRA on a language model's upper layers (arXiv 2106.09685, equation 3): `h = W x + s B A x`.

`W` stays frozen, `A` and `B` of rank `r` are trained in float32 whatever W is held in, and
`s = alpha / r` (rsLoRA: `alpha / sqrt(r)`). DoRA trains, besides, how long each row of the result
of `W + s B A` is. The adapters live in the copy of the layers that one operator owns.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from legoray.config import Positive, Share, Strict
from legoray.errors import nearest
from legoray.llm.catalogue import Source, locate
from legoray.llm.load import quiet, quiet_libraries, text_config
from legoray.llm.split import layers_of

# which projections are adapted by default: the first row that a layer has in full. These are the
# queries and values, as in the paper, or the one projection that holds them.
_DEFAULT_TARGETS = (
    ("query", "value"),
    ("q_proj", "v_proj"),
    ("q_lin", "v_lin"),
    ("query_proj", "value_proj"),
    ("q", "v"),
    ("Wqkv",),
    ("qkv_proj",),
    ("query_key_value",),
    ("c_attn",),
)


class LoraSettings(Strict):
    """Which adapters are trained."""

    rank: Positive = 8
    alpha: Annotated[float, Field(gt=0)] = 16.0
    dropout: Share = 0.0
    targets: list[str] | None = Field(
        default=None, description="names of projections in a layer; queries and values where null"
    )
    layers: Positive | None = Field(
        default=None, description="how many of the upper layers have adapters; all where null"
    )
    dora: bool = Field(False, description="DoRA (arXiv 2402.09353): magnitudes are trained too")
    rslora: bool = Field(False, description="rsLoRA (arXiv 2312.03732): s = alpha / sqrt(r)")


def projections(layer: nn.Module) -> list[str]:
    """The last part of the names of a layer's linear maps, which `targets` chooses from."""
    names = {
        name.rpartition(".")[2]
        for name, module in layer.named_modules()
        if getattr(module, "weight", None) is not None
        and type(module).__name__
        in {"Linear", "Conv1D", "Linear8bitLt", "Linear4bit", "NonDynamicallyQuantizableLinear"}
    }
    return sorted(names)


def projections_of_family(name: str) -> list[str]:
    """The projections of a language model's layers, from its `config.json` alone.

    Raises:
        InputError: as `legoray.llm.load.facts`.
    """
    return list(_projections_of(locate(name, weights=False)))


@functools.lru_cache(maxsize=64)
def _projections_of(source: Source) -> tuple[str, ...]:
    from transformers import AutoModel

    config = text_config(source)
    layers = config.num_hidden_layers
    for key, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == layers:
            setattr(config, key, value[:1])
    config.num_hidden_layers = 1
    with torch.random.fork_rng(devices=[]), torch.device("meta"), quiet():
        model = AutoModel.from_config(config, trust_remote_code=False)
    return tuple(projections(layers_of(model, 1)[0]))


def resolve_targets(known: list[str], targets: list[str] | None) -> list[str]:
    """The projections to adapt.

    Args:
        known: the projections that the layers have.
        targets: what the settings ask for; the family's queries and values where None.

    Raises:
        ValueError: a target is no projection of the layer; the message names the nearest one.
    """
    if targets is None:
        for row in _DEFAULT_TARGETS:
            if set(row) <= set(known):
                return list(row)
        raise ValueError(f"LoRA needs targets for this family; projections: {', '.join(known)}")
    if not targets:
        raise ValueError(f"the list of LoRA targets is empty; projections: {', '.join(known)}")
    for name in targets:
        if name not in known:
            close = nearest(name, known)
            hint = f"did you mean '{close}'?" if close else f"known: {', '.join(known)}"
            raise ValueError(f"there is no LoRA target '{name}' in its layers ({hint})")
    return list(targets)


def add_lora(layers: nn.ModuleList, settings: LoraSettings) -> None:
    """Put fresh adapters into these layers, or as many of the last ones as asked for, in place.

    Raises:
        ValueError: see `resolve_targets`; or the layers are fewer than asked for.
    """
    if settings.layers is not None and settings.layers > len(layers):
        raise ValueError(f"LoRA on {settings.layers} layers, but {len(layers)} are trained")
    layers = layers[len(layers) - (settings.layers or len(layers)) :]
    quiet_libraries()
    from peft import LoraConfig, inject_adapter_in_model

    wanted = resolve_targets(projections(layers[0]), settings.targets)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=wanted,
        use_dora=settings.dora,
        use_rslora=settings.rslora,
    )
    carrier: Any = layers
    kinds = {type(module).__name__ for module in layers.modules()}
    carrier.is_loaded_in_8bit = "Linear8bitLt" in kinds
    carrier.is_loaded_in_4bit = "Linear4bit" in kinds
    with quiet():
        inject_adapter_in_model(config, layers)
    for parameter in adapters(layers, 0).values():
        parameter.data = parameter.data.float()


def adapters(layers: nn.ModuleList, first: int) -> dict[str, Tensor]:
    """The adapters' parameters under names that do not depend on the split.

    Args:
        layers: the layers that `add_lora` was given.
        first: which layer of the whole model the first one is.
    """
    return {
        f"layer.{first + index}.{name.replace('.default.', '.')}": parameter
        for index, layer in enumerate(layers)
        for name, parameter in _lora_parameters(layer)
    }


def _lora_parameters(layer: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((n, p) for n, p in layer.named_parameters() if ".lora_" in f".{n}")


def copy_into(target: dict[str, Tensor], given: dict[str, Tensor]) -> None:
    """Write tensors into parameters of the same names.

    Raises:
        ValueError: names or shapes differ.
    """
    missing, extra = sorted(target.keys() - given.keys()), sorted(given.keys() - target.keys())
    if missing or extra:
        raise ValueError(f"missing: {missing[:3] or 'none'}, unexpected: {extra[:3] or 'none'}")
    for name, parameter in target.items():
        if parameter.shape != given[name].shape:
            raise ValueError(
                f"{name} is {list(given[name].shape)}, expected {list(parameter.shape)}"
            )
    with torch.no_grad():
        for name, parameter in target.items():
            parameter.copy_(given[name])
