"""The last layer of a language model for one token of each text.

A head that reads one token (`cls`, `last`) needs that token's output alone: keys and values of all
tokens, but query, attention output and feed-forward of one. Of the 12 H^2 multiplications that a
BERT layer does per token 10 H^2 are saved for all tokens but one, in the forward and the backward
pass, and the result is the same.

Nothing of a family is written again. The view's own forward builds masks and positions and calls
the last layer, which is asked twice by its own forward: over all tokens with a cache that takes the
keys and values and stops it there, then over the chosen tokens with a cache that gives them back.
Norms, rotary positions, grouped heads, windows, soft caps, adapters, quantized weights and dropout
are the library's. It serves every family whose layers take a cache (Llama's kin, GPT-2, OPT,
GPT-NeoX, BERT, RoBERTa, ...), which `plan` tries; others run their whole forward.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from legoray.llm.load import settle_quantized
from legoray.llm.split import layer_path, layers_of, run_view, shell

_CACHES = ("past_key_values", "past_key_value", "layer_past")
_QUERIES = ("q_proj", "query")  # where the query has a map of its own


@dataclass(frozen=True)
class OneQuery:
    """How a view's last layer is run for one token of each text.

    `count` layers has the view. Where keys and values are asked for alone, queries are zeros of a
    `thin` width, one head's, so that turning them by their positions costs little. Where the
    library gives its output the shape of its input, the one token is `spread` over all.
    """

    count: int
    thin: bool = True
    spread: bool = False

    def __call__(self, view: nn.Module, hidden: Tensor, mask: Tensor | None, at: Tensor) -> Tensor:
        """The view's output for token `at[n]` of text n.

        Args:
            view: the upper view that this is the plan of.
            hidden: `[N, T, H]`, its input.
            mask: `[N, T]` bool, True where there is a token; None where there is one everywhere.
            at: `[N]` which token of each text.

        Returns:
            `[N, H]`.
        """
        return run_view(self._with_last_layer(view, at), hidden, mask)[:, 0]

    def _with_last_layer(self, view: nn.Module, at: Tensor) -> nn.Module:
        """The view with a last layer that gives one token; all weights are shared."""
        path = layer_path(view, self.count)
        root, owner = _with_shells(view, path[:-1])
        layers = list(layers_of(view, self.count))
        last = shell(layers[-1])
        forward = functools.partial(_one_token, self, layers[-1], at)
        object.__setattr__(last, "forward", forward)
        owner._modules[path[-1]] = nn.ModuleList([*layers[:-1], last])
        return root


def plan(view: nn.Module, count: int) -> OneQuery | None:
    """How to run a view's last layer for one token; None where that is not the whole layer's.

    Args:
        view: an upper view (`legoray.llm.split`) that ends with the model's last layer.
        count: how many layers it has.
    """
    training = [module for module in view.modules() if module.training]
    settle_quantized(view.eval())
    try:
        ways = itertools.product((True, False), (False, True))
        plans = (OneQuery(count, thin, spread) for thin, spread in ways)
        return next((found for found in plans if _agrees(found, view)), None)
    finally:
        for module in training:
            module.training = True


@torch.no_grad()
def _agrees(one_query: OneQuery, view: nn.Module) -> bool:
    """Try a few random states, padded and not: what only looks alike must not be used."""
    config: Any = view.config
    example = next(p for p in view.parameters() if p.is_floating_point())
    draws = torch.Generator().manual_seed(0)
    width = config.get_text_config().hidden_size
    exact = all(p.dtype == torch.float32 for p in view.parameters())
    rows = torch.arange(3, device=example.device)
    # lengths without a common divisor: no reshape may come out right by chance
    for lengths, last in (([7, 7, 7], [6, 0, 3]), ([5, 2, 4], [4, 1, 3])):
        hidden = torch.randn(3, lengths[0], width, generator=draws).to(example)
        at, length = torch.tensor([last, lengths], device=example.device)
        mask = torch.arange(lengths[0], device=example.device) < length[:, None]
        given = None if min(lengths) == lengths[0] else mask
        try:
            whole = run_view(view, hidden, given)[rows, at].float()
            one = one_query(view, hidden, given, at).float()
        except (TypeError, ValueError, AttributeError, IndexError, RuntimeError):
            return False
        if one.shape != whole.shape:
            return False
        if not (one - whole).abs().max() <= (1e-4 if exact else 5e-2) * whole.abs().max():
            return False
    return True


def _with_shells(module: nn.Module, path: list[str]) -> tuple[nn.Module, nn.Module]:
    """A copy of a module's own surface and of the children on a path; the first and the last."""
    root = current = shell(module)
    for name in path:
        child = shell(current.get_submodule(name))
        current._modules[name] = child
        current = child
    return root, current


def _one_token(how: OneQuery, layer: nn.Module, at: Tensor, *args: Any, **kwargs: Any) -> Any:
    """The layer's own forward for token `at[n]` of row n: `[N, 1, H]`, or `[N, T, H]` if spread.

    It is alone or the first of several things, as the layer gives it.

    Raises:
        ValueError: the layer takes no cache, or something that is not known here.
    """
    named = _by_name(layer, *args, **kwargs)
    first = next(iter(named))
    hidden: Tensor = named.pop(first)
    slot = next((name for name in _CACHES if name in named), None)
    if slot is None:
        raise ValueError("the layer takes no cache")
    if any(buffer.dim() == 4 for buffer in layer.buffers()):
        raise ValueError("the layer keeps a mask of its own, for queries that stand last")
    caught = _keys_and_values(layer, {first: hidden, **named, slot: _Catch()}, thin=how.thin)
    rows = torch.arange(len(at), device=at.device)
    chosen = {name: _chosen(name, value, rows, at) for name, value in named.items()}
    chosen["attention_mask"] = _visible(layer, chosen.get("attention_mask"), hidden, at)
    output = layer(hidden[rows, at][:, None], **{**chosen, slot: _Give(caught)})
    several = isinstance(output, tuple)
    result: Tensor = output[0] if several else output
    result = result.expand(-1, hidden.shape[1], -1) if how.spread else result
    return (result, *output[1:]) if several else result


def _by_name(layer: nn.Module, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """What a layer is called with, by name; its cache by name too, whether given or not."""
    signature = inspect.signature(layer.forward)
    bound = signature.bind(*args, **kwargs).arguments
    named: dict[str, Any] = {}
    for name, value in bound.items():
        spread = signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
        named |= value if spread else {name: value}
    return named | {name: None for name in _CACHES if name in signature.parameters}


class _Caught(Exception):
    """Carries the keys and values of a layer, `[N, heads, T, size]` each."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.found = (keys, values)


class _Catch:
    """A cache that stops the layer as soon as keys and values are there."""

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> None:
        raise _Caught(keys, values)


class _Give:
    """A cache that gives these keys and values, whatever it is told."""

    def __init__(self, found: tuple[Tensor, Tensor]) -> None:
        self.found = found

    def update(self, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return self.found


class _NoQuery(nn.Module):
    """Takes the place of the query's map where queries are not wanted."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, hidden: Tensor) -> Tensor:
        """Zeros `[..., size]` that take no memory."""
        return hidden.new_zeros(()).expand(*hidden.shape[:-1], self.size)


def _keys_and_values(
    layer: nn.Module, named: dict[str, Any], *, thin: bool
) -> tuple[Tensor, Tensor]:
    """Of all tokens, by the layer's own forward, which goes no further.

    Raises:
        ValueError: it did go further.
    """
    maps = [n for n, _ in layer.named_modules() if n.rpartition(".")[2] in _QUERIES]
    reader = layer
    if len(maps) == 1:
        *path, name = maps[0].split(".")
        reader, owner = _with_shells(layer, path)
        query: Any = owner.get_submodule(name)
        width: Any = getattr(owner, "head_dim", None) if thin else None
        owner._modules[name] = _NoQuery(width or query.out_features)
    try:
        reader(**named)
    except _Caught as caught:
        return caught.found
    raise ValueError("the layer does not use its cache")


def _chosen(name: str, value: Any, rows: Tensor, at: Tensor) -> Any:
    """An argument of the layer, `[1 or N, T, ...]`, for the chosen tokens: `[N, 1, ...]`.

    Raises:
        ValueError: it is not known which of its dimensions are the tokens.
    """
    if isinstance(value, tuple):
        return tuple(_chosen(name, one, rows, at) for one in value)
    if not torch.is_tensor(value) or name == "attention_mask":
        return value
    if not name.startswith("position_"):
        raise ValueError(f"the layer reads {name}")
    return value[0, at][:, None] if len(value) == 1 else value[rows, at][:, None]


def _visible(layer: nn.Module, mask: Any, hidden: Tensor, at: Tensor) -> Tensor | None:
    """The chosen tokens' rows `[N, heads or 1, 1, T]` of the attention mask.

    Raises:
        ValueError: the mask is of another kind.
    """
    if mask is None:  # the library leaves it to its kernels, which take no place of one query
        if not any(getattr(module, "is_causal", False) for module in layer.modules()):
            return None
        return (torch.arange(hidden.shape[1], device=at.device) <= at[:, None])[:, None, None]
    if not torch.is_tensor(mask) or mask.dim() != 4:
        raise ValueError("the layer's attention mask is of a kind that is not known")
    rows = torch.arange(len(at), device=at.device)
    found: Tensor = mask.expand(len(at), -1, hidden.shape[1], -1)[rows, :, at][:, :, None]
    return found
