"""What the content operators that read tokens have in common: settings and recipe."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field, model_validator
from torch import Tensor

from legoray.config import Positive, Share
from legoray.data.recipes import TokenRecipe, Tokens
from legoray.errors import InputError, Problem
from legoray.model.base import PartConfig, Shape
from legoray.model.blocks import blocks_of, last_places
from legoray.model.content.embeddings import Embeddings, Start, WordEmbedding


class TextConfig(PartConfig):
    """Which text is read, and how it becomes token embeddings."""

    tokenizer: str = Field(
        "words", min_length=1, description="`words`, or a language model's name in the catalogue"
    )
    attributes: list[str] | None = Field(
        None, min_length=1, description="the data set's text attributes where it is not given"
    )
    length: Positive = Field(32, description="tokens per attribute at most")
    min_count: Positive = Field(2, description="rarer words share one token; `words` only")
    embedding_size: Positive = 64
    embeddings: Start = Field(
        default_factory=Embeddings,
        description="random | glove | {file, frozen} | {model, frozen}: what they start from",
    )
    dropout: Share = 0.1

    @model_validator(mode="after")
    def _words_or_own(self) -> TextConfig:
        start = self.embeddings
        if self.tokenizer != "words" and start.file is not None:
            raise ValueError("vectors of words need `tokenizer: words`")
        if self.tokenizer != "words" and start.model not in (None, self.tokenizer):
            raise ValueError(f"embeddings of the model '{start.model}' need `tokenizer: words` or "
                             f"`tokenizer: {start.model}`")  # fmt: skip
        return self


def token_recipe(config: TextConfig, text: tuple[str, ...]) -> TokenRecipe:
    """The tokens that `config` asks for; `text` holds the data set's default attributes.

    Raises:
        InputError: neither the part nor the data set says which text to read.
    """
    attributes = tuple(config.attributes) if config.attributes is not None else text
    if not attributes:
        raise InputError(
            Problem(
                "model.content.attributes",
                "the data set has no text attributes by default",
                "name the ones to read, such as attributes: [title]",
            )
        )
    min_count = config.min_count if config.tokenizer == "words" else 1
    return TokenRecipe(config.tokenizer, attributes, config.length, min_count)


def word_embedding(config: TextConfig, shape: Shape) -> WordEmbedding:
    """What turns an operator's tokens into vectors; its `start_from` is the operator's."""
    size = shape.input.vocabulary
    return WordEmbedding(size, config.embedding_size, config.dropout, config.embeddings)


def by_length(
    embed: WordEmbedding, encode: Callable[[Tensor, Tokens], Tensor], inputs: Tokens
) -> Tensor:
    """`encode(embed(inputs), inputs)`, asked for items of about the same length at a time.

    So less is padding, and what a layer writes is still in the caches when the next one reads it.

    Args:
        embed: of the tokens.
        encode: some items' token vectors `[n, L, E]` and tokens to `[n, D]`, each row on its own.
        inputs: N items' tokens.

    Returns:
        `[N, D]`.
    """
    blocks, back = blocks_of(last_places(inputs.mask))
    parts = [_cut(inputs, rows, width) for rows, width in blocks]
    encoded = [encode(own, part) for own, part in zip(embed.parts(parts), parts, strict=True)]
    return torch.cat(encoded).index_select(0, back)


def _cut(inputs: Tokens, rows: Tensor, width: int) -> Tokens:
    """Some rows, and of these the first columns."""
    return Tokens(
        inputs.ids[rows, :width], inputs.mask[rows, :width], inputs.attribute[rows, :width]
    )
