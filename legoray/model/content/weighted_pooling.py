"""`weighted-pooling`: a mean of word embeddings in which telling words weigh more."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from legoray.data.recipes import TokenRecipe, Tokens
from legoray.model.base import ContentOperator, PartConfig, Shape
from legoray.model.content.text import TextConfig, by_length, token_recipe, word_embedding
from legoray.model.layers import dense, embedding, masked_mean, masked_softmax

_TINY = 1e-6  # keeps the shares finite where every weight has sunk to 0


class WeightedPoolingConfig(TextConfig):
    """Settings of `weighted-pooling`."""

    weights: Literal["softmax", "softplus"] = "softmax"  # how a token's scalar becomes its share
    combine: Literal["mean", "concat", "sum"] = "mean"  # over the attributes


class WeightedPoolingOperator(ContentOperator):
    """Token embeddings averaged per attribute by a learned weight of each word, like tf-idf."""

    Config: ClassVar[type[PartConfig]] = WeightedPoolingConfig
    paper: ClassVar[str] = "Salton, Buckley: term weighting (IPM 1988), with learned weights"

    def __init__(self, config: WeightedPoolingConfig, shape: Shape) -> None:
        super().__init__()
        self.attributes = shape.input.attributes
        self.weights = config.weights
        self.combine = config.combine
        self.embed = word_embedding(config, shape)
        self.weight = embedding(shape.input.vocabulary, 1, 0.0)  # all alike: at first a plain mean
        joined = shape.input.attributes if config.combine == "concat" else 1
        self.project = dense(config.embedding_size * joined, shape.hidden_size)

    @classmethod
    def recipe(cls, config: WeightedPoolingConfig, text: tuple[str, ...]) -> TokenRecipe:
        """Tokens of the configured attributes."""
        return token_recipe(config, text)

    def start_from(self, features: Any) -> None:
        """The words' first embeddings, as the settings ask."""
        self.embed.start_from(features)

    def forward(self, inputs: Tokens) -> Tensor:
        """`W combine_a(sum_{t in a} w_t e_t) + b`: N items' tokens to `[N, D]`.

        `w_t` is `exp(s_t)`, or `softplus(s_t)`, divided by its sum over the tokens of a, with one
        learned `s` for each word of the vocabulary. An attribute without text counts as zeros, and
        is left out of the mean over attributes.
        """
        return by_length(self.embed, self._encode, inputs)

    def _encode(self, embedded: Tensor, inputs: Tokens) -> Tensor:
        numbers = torch.arange(self.attributes, device=inputs.attribute.device)[:, None]
        own = inputs.mask[:, None] & (inputs.attribute[:, None] == numbers)  # [N, A, L]
        scores = self.weight(inputs.ids.masked_fill(~inputs.mask, 0)).transpose(1, 2)  # [N, 1, L]
        pooled = self._shares(scores, own).to(embedded.dtype) @ embedded  # [N, A, E]
        if self.combine == "concat":
            return self.project(pooled.flatten(1))
        if self.combine == "sum":
            return self.project(pooled.sum(dim=1))
        return self.project(masked_mean(pooled, own.any(dim=-1)))

    def _shares(self, scores: Tensor, own: Tensor) -> Tensor:
        """`[N, A, L]` weights that sum to 1 over each attribute's tokens; zeros elsewhere."""
        if self.weights == "softmax":
            return masked_softmax(scores, own)
        positive = F.softplus(scores) * own
        return positive / positive.sum(dim=-1, keepdim=True).clamp(min=_TINY)
