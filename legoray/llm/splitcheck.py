"""Whether a language model may be cut between its layers: known reasons, and a trial of each split.

The views of `split.py` know nothing of a family but the names of its modules. What they give is
compared with the model's own forward before it is used, so that a family that they are wrong for
ends with an error and never with other numbers.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from legoray.errors import InputError, Problem
from legoray.llm.split import lower_view, run_view, shell, upper_view

# why models of a family cannot be cut between two layers; others are tried when they are loaded
REFUSED = {
    "albert": "share one layer's weights among all layers",
    "big_bird": "change their attention with the length of the text",
    "canine": "shorten the text between their layers",
    "fnet": "mix the padding of a batch into its texts",
    "funnel": "shorten the text between their layers",
    "gemma3n_text": "give every layer an embedding of its own",
    "gemma4_text": "give every layer an embedding of its own",
    "longformer": "pad every text to a multiple of their window",
    "nystromformer": "mix the padding of a batch into its texts",
    "perceiver": "read a text into a fixed number of latent vectors",
    "reformer": "carry two states from layer to layer",
    "rwkv": "scale their states by the number of the layer",
    "xlnet": "carry two states from layer to layer",
    "xmod": "choose an adapter by the language of each text",
}


def check_split(model: nn.Module, layers: int, name: str, *, lowest: int = 0) -> int:
    """Try every split on a few tokens: a family that it is wrong for must not be used.

    As in use, the lower layers see each text alone, the upper layers both in one padded batch.

    Args:
        model: the language model, in evaluation mode.
        layers: how many it has.
        name: of the model, for an error.
        lowest: the first split that is tried.

    Returns:
        The width of the model's output, which is not the hidden size in every family.

    Raises:
        InputError: the split model and the whole one disagree, or the views do not run.
    """
    exact = all(p.dtype == torch.float32 for p in model.parameters())
    try:
        with torch.inference_mode():
            texts = _samples(model)
            whole = [run_view(_without_cache(model), ids, None) for ids in texts]
            error = _error_of_each(model, layers, lowest, texts[0], whole[0])
            if exact:  # other types round otherwise in a batch of another shape
                error = max(error, _error_of_padding(model, layers, lowest, texts, whole))
        reason = f"the outputs differ by {error:.1e} of the largest value"
    except torch.OutOfMemoryError:
        raise
    except Exception as failure:  # the library's models fail in many ways where a view is wrong
        error, reason = float("inf"), f"{_said(failure)}"
    if not error <= (1e-4 if exact else 1e-3):
        raise InputError(
            Problem(
                name,
                f"{type(model).__name__} cannot be split between its layers: {reason}",
                "this family of language models is not supported; choose another model, such as "
                "'minilm'",
            )
        )
    return int(whole[0].shape[-1])


def _samples(model: nn.Module) -> list[Tensor]:
    """Token ids of two texts, `[1, 7]` and `[1, 4]`."""
    vocabulary = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    device = next(model.parameters()).device
    return [torch.arange(3, 3 + n, device=device)[None] % vocabulary for n in (7, 4)]


def _error_of_each(model: nn.Module, layers: int, lowest: int, ids: Tensor, whole: Tensor) -> float:
    """The error of one layer after the other, each in a view of its own."""
    states = run_view(lower_view(model, layers, lowest), ids, None)
    for start in range(lowest, layers):
        states = run_view(upper_view(model, layers, start, start + 1), states, None)
    return _error(states, whole)


def _error_of_padding(
    model: nn.Module, layers: int, lowest: int, texts: list[Tensor], whole: list[Tensor]
) -> float:
    """The error of the middle split, whose upper layers see both texts padded to one length."""
    middle = max(layers // 2, lowest)
    lower = lower_view(model, layers, middle)
    rows = [run_view(lower, ids, None)[0] for ids in texts]
    mask = torch.zeros(len(rows), len(rows[0]), dtype=torch.bool, device=rows[0].device)
    for row, states in enumerate(rows):
        mask[row, : len(states)] = True
    padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    if middle == layers:
        return 0.0
    found = run_view(upper_view(model, layers, middle), padded, mask)
    pairs = zip(found, whole, strict=True)
    return max(_error(states[: one.shape[1]], one[0]) for states, one in pairs)


def _error(found: Tensor, expected: Tensor) -> float:
    """The largest difference as a share of the largest value."""
    return float((found - expected).float().abs().max() / expected.float().abs().max())


def _said(failure: Exception) -> str:
    if isinstance(failure, InputError):
        return failure.problems[0].message
    lines = str(failure).strip().splitlines()
    return f"{type(failure).__name__}: {lines[0] if lines else 'no message'}"


def _without_cache(model: nn.Module) -> nn.Module:
    whole = shell(model)
    config: Any = copy.deepcopy(model.config)
    config.use_cache = False
    object.__setattr__(whole, "config", config)
    return whole
