"""What computes in bfloat16 stays close to float32, and what is trained is float32."""

from __future__ import annotations

import copy

import pytest
import torch
from llm_cases import LAYERS, random_model, relative_error

from legoray.llm.bfloat import cast_adapters, computing
from legoray.llm.lora import LoraSettings, adapters, add_lora
from legoray.llm.split import layers_of, run_view, upper_view


def adapted(family, **lora):
    """A view of two layers with adapters none of which is zero, and its input."""
    view = copy.deepcopy(upper_view(random_model(family), LAYERS, 1)).requires_grad_(False)
    add_lora(layers_of(view, 2), LoraSettings(rank=4, **lora))
    draws = torch.Generator().manual_seed(1)
    for name, parameter in adapters(layers_of(view, 2), 1).items():
        if "magnitude" not in name:
            torch.nn.init.normal_(parameter, std=0.2, generator=draws)
    return view, torch.randn(5, 7, 32, generator=draws)


def gradients(view, hidden):
    trained = [p for p in view.parameters() if p.requires_grad]
    output = run_view(view, hidden, None).float()
    return output.detach(), torch.autograd.grad(output.sin().sum(), trained)


def in_bfloat16(view):
    """The frozen weights in bfloat16, the adapters as they are."""
    for parameter in view.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    return view


@pytest.mark.parametrize("family", ["bert", "llama", "gpt2"])
def test_adapters_in_float32_are_as_before(family):
    view, hidden = adapted(family)
    expected, theirs = gradients(view, hidden)
    cast_adapters(layers_of(view, 2))
    found, ours = gradients(view, hidden)
    assert torch.equal(found, expected)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_adapters_in_bfloat16_are_close_and_are_trained_in_float32(family):
    view, hidden = adapted(family)
    expected, theirs = gradients(view, hidden)
    in_bfloat16(view)
    cast_adapters(layers_of(view, 2))
    copied = []
    for module in view.modules():
        if hasattr(module, "lora_A"):
            inner = module.lora_A["default"]
            inner.register_forward_hook(
                lambda _, given, out: copied.append((given[0].dtype, out.dtype))
            )
    found, ours = gradients(view, hidden.bfloat16())
    assert copied == [(torch.bfloat16, torch.bfloat16)] * 4
    assert {gradient.dtype for gradient in ours} == {torch.float32}
    assert 0 < relative_error(found, expected) < 0.03
    assert all(relative_error(a, b) < 0.1 for a, b in zip(ours, theirs, strict=True))


def test_doras_lengths_stay_exact():
    view, hidden = adapted("bert", dora=True)
    in_bfloat16(view)
    expected, theirs = gradients(view, hidden.bfloat16())
    cast_adapters(layers_of(view, 2))
    found, ours = gradients(view, hidden.bfloat16())
    assert torch.equal(found, expected)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_short_texts_take_plain_products_in_bfloat16_alone():
    def fused(tokens, dtype):
        with computing(torch.zeros(2, tokens, 4, dtype=dtype), cast=False):
            return torch.backends.cuda.flash_sdp_enabled()

    before = torch.backends.cuda.flash_sdp_enabled()
    assert before
    assert not fused(64, torch.bfloat16)
    assert fused(65, torch.bfloat16)
    assert fused(64, torch.float32)
    assert torch.backends.cuda.flash_sdp_enabled() == before


def test_plain_products_give_what_the_fused_kernel_gives():
    view, hidden = adapted("llama")
    view, hidden = view.bfloat16().eval(), hidden.bfloat16()
    fused = run_view(view, hidden, None).float()
    with computing(hidden, cast=False):
        plain = run_view(view, hidden, None).float()
    assert relative_error(plain.detach(), fused.detach()) < 0.02


def test_it_leaves_alone_what_the_caller_decided():
    hidden = torch.zeros(2, 3, 4)
    with torch.autocast("cpu", torch.bfloat16), computing(hidden, cast=True):
        assert torch.is_autocast_enabled("cpu")
    with computing(hidden, cast=True):
        assert not torch.is_autocast_enabled("cpu")
    with computing(hidden.bfloat16(), cast=True):
        assert torch.is_autocast_enabled("cpu")
