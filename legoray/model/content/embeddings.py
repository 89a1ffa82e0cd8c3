"""Word embeddings: at random, from published vectors, or from a language model's input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor, nn

from legoray.config import OrWord, Strict, expand
from legoray.data.recipes import Tokens
from legoray.data.tokenization import PADDING, UNKNOWN
from legoray.data.wordfile import GLOVE, Found, read_vectors
from legoray.errors import InputError, Problem, nearest
from legoray.model.layers import WORD_SCALE, Dropout, dense, embedding, zero_masked

LEAST = 0.01  # share of a vocabulary that must be known
_SHORT: dict[str, dict[str, Any]] = {"random": {}, GLOVE: {"file": GLOVE}}


class Embeddings(Strict):
    """What the embeddings start from: a `file`, a language `model`, or random numbers."""

    file: str | None = Field(
        None, description="`glove`, or an absolute path of GloVe's or word2vec's text format"
    )
    model: str | None = Field(None, min_length=1, description="a name of the catalogue")
    frozen: bool = Field(False, description="whether they stay as they are in training")

    @model_validator(mode="after")
    def _check(self) -> Embeddings:
        if self.file is not None and self.model is not None:
            raise ValueError("needs `file` or `model`, not both")
        if self.frozen and self.file is None and self.model is None:
            raise ValueError("embeddings that start at random must be trained: `frozen` is for "
                             "those of a `file` or a `model`")  # fmt: skip
        if self.file is not None and self.file != GLOVE and self.file[:1] not in ("/", "~", "$"):
            raise ValueError(
                f"file '{self.file}' is relative, and workers run elsewhere: write "
                f"{Path(self.file).absolute()}"
            )
        return self


def _long(value: Any) -> Any:
    """`random` and `glove` stand for themselves."""
    if not isinstance(value, str):
        return value
    if value not in _SHORT:
        close = nearest(value, _SHORT)
        hint = f" (did you mean '{close}'?)" if close else ""
        raise ValueError(f"expected random, glove, {{file: ...}} or {{model: ...}}{hint}")
    return _SHORT[value]


Start = Annotated[Embeddings, BeforeValidator(_long), OrWord(*_SHORT)]


@dataclass(frozen=True)
class Coverage:
    """Which share of the data's distinct words, and of all its words, found a vector."""

    words: float
    tokens: float


class WordEmbedding(nn.Module):
    """Token ids to vectors, zeros under the mask. Token 0 is padding.

    The table may be as wide as published vectors are; a linear layer then gives the wanted size.
    """

    def __init__(self, vocabulary: int, size: int, dropout: float, start: Embeddings) -> None:
        super().__init__()
        self.start = start
        self.size = size
        self.coverage: Coverage | None = None
        self.table = embedding(vocabulary, size, WORD_SCALE)
        self.table.weight.requires_grad_(not start.frozen)
        self.project: nn.Module = nn.Identity()
        self.dropout = Dropout(dropout)
        self.register_load_state_dict_pre_hook(_widen)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """`P e_t`: `ids [N, L]`, `mask [N, L]` to `[N, L, size]`; P only where widths differ."""
        return self._finish(self.table(ids.masked_fill(~mask, 0)), mask)

    def parts(self, parts: Sequence[Tokens]) -> Iterator[Tensor]:
        """The vectors `[n, L, size]` of several groups of items.

        All of them come from one lookup, because the gradient of each is as large as the table.
        """
        flat = torch.cat([part.ids.masked_fill(~part.mask, 0).flatten() for part in parts])
        found = self.table(flat).split([part.ids.numel() for part in parts])
        for part, rows in zip(parts, found, strict=True):
            yield self._finish(rows.view(*part.ids.shape, -1), part.mask)

    def _finish(self, vectors: Tensor, mask: Tensor) -> Tensor:
        return zero_masked(self.dropout(self.project(vectors)), mask)

    def start_from(self, features: Any) -> None:
        """Take the vectors of the words that `features` (`TokenFeatures`) have.

        Words without one keep random values of the same spread.

        Raises:
            InputError: the vectors cannot be had, or hardly any word has one.
        """
        if self.start.file is None and self.start.model is None:
            return
        rows, vectors = self._found(features)
        self.coverage = _coverage(rows, features)
        if self.coverage.words < LEAST:
            share = f"{self.coverage.words:.1%} of the data's words"
            hint = "are these vectors of the texts' language?"
            raise InputError(Problem("embeddings", f"{self._source()} knows only {share}", hint))
        self._resize(vectors.shape[1], float(vectors.std()))
        with torch.no_grad():
            vectors = vectors.to(self.table.weight.device)
            self.table.weight[rows.to(vectors.device)] = vectors
            if isinstance(self.project, nn.Linear):  # as spread as embeddings that start at random
                spread = self.project(vectors).std().clamp(min=1e-6)
                self.project.weight.mul_(WORD_SCALE / spread)

    def _source(self) -> str:
        return self.start.file or f"the language model {self.start.model}"

    def _found(self, features: Any) -> tuple[Tensor, Tensor]:
        """Rows of the table, and the vectors that belong there."""
        vocabulary = features.tokenizer.get_vocab(with_added_tokens=True)
        if self.start.model is not None and features.shift:  # its own tokenizer, says `TextConfig`
            from legoray.llm.embeddings import input_embeddings

            own = input_embeddings(self.start.model)
            ids = torch.tensor(sorted(set(vocabulary.values())))
            ids = ids[ids < len(own)]
            return ids + features.shift, own[ids]
        words = sorted(set(vocabulary) - {PADDING, UNKNOWN})
        found = self._of_words(words)
        rows = torch.tensor([vocabulary[word] for word in words], dtype=torch.int64)
        return rows[torch.from_numpy(found.place)], torch.from_numpy(np.copy(found.vectors))

    def _of_words(self, words: list[str]) -> Found:
        if self.start.model is not None:
            from legoray.llm.embeddings import word_embeddings

            return word_embeddings(self.start.model, words)
        if self.start.file == GLOVE:
            return read_vectors(GLOVE, words)
        path = expand(str(self.start.file), Path.cwd(), "embeddings.file")
        return read_vectors(path, words)

    def _resize(self, width: int, scale: float) -> None:
        """A new random table of this width, and what leads from it to the wanted size."""
        old = self.table.weight
        self.table = embedding(len(old), width, scale).to(old.device)
        self.table.weight.requires_grad_(old.requires_grad)
        same = width == self.size
        self.project = nn.Identity() if same else dense(width, self.size, bias=False)


def _widen(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Before saved weights are put in: a table as wide as theirs, without the vectors' file."""
    saved = state.get(f"{prefix}table.weight")
    if not isinstance(module, WordEmbedding) or saved is None or saved.ndim != 2:
        return  # the latter is torch's to complain about
    if saved.shape[1] != module.table.embedding_dim:
        with torch.random.fork_rng(devices=[]):  # reading must not move anybody's random numbers
            module._resize(saved.shape[1], WORD_SCALE)


def _coverage(rows: Tensor, features: Any) -> Coverage:
    size = features.sizes.vocabulary
    known = torch.zeros(size, dtype=torch.bool)
    known[rows] = True
    counts = torch.bincount(torch.cat([table.ids for table in features.tables]), minlength=size)
    special = 2 if features.shift == 0 else features.shift  # padding and unknown words
    total = max(int(counts.sum()), 1)
    return Coverage(len(rows) / max(size - special, 1), int(counts[known].sum()) / total)
