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
from legoray.llm.precision import first_line
from legoray.llm.split import lower_view, run_view, upper_view
from legoray.llm.text import Encoded

Sink = Callable[[int, NDArray[np.int64], Tensor], None]
_BATCH_TOKENS = {"cpu": 8_192, "cuda": 131_072}


class NotFiniteError(Exception):
    """A hidden state is NaN or infinite: of which text, after which layer."""

    def __init__(self, text: int, layer: int) -> None:
        super().__init__(text, layer)
        self.text = text
        self.layer = layer


class Lower:
    """The lower layers of a language model, ready to run; those asked for last are kept."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._splits: tuple[int, ...] = ()
        self._parts: list[nn.Module] = []

    def parts(self, splits: tuple[int, ...]) -> list[nn.Module]:
        """The views from each split to the next, the first from the token ids.

        Raises:
            InputError: the device's memory does not hold them.
        """
        if splits != self._splits:
            self._parts, self._splits = [], ()  # the old copies leave the device first
            try:
                self._parts = _stretches(self.base, splits, self.device)
            except torch.OutOfMemoryError as error:
                message = f"its lower layers do not fit into the GPU's memory: {first_line(error)}"
                hint = "take precision bfloat16, int8 or nf4, or a smaller model"
                raise InputError(Problem(self.base.source.name, message, hint)) from None
            self._splits = splits
        return self._parts

    def width(self, split: int) -> int:
        """The size of the hidden states after `split` layers."""
        return self.base.output_size if split == self.base.layers else self.base.hidden_size


def run_texts(lower: Lower, encoded: Encoded, splits: Sequence[int], sink: Sink) -> None:
    """Compute the hidden states of all texts after each of some layers.

    Args:
        lower: the language model.
        encoded: the texts' tokens.
        splits: after which layers, from 0 (the embeddings) to the number of layers.
        sink: called with a split, some texts `[n]` of one length T, and their states `[n, T, H]`.

    Raises:
        NotFiniteError: a hidden state is NaN or infinite.
        InputError: the tokenizer is another model's; memory does not suffice.
    """
    _check_tokens(lower.base, encoded)
    ordered = tuple(sorted(set(splits)))
    parts = lower.parts(ordered)
    for rows in _batches(encoded, _BATCH_TOKENS[lower.device.type]):
        positions = encoded.offsets[rows][:, None] + np.arange(encoded.lengths[rows[0]])
        states = torch.from_numpy(encoded.ids[positions]).to(lower.device)
        for split, part in zip(ordered, parts, strict=True):
            with torch.inference_mode(), quiet():
                states = run_view(part, states, None)
            _check_finite(split, rows, states)
            sink(split, rows, states)


def _check_tokens(base: Base, encoded: Encoded) -> None:
    """A GPU that looks up a row that is not there is lost to the whole process."""
    rows = int(base.model.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
    largest = int(encoded.ids.max(initial=0))
    if largest >= rows:
        message = f"its tokenizer gives the token {largest}, its weights know {rows} tokens"
        hint = "the tokenizer's files are another model's; fetch the model again"
        raise InputError(Problem(str(base.source.folder), message, hint))


def _stretches(base: Base, splits: Sequence[int], device: torch.device) -> list[nn.Module]:
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


def _check_finite(split: int, rows: NDArray[np.int64], states: Tensor) -> None:
    if not bool(torch.isfinite(states).all()):
        bad = int((~torch.isfinite(states)).flatten(1).any(dim=1).nonzero()[0, 0])
        raise NotFiniteError(int(rows[bad]), split)
