"""A language model cut between two layers, with nothing of its forward written again.

A view is the library's own model whose list of layers is a slice and whose first and last steps are
taken out. Of a model with L layers, the lower view `0..N-1` reads token ids and gives the hidden
states after N layers; the upper view `N..L-1` reads those (`inputs_embeds`) and gives the model's
output. The library builds the attention masks and rotary positions of each view itself, so one code
serves encoders and decoders of any family. A view shares its layers with the model. The hidden
states after all L layers are the model's output, its final norm included: nothing is left for an
upper view to do, and it must not be made.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from legoray.errors import InputError, Problem

_LAYER_LISTS = ("layer", "layers", "h", "blocks", "block")
# what stands before the first layer, by what takes its place in a view that starts later
_EMBEDDINGS = ("embeddings",)
_POSITIONS = ("wpe", "embed_positions", "position_embeddings", "positions_embed")
_BEFORE = (
    "drop",
    "emb_dropout",
    "embedding_dropout",
    "embedding_hidden_mapping_in",
    "embeddings_project",
    "word_embeddings_layernorm",
    "embed_layer_norm",
)
_DROPPED_BEFORE = (
    "embed_tokens",
    "wte",
    "embed_in",
    "word_embeddings",
    "tokens_embed",
    "project_in",
    "conv",
)
# what stands behind the last layer
_FINAL_NORMS = (
    "norm",
    "norm_f",
    "ln_f",
    "ln",
    "layer_norm",
    "LayerNorm",
    "final_layer_norm",
    "final_layernorm",
    "final_norm",
    "embedding_norm",
)
_DROPPED_AFTER = ("project_out",)
_NEVER = ("pooler",)
# DeBERTa norms its table of relative positions by a module of a final norm's name
_NOT_FINAL = {"LayerNorm": "rel_embeddings"}
# RoFormer's table of positions turns queries and keys in every layer
_USED_BY_LAYERS = {"roformer": ("embed_positions",)}


class _PassEmbeddings(nn.Module):
    """Takes the place of an embedding module: the hidden states go through as they are."""

    def forward(self, *args: Any, inputs_embeds: Tensor | None = None, **kwargs: Any) -> Tensor:
        """The tensor `[N, T, H]` among the arguments."""
        if inputs_embeds is not None:
            return inputs_embeds
        return next(a for a in args if torch.is_tensor(a) and a.is_floating_point())


class _Nothing(nn.Module):
    """Takes the place of a pooler: nobody reads its output."""

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """None, whatever is given."""


class _NoPositions(nn.Module):
    """Takes the place of a table of positions: they are in the hidden states already."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """A zero that any hidden state can be added to: without dimensions it promotes nothing."""
        given = next(a for a in (*args, *kwargs.values()) if torch.is_tensor(a))
        return torch.zeros((), device=given.device, dtype=torch.bfloat16)


def layer_path(model: nn.Module, count: int) -> list[str]:
    """The names that lead from the model to its list of `count` layers.

    Raises:
        InputError: the model has no such list.
    """
    for name, module in model.named_modules():
        is_list = isinstance(module, nn.ModuleList) and len(module) == count
        if is_list and name.rpartition(".")[2] in _LAYER_LISTS:
            return name.split(".")
    raise InputError(
        Problem(
            type(model).__name__,
            f"its list of {count} layers was not found",
            "this family of language models is not supported",
        )
    )


def text_part(model: nn.Module) -> nn.Module:
    """The language model within one that reads images or sound too; the model itself elsewhere.

    Its forward is what the whole model does with a text alone.
    """
    config: Any = model.config
    text = config.get_text_config()
    if text is config:
        return model
    parts = [
        child
        for child in model.modules()
        if hasattr(child, "get_input_embeddings") and child.config is text
    ]
    return parts[-1] if parts else model  # the innermost has no head over the vocabulary


def layers_of(model: nn.Module, count: int) -> nn.ModuleList:
    """The model's list of layers (of a view: of the view's)."""
    found = model.get_submodule(".".join(layer_path(model, count)))
    assert isinstance(found, nn.ModuleList)
    return found


def lower_view(model: nn.Module, layers: int, stop: int) -> nn.Module:
    """Layers `0..stop-1` of a model with `layers` layers; reads `input_ids`."""
    return _view(model, layers, 0, stop, from_ids=True)


def upper_view(model: nn.Module, layers: int, start: int, stop: int | None = None) -> nn.Module:
    """Layers `start..stop-1`, to the end by default; reads the hidden states after `start` layers.

    A view that ends with the model's last layer ends as the model ends, its final norm included.
    """
    return _view(model, layers, start, layers if stop is None else stop, from_ids=False)


def _view(model: nn.Module, layers: int, start: int, stop: int, *, from_ids: bool) -> nn.Module:
    path = layer_path(model, layers)
    config = _config(model, layers, start, stop)
    root = current = shell(model)
    for name in path[:-1]:
        _strip(current, config, from_ids=from_ids, ends_early=stop < layers)
        child = shell(current.get_submodule(name))
        current._modules[name] = child
        current = child
    _strip(current, config, from_ids=from_ids, ends_early=stop < layers)
    whole = current.get_submodule(path[-1])
    assert isinstance(whole, nn.ModuleList)
    current._modules[path[-1]] = nn.ModuleList(list(whole)[start:stop])
    return root


def run_view(part: nn.Module, inputs: Tensor, mask: Tensor | None) -> Tensor:
    """The last hidden states `[N, T, H]` of a view.

    Args:
        part: what `view` gave.
        inputs: `[N, T]` token ids, or `[N, T, H]` hidden states.
        mask: `[N, T]` bool, True where there is a token; None where there is one everywhere.
    """
    name = "inputs_embeds" if inputs.is_floating_point() else "input_ids"
    given = None if mask is None else mask.long()
    hidden: Tensor = part(**{name: inputs}, attention_mask=given).last_hidden_state
    return hidden


def shell(module: nn.Module) -> nn.Module:
    """A copy of a module's own surface; its children and weights are shared."""
    shell = copy.copy(module)
    for table in ("_modules", "_parameters", "_buffers"):
        object.__setattr__(shell, table, dict(getattr(module, table)))
    return shell


def _config(model: nn.Module, layers: int, start: int, stop: int) -> Any:
    """The configuration of a view: every list with an entry per layer is cut like the layers."""
    config: Any = copy.deepcopy(model.config)
    for key, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == layers:
            setattr(config, key, value[start:stop])
    config.num_hidden_layers = stop - start
    config.use_cache = False
    return config


def _strip(module: nn.Module, config: Any, *, from_ids: bool, ends_early: bool) -> None:
    """Take out what stands before the first layer of the view or behind its last one."""
    if hasattr(module, "config"):
        object.__setattr__(module, "config", config)
    kept = _USED_BY_LAYERS.get(config.model_type, ())
    for name in module._modules:
        if name in _NEVER:
            module._modules[name] = _Nothing()
        elif not from_ids and name not in kept:
            _strip_before(module, name)
        if ends_early:
            _strip_after(module, name)


def _strip_before(module: nn.Module, name: str) -> None:
    if name in _EMBEDDINGS:
        module._modules[name] = _PassEmbeddings()
    elif name in _POSITIONS:
        module._modules[name] = _NoPositions()
    elif name in _BEFORE:
        module._modules[name] = nn.Identity()
    elif name in _DROPPED_BEFORE:
        module._modules[name] = None


def _strip_after(module: nn.Module, name: str) -> None:
    if name in _FINAL_NORMS and _NOT_FINAL.get(name, "") not in module._modules:
        module._modules[name] = nn.Identity()
    elif name in _DROPPED_AFTER:
        module._modules[name] = None
