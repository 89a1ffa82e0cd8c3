"""`pooling`: the mean or maximum of word embeddings."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from legoray.data.recipes import TokenRecipe, Tokens
from legoray.model.base import ContentOperator, PartConfig, Shape
from legoray.model.content.text import TextConfig, token_recipe
from legoray.model.layers import TokenEmbedding, masked_max, masked_mean


class PoolingConfig(TextConfig):
    """Settings of `pooling`."""

    pool: Literal["mean", "max"] = "mean"  # over the tokens of an attribute
    combine: Literal["mean", "concat", "sum"] = "mean"  # over the attributes


class PoolingOperator(ContentOperator):
    """Token embeddings pooled per attribute, combined over the attributes, projected."""

    Config: ClassVar[type[PartConfig]] = PoolingConfig
    paper: ClassVar[str] = "Liu, Fan, Wu: Legommenders (WWW 2025), 'Pooling'"

    def __init__(self, config: PoolingConfig, shape: Shape) -> None:
        super().__init__()
        self.attributes = shape.attributes
        self.pool = config.pool
        self.combine = config.combine
        self.embed = TokenEmbedding(shape.vocabulary, config.embedding_size, config.dropout)
        joined = shape.attributes if config.combine == "concat" else 1
        self.project = nn.Linear(config.embedding_size * joined, shape.hidden_size)

    @classmethod
    def recipe(cls, config: PoolingConfig, text: tuple[str, ...]) -> TokenRecipe:
        """Tokens of the configured attributes."""
        return token_recipe(config, text)

    def forward(self, inputs: Tokens) -> Tensor:
        """`W combine_a(pool_{t in a} e_t) + b`: N items' tokens to `[N, D]`.

        An attribute without text counts as zeros, and is left out of the mean over attributes.
        """
        embedded = self.embed(inputs.ids, inputs.mask)
        pool = masked_mean if self.pool == "mean" else masked_max
        own = [inputs.mask & (inputs.attribute == a) for a in range(self.attributes)]
        pooled = torch.stack([pool(embedded, mask) for mask in own], dim=1)
        if self.combine == "concat":
            return self.project(pooled.flatten(1))
        if self.combine == "sum":
            return self.project(pooled.sum(dim=1))
        present = torch.stack([mask.any(dim=1) for mask in own], dim=1)
        return self.project(masked_mean(pooled, present))
