"""One pass of texts through the lower layers of a language model.

Texts are sorted by length and cut into batches of one length each, so that no padding is computed
and no mask is needed. Several splits come out of one pass: the layers run in stretches, from one
split to the next.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from legoray.errors import InputError, Problem
from legoray.llm.load import Base, quiet, settle_quantized
from legoray.llm.split import lower_view, run_view, upper_view
from legoray.llm.text import Encoded

Sink = Callable[[int, NDArray[np.int64], Tensor], None]
_BATCH_TOKENS = {"cpu": 8_192, "cuda": 131_072}


def run_texts(
    base: Base,
    encoded: Encoded,
    splits: Sequence[int],
    sink: Sink,
    *,
    describe: Callable[[int], tuple[str, str]],
    progress: Callable[[float], None] = lambda share: None,
) -> None:
    """Compute the hidden states of all texts after each of some layers.

    Args:
        base: the language model.
        encoded: the texts' tokens.
        splits: after which layers, from 0 (the embeddings) to the number of layers.
        sink: called with a split, the rows `[M]` of the tokens and their states `[M, H]`.
        describe: text number -> (key, text), for an error.
        progress: told the share of tokens done after each batch.

    Raises:
        InputError: a hidden state is NaN or infinite; the item's key and text are named.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ordered = sorted(set(splits))
    parts = _stretches(base, ordered, device)
    done = 0
    for rows in _batches(encoded, _BATCH_TOKENS[device.type]):
        positions = encoded.offsets[rows][:, None] + np.arange(encoded.lengths[rows[0]])
        states = torch.from_numpy(encoded.ids[positions]).to(device)
        for split, part in zip(ordered, parts, strict=True):
            with torch.inference_mode(), quiet():
                states = run_view(part, states, None)
            _check_finite(base, split, rows, states, describe)
            sink(split, positions.ravel(), states.flatten(0, 1))
        done += positions.size
        progress(done / len(encoded.ids))


def _stretches(base: Base, splits: list[int], device: torch.device) -> list[nn.Module]:
    """The views from each split to the next, the first from the token ids."""
    home = next(base.model.parameters()).device
    parts = [lower_view(base.model, base.layers, splits[0])]
    for start, stop in itertools.pairwise(splits):
        parts.append(upper_view(base.model, base.layers, start, stop))
    if home.type != device.type:
        parts = [copy.deepcopy(part).to(device) for part in parts]
    return [settle_quantized(part.eval()) for part in parts]


def _batches(encoded: Encoded, tokens: int) -> Iterator[NDArray[np.int64]]:
    """Rows of texts of one length each, longest first: running out of memory shows at once."""
    lengths = encoded.lengths
    order = np.argsort(-lengths, kind="stable")
    edges = np.flatnonzero(np.diff(lengths[order])) + 1
    for group in np.split(order, edges) if len(order) else []:
        size = max(tokens // int(lengths[group[0]]), 1)
        yield from np.split(group, range(size, len(group), size))


def _check_finite(
    base: Base,
    split: int,
    rows: NDArray[np.int64],
    states: Tensor,
    describe: Callable[[int], tuple[str, str]],
) -> None:
    if bool(torch.isfinite(states).all()):
        return
    bad = int((~torch.isfinite(states)).flatten(1).any(dim=1).nonzero()[0, 0])
    key, text = describe(int(rows[bad]))
    raise InputError(
        Problem(
            f"item {key}",
            f"the hidden states of {base.source.name} after layer {split} are NaN or infinite for "
            f"the text '{text}'",
            f"computed in {base.precision}; try precision: float32, or look at the model's weights",
        )
    )
