"""What a language model's weights are held in, and whether this machine can compute with it.

| precision | weights | computed in | bytes per weight of a linear layer |
| --- | --- | --- | --- |
| `float32` | as they are | float32 | 4 |
| `bfloat16` | rounded | bfloat16 | 2 |
| `int8` | LLM.int8, a scale per row (arXiv 2208.07339) | float32 | 1 |
| `nf4` | NormalFloat of QLoRA, a scale per 64 weights (arXiv 2305.14314) | float32 | 0.56 |

The quantized ones keep embeddings, norms and biases in float32 (`nf4` also linear maps of a number
of inputs that 64 does not divide, which no usual model has). They compute in float32 whatever
the processor has, so that the same trial gives the same numbers everywhere, and so that a state of
the store equals that of the full forward; they save memory, not time. (On a GPU LLM.int8 multiplies
in 8 bits, with outliers in float16: its numbers there are the GPU's own.)

What a machine can do is tried, not looked up: `precision_problem` multiplies two small matrices in
the asked precision, forwards and backwards, and compares with the dequantized weights.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Precision = Literal["float32", "bfloat16", "int8", "nf4"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
QUANTIZED = ("int8", "nf4")
BLOCK = 64  # weights that share a scale in nf4
# what a small product may be off by, as a share of its largest value. On a GPU int8 rounds the
# activations too, and float32 may be TensorFloat-32.
_TOLERANCE = {"cpu": 1e-4, "cuda": 3e-2}
# what quantization itself may cost: root mean square, as a share of the weights'
_LOSS = {"bfloat16": 0.01, "int8": 0.03, "nf4": 0.2}
_SLOW = 1.5  # times float32


def device_of_bases() -> torch.device:
    """Where quantized weights are held: a GPU where there is one."""
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def precision_problem(precision: str) -> str | None:
    """Why this machine cannot compute in a precision, and the nearest that works; None if it can.

    Each precision is tried once per process.
    """
    reason = _tried(precision)
    if reason is None:
        return None
    return f"precision {precision}: {reason}; nearest: {_nearest(precision)}"


def precision_note(precision: str) -> str | None:
    """What is worth knowing of a precision that works here; None where there is nothing."""
    if precision != "bfloat16" or torch.cuda.is_available():
        return None
    ratio = _bfloat16_ratio()
    if ratio < _SLOW:
        return None
    return (
        f"precision bfloat16 is slow on this processor: a product takes {ratio:.1f} times as long "
        "as in float32; it saves memory alone"
    )


def _nearest(precision: str) -> str:
    """The next larger precision that works; float32 always does."""
    larger = reversed(PRECISIONS[: PRECISIONS.index(precision)])
    return next(one for one in larger if _tried(one) is None)


@functools.cache
def _tried(precision: str) -> str | None:
    if precision == "float32":
        return None
    device = device_of_bases()
    try:
        # a trial must not see other numbers because a precision was tried before
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(0)
            weights = torch.randn(96, 2 * BLOCK)
            layer, held = _TRIALS[precision](weights, device)
            return _wrong(precision, layer, weights, held) or None
    except ImportError as error:
        return f"bitsandbytes cannot be imported ({first_line(error)})"
    except Exception as error:  # a library built for other hardware fails in ways of its own
        return f"no kernel for it works on this {device.type} ({first_line(error)})"


def _wrong(precision: str, layer: Callable[[Tensor], Tensor], weights: Tensor, held: Tensor) -> str:
    """What differs between a layer and its own dequantized weights; empty where nothing does."""
    inputs = torch.randn(5, weights.shape[1]).to(held.device).requires_grad_()
    twin = inputs.detach().clone().requires_grad_()
    found, expected = layer(inputs), F.linear(twin, held)
    found.float().square().sum().backward()
    expected.square().sum().backward()
    limit = _LOSS["bfloat16"] if precision == "bfloat16" else _TOLERANCE[held.device.type]
    off = {
        "its product": _difference(found, expected),
        "its gradient": _difference(inputs.grad, twin.grad),
    }
    for what, error in off.items():
        if not error <= limit:
            return f"{what} is wrong on this {held.device.type} by {error:.1e} of the largest value"
    lost = float((held.cpu() - weights).square().mean().sqrt() / weights.square().mean().sqrt())
    if not lost <= _LOSS[precision]:
        return f"its weights are wrong on this {held.device.type}: they lose {lost:.0%}"
    return ""


def _difference(found: Tensor | None, expected: Tensor | None) -> float:
    if found is None or expected is None:
        return float("inf")
    return float((found.float() - expected).detach().abs().max() / expected.detach().abs().max())


def _bfloat16(weights: Tensor, device: torch.device) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    rounded = weights.to(device, torch.bfloat16)
    return lambda inputs: F.linear(inputs.bfloat16(), rounded), rounded.float()


def _int8(weights: Tensor, device: torch.device) -> tuple[nn.Module, Tensor]:
    """An 8-bit layer, and its weights `W = CB * SCB / 127`."""
    bnb = _bitsandbytes()
    rows, columns = weights.shape
    layer = bnb.nn.Linear8bitLt(columns, rows, bias=False, has_fp16_weights=False)
    layer.weight = bnb.nn.Int8Params(weights, requires_grad=False)
    layer = layer.to(device)
    layer.training = True
    return layer, layer.weight.data.float() * (layer.weight.SCB / 127)[:, None]


def _nf4(weights: Tensor, device: torch.device) -> tuple[nn.Module, Tensor]:
    """A 4-bit layer, and its weights."""
    bnb = _bitsandbytes()
    rows, columns = weights.shape
    layer = bnb.nn.Linear4bit(
        columns,
        rows,
        bias=False,
        compute_dtype=torch.float32,
        compress_statistics=False,
        quant_type="nf4",
    )
    layer.weight = bnb.nn.Params4bit(
        weights, requires_grad=False, compress_statistics=False, quant_type="nf4", blocksize=BLOCK
    )
    layer = layer.to(device)
    layer.training = True
    return layer, decoded_nf4(layer.weight)


def decoded_nf4(weight: Any) -> Tensor:
    """The weights of a 4-bit layer: two to a byte, each a place in the table, times its scale."""
    state, packed = weight.quant_state, weight.data.flatten()
    places = torch.stack([packed >> 4, packed & 15], dim=1).flatten().long()
    held: Tensor = state.code[places].view(-1, BLOCK) * state.absmax[:, None]
    return held.view(state.shape)


_TRIALS: dict[str, Callable[[Tensor, torch.device], tuple[Callable[[Tensor], Tensor], Tensor]]] = {
    "bfloat16": _bfloat16,
    "int8": _int8,
    "nf4": _nf4,
}


def _bitsandbytes() -> Any:
    import logging

    logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)
    import bitsandbytes

    return bitsandbytes


@functools.cache
def _bfloat16_ratio() -> float:
    """How many times as long as in float32 a product takes in bfloat16: the best of some tries."""
    draws = torch.Generator().manual_seed(0)
    matrix = torch.randn(256, 256, generator=draws)
    best = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine threads wait for each other
    try:
        with torch.no_grad():
            for dtype in (torch.float32, torch.bfloat16) * 10:
                given = matrix.to(dtype)
                began = time.perf_counter()
                F.linear(given, given)
                best[dtype] = min(best[dtype], time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return best[torch.bfloat16] / best[torch.float32]


def first_line(error: BaseException) -> str:
    """The first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
