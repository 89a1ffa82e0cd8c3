"""`pooling`: the mean or maximum of word embeddings."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from legoray.data.recipes import TokenRecipe, Tokens
from legoray.model.base import ContentOperator, PartConfig, Shape
from legoray.model.content.text import TextConfig, token_recipe, word_embedding
from legoray.model.layers import Dropout, dense, masked_max, masked_mean


class PoolingConfig(TextConfig):
    """Settings of `pooling`."""

    pool: Literal["mean", "max"] = "mean"  # over the tokens of an attribute
    combine: Literal["mean", "concat", "sum"] = "mean"  # over the attributes


class PoolingOperator(ContentOperator):
    """Token embeddings pooled per attribute, dropout, combined over the attributes, projected."""

    Config: ClassVar[type[PartConfig]] = PoolingConfig
    paper: ClassVar[str] = "Liu, Fan, Wu: Legommenders (WWW 2025), 'Pooling'"

    def __init__(self, config: PoolingConfig, shape: Shape) -> None:
        super().__init__()
        self.attributes = shape.input.attributes
        self.pool = config.pool
        self.combine = config.combine
        self.embed = word_embedding(config, shape)
        self.dropout = Dropout(config.dropout)
        joined = shape.input.attributes if config.combine == "concat" else 1
        self.project = dense(config.embedding_size * joined, shape.hidden_size)

    @classmethod
    def recipe(cls, config: PoolingConfig, text: tuple[str, ...]) -> TokenRecipe:
        """Tokens of the configured attributes."""
        return token_recipe(config, text)

    def start_from(self, features: Any) -> None:
        """The words' first embeddings, as the settings ask."""
        self.embed.start_from(features)

    def forward(self, inputs: Tokens) -> Tensor:
        """`W combine_a(pool_{t in a} e_t) + b`: N items' tokens to `[N, D]`.

        An attribute without text counts as zeros, and is left out of the mean over attributes.
        """
        own = [inputs.mask & (inputs.attribute == a) for a in range(self.attributes)]
        pooled = self.dropout(torch.stack([self._pool(inputs.ids, mask) for mask in own], dim=1))
        if self.combine == "concat":
            return self.project(pooled.flatten(1))
        if self.combine == "sum":
            return self.project(pooled.sum(dim=1))
        present = torch.stack([mask.any(dim=1) for mask in own], dim=1)
        return self.project(masked_mean(pooled, present))

    def _pool(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Mean or maximum of one attribute's embeddings, `[N, E]`; zeros where it has no token.

        A bag never writes the `[N, L, E]` embeddings down; padding (token 0) is not in it. A mean
        may be projected to E after it was taken, a maximum may not.
        """
        bags = ids.masked_fill(~mask, 0)
        table = self.embed.table.weight
        if self.pool == "mean":
            return self.embed.project(F.embedding_bag(bags, table, mode="mean", padding_idx=0))
        if isinstance(self.embed.project, nn.Identity):
            return F.embedding_bag(bags, table, mode="max", padding_idx=0)
        return masked_max(self.embed.project(F.embedding(bags, table)), mask)
