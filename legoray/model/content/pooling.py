"""`pooling`: the mean or maximum of word embeddings."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from legoray.data.recipes import TokenRecipe, Tokens
from legoray.model.base import ContentOperator, PartConfig, Shape
from legoray.model.content.text import TextConfig, token_recipe
from legoray.model.layers import WORD_SCALE, dense, embedding, masked_mean


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
        self.table = embedding(shape.input.vocabulary, config.embedding_size, WORD_SCALE)
        self.dropout = nn.Dropout(config.dropout)
        joined = shape.input.attributes if config.combine == "concat" else 1
        self.project = dense(config.embedding_size * joined, shape.hidden_size)

    @classmethod
    def recipe(cls, config: PoolingConfig, text: tuple[str, ...]) -> TokenRecipe:
        """Tokens of the configured attributes."""
        return token_recipe(config, text)

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

        A bag never writes the `[N, L, E]` embeddings down; padding (token 0) is not in it.
        """
        bags = ids.masked_fill(~mask, 0)
        return F.embedding_bag(bags, self.table.weight, mode=self.pool, padding_idx=0)
