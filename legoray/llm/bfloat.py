"""How the upper layers compute in bfloat16, and what is trained stays in float32."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

# On CPUs the fused attention kernel takes twice as long as plain products for short texts in
# bfloat16 (MiniLM and SmolLM2, texts of 14 tokens, no AMX); longer texts need it for its memory.
_SHORT = 64  # tokens


class _Cast(nn.Linear):
    """A linear map whose float32 weights compute in the type of its input."""

    def forward(self, values: Tensor) -> Tensor:
        """`W x`; the gradient comes to W in float32."""
        return F.linear(values, self.weight.to(values.dtype))


def cast_adapters(layers: nn.ModuleList) -> None:
    """Let plain LoRA adapters compute in the type of the layer's input, in place.

    Otherwise every input of an adapted layer is copied to float32 for a product of rank r. DoRA's
    row lengths need the exact product and are left as they are.
    """
    for module in layers.modules():
        maps: Any = [getattr(module, name, None) for name in ("lora_A", "lora_B")]
        if None in maps or getattr(module, "lora_variant", None):
            continue
        module.cast_input_dtype_enabled = False  # type: ignore[assignment]
        for pair in maps:
            for linear in pair.values():
                assert type(linear) is nn.Linear
                assert linear.bias is None
                linear.__class__ = _Cast


def computing(hidden: Tensor, *, cast: bool) -> ExitStack:
    """A context for the upper layers' forward over `hidden [N, T, H]`.

    Args:
        hidden: the layers' input, in the type that they are to compute in.
        cast: whether their weights are float32, whatever the input's type is.
    """
    entered = ExitStack()
    if hidden.dtype == torch.bfloat16:
        if cast:
            entered.enter_context(torch.autocast(hidden.device.type, torch.bfloat16))
        if hidden.device.type == "cpu" and hidden.shape[1] <= _SHORT:
            entered.enter_context(sdpa_kernel(SDPBackend.MATH))
    return entered
