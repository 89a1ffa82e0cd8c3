"""`cnn`: local contexts of words by a convolution, pooled by attention (NAML, LSTUR)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from legoray.config import Positive
from legoray.data.recipes import TokenRecipe, Tokens
from legoray.model.base import ContentOperator, PartConfig, Shape
from legoray.model.content.text import TextConfig, by_length, token_recipe, word_embedding
from legoray.model.layers import AdditiveAttention, Dropout, convolution, dense


class CnnConfig(TextConfig):
    """Settings of `cnn`."""

    kernel_size: Positive = 3
    filters: Positive | None = None  # hidden_size where it is not given
    attention_size: Positive = 64


class CnnOperator(ContentOperator):
    """Token embeddings, dropout, convolution over tokens, ReLU, dropout, additive attention."""

    Config: ClassVar[type[PartConfig]] = CnnConfig
    paper: ClassVar[str] = "Wu et al.: NAML (IJCAI 2019, arXiv 1907.05576); LSTUR (P19-1033)"

    def __init__(self, config: CnnConfig, shape: Shape) -> None:
        super().__init__()
        filters = config.filters or shape.hidden_size
        same = filters == shape.hidden_size
        self.embed = word_embedding(config, shape)
        width = config.kernel_size
        self.convolve = convolution(config.embedding_size, filters, width, width // 2)
        self.dropout = Dropout(config.dropout)
        self.pool = AdditiveAttention(filters, config.attention_size)
        self.project: nn.Module = nn.Identity() if same else dense(filters, shape.hidden_size)

    @classmethod
    def recipe(cls, config: CnnConfig, text: tuple[str, ...]) -> TokenRecipe:
        """Tokens of the configured attributes, read as one sequence."""
        return token_recipe(config, text)

    def start_from(self, features: Any) -> None:
        """The words' first embeddings, as the settings ask."""
        self.embed.start_from(features)

    def forward(self, inputs: Tokens) -> Tensor:
        """`c_t = ReLU(F e_{t-k:t+k} + b)`, then additive attention over t (NAML).

        N items' tokens to `[N, D]`. Beyond a text's ends the convolution reads zeros.
        """
        return by_length(self.embed, self._encode, inputs)

    def _encode(self, embedded: Tensor, inputs: Tokens) -> Tensor:
        convolved = self.convolve(embedded.transpose(1, 2)).transpose(1, 2)
        contexts = torch.relu(convolved[:, -embedded.shape[1] :])  # an even kernel gives one more
        return self.project(self.pool(self.dropout(contexts), inputs.mask))
