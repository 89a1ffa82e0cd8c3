"""What the content operators that read tokens have in common: settings and recipe."""

from __future__ import annotations

from pydantic import Field

from legoray.config import Positive, Share
from legoray.data.recipes import TokenRecipe
from legoray.errors import InputError, Problem
from legoray.model.base import PartConfig


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
    dropout: Share = 0.1


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
