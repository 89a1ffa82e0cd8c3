"""The last layer of an encoder for one token of each text.

A head that reads one token (`cls`, `last`) needs that token's output alone: keys and values of all
tokens, but query, attention output and feed-forward of one. Of the 12 H^2 multiplications that a
BERT layer does per token 10 H^2 are saved for all tokens but one, in the forward and the backward
pass, and the result is the same. The layer's own modules are called, so adapters, 8-bit weights and
dropout work as ever.

For layers of BERT's build (BERT, MiniLM, RoBERTa, ELECTRA); others run their whole forward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from legoray.llm.load import settle_quantized

_PARTS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.self.dropout",
    "attention.output",
    "intermediate",
    "output",
)


def fits(layer: nn.Module) -> bool:
    """Whether a layer is of BERT's build and gives what the library's forward gives."""
    try:
        for name in _PARTS:
            layer.get_submodule(name)
    except AttributeError:
        return False
    if getattr(layer, "is_decoder", False) or hasattr(layer, "crossattention"):
        return False
    return _agrees(layer)


@torch.no_grad()
def _agrees(layer: nn.Module) -> bool:
    """Try a few random states: a family that only looks alike must not be used."""
    query: Any = layer.get_submodule("attention.self.query")
    base = getattr(query, "base_layer", query)  # LoRA wraps it
    draws = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 5, base.in_features, generator=draws)
    example = next(p for p in layer.parameters() if p.is_floating_point())
    hidden = hidden.to(example.device, example.dtype)
    training = [module for module in layer.modules() if module.training]
    settle_quantized(layer.eval())
    try:
        whole = layer(hidden)
        whole = whole[0] if isinstance(whole, tuple) else whole
        one = one_query(layer, hidden, None, torch.tensor([0, 4], device=hidden.device))
        expected = torch.stack([whole[0, 0], whole[1, 4]])
        error = (one - expected).float().abs().max() / expected.float().abs().max()
    except (TypeError, ValueError, AttributeError, RuntimeError):
        return False
    finally:
        for module in training:
            module.training = True
    exact = all(p.dtype == torch.float32 for p in layer.parameters())
    return bool(error <= (1e-4 if exact else 5e-2))


def one_query(layer: nn.Module, hidden: Tensor, mask: Tensor | None, at: Tensor) -> Tensor:
    """The layer's output for token `at[n]` of text n.

    Args:
        layer: a layer that `fits`.
        hidden: `[N, T, H]`, its input.
        mask: `[N, T]` bool, True where there is a token; None where there is one everywhere.
        at: `[N]` which token of each text.

    Returns:
        `[N, H]`.
    """
    parts: Any = layer
    own = parts.attention.self
    chosen = hidden[torch.arange(len(at), device=at.device), at][:, None]

    def heads(values: Tensor) -> Tensor:
        return values.unflatten(-1, (own.num_attention_heads, -1)).transpose(1, 2)

    context = F.scaled_dot_product_attention(
        heads(own.query(chosen)),
        heads(own.key(hidden)),
        heads(own.value(hidden)),
        attn_mask=None if mask is None else mask[:, None, None, :],
        dropout_p=own.dropout.p if own.training else 0.0,
    )
    attended = parts.attention.output(context.transpose(1, 2).flatten(2), chosen)
    output: Tensor = parts.output(parts.intermediate(attended), attended)
    return output[:, 0]
