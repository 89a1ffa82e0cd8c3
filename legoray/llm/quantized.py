"""Layers that bitsandbytes holds in 8 or 4 bits: one way to compute, copies that share weights.

Such a layer keeps more than its parameters: scales beside the weights, moved elsewhere when it
first runs. What has to know about that stands here.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from legoray.errors import InputError, Problem
from legoray.llm.precision import decoded_nf4


def is_quantized(layer: nn.Module) -> bool:
    """Whether a layer is one of bitsandbytes's."""
    return type(layer).__module__.startswith("bitsandbytes.")


def make_steady(model: nn.Module) -> None:
    """Make quantized layers, and so the copies that are made of them, safe to run in any mode."""
    for layer in model.modules():
        if is_quantized(layer):
            layer.register_forward_pre_hook(_in_float32)
            # a 4-bit layer would repack its weights, for a kernel without a gradient, for good
            layer.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def _in_float32(layer: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The layer's input; in bfloat16 (autocast) it would round the layer's bias for good."""
    return (given[0].float(), *given[1:])


def check_blocks(model: nn.Module, name: str) -> None:
    """See that the 4-bit kernel is right for each shape that a model has.

    Raises:
        InputError: for one of them it is not.
    """
    states = [(getattr(p, "quant_state", None), p) for p in model.parameters()]
    for state, weight in {s.shape: (s, p) for s, p in states if s is not None}.values():
        import bitsandbytes

        found = bitsandbytes.functional.dequantize_4bit(weight.data, state)
        if not torch.allclose(found, decoded_nf4(weight).to(found.dtype), rtol=1e-2):
            rows, columns = state.shape
            message = f"the nf4 kernel here is wrong for its layers of {rows} x {columns} weights"
            raise InputError(Problem(name, message, "take precision: int8"))


def shared_copy(module: nn.Module) -> nn.Module:
    """A copy of modules, with parameters of its own that lie where the originals' lie.

    It costs no memory for weights, and moving it to a device or putting adapters into it leaves
    the original as it is. Its frozen weights must never be written to: whoever trains one gives it
    a copy first.
    """
    known: dict[int, Any] = {}
    for layer in module.modules():
        known |= {id(scales): scales for scales in _scales(layer)}
        for holder in (layer, getattr(layer, "weight", None)):
            state = getattr(holder, "quant_state", None)
            if state is not None:  # moving to a device writes into it
                known[id(state)] = copy.copy(state)
    known |= {id(one): _twin(one, known) for one in module.parameters()}
    return copy.deepcopy(module, known)


def _twin(parameter: nn.Parameter, known: dict[int, Any]) -> nn.Parameter:
    """Another parameter over the same memory; `known` has its quantization's twin."""
    given: Any = parameter
    kind = type(parameter).__name__
    if kind == "Int8Params":
        return type(given)(
            given.data,
            requires_grad=False,
            has_fp16_weights=given.has_fp16_weights,
            CB=given.CB,
            SCB=given.SCB,
        )
    if kind == "Params4bit":
        twin = copy.copy(given)
        twin.quant_state = known[id(given.quant_state)]
        twin.module = None  # else it would keep the original layer
        return twin
    return nn.Parameter(parameter.data, requires_grad=parameter.requires_grad)


def weights_in(parameter: nn.Parameter) -> int:
    """How many weights a parameter holds; in 4 bits there are two in a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(state.shape.numel())


def bytes_of(model: nn.Module) -> int:
    """Bytes of a model's parameters and buffers, the scales of quantized weights included."""
    tensors = [*model.parameters(), *model.buffers()]
    tensors += [scales for layer in model.modules() for scales in _scales(layer)]
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors if tensor.nbytes}.values())


def _scales(layer: nn.Module) -> Iterator[Tensor]:
    """The tensors of a layer that are neither parameters nor buffers."""
    weight = getattr(layer, "weight", None)
    # an 8-bit layer moves them from the weight to its state when it first runs
    for holder in (weight, getattr(layer, "state", None)):
        yield from _tensors(holder, "CB", "SCB")
    yield from _tensors(getattr(weight, "quant_state", None), "absmax", "code")


def _tensors(holder: Any, *names: str) -> Iterator[Tensor]:
    for name in names:
        found = getattr(holder, name, None)
        if isinstance(found, torch.Tensor):
            yield found
