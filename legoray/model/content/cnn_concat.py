"""`cnn-concat`: each attribute read by a convolution of its own, the vectors side by side."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from legoray.config import Positive
from legoray.data.recipes import TokenRecipe, Tokens
from legoray.model.base import ContentOperator, PartConfig, Shape
from legoray.model.content.text import TextConfig, by_length, token_recipe, word_embedding
from legoray.model.layers import AdditiveAttention, Dropout, convolution, dense


class CnnConcatConfig(TextConfig):
    """Settings of `cnn-concat`."""

    kernel_size: Positive = 3
    filters: Positive | None = None  # of each attribute; hidden_size where it is not given
    attention_size: Positive = 64


class CnnConcatOperator(ContentOperator):
    """Per attribute a convolution, ReLU and additive attention; concatenated and projected."""

    Config: ClassVar[type[PartConfig]] = CnnConcatConfig
    paper: ClassVar[str] = (
        "Wu et al.: NAML (IJCAI 2019, arXiv 1907.05576), its views joined without attention"
    )

    def __init__(self, config: CnnConcatConfig, shape: Shape) -> None:
        super().__init__()
        filters = config.filters or shape.hidden_size
        attributes = range(shape.input.attributes)
        self.length = config.length
        self.embed = word_embedding(config, shape)
        width = config.kernel_size
        self.convolve = nn.ModuleList(
            convolution(config.embedding_size, filters, width, width // 2) for _ in attributes
        )
        self.dropout = Dropout(config.dropout)
        self.pool = nn.ModuleList(
            AdditiveAttention(filters, config.attention_size) for _ in attributes
        )
        self.project = dense(filters * shape.input.attributes, shape.hidden_size)

    @classmethod
    def recipe(cls, config: CnnConcatConfig, text: tuple[str, ...]) -> TokenRecipe:
        """Tokens of the configured attributes."""
        return token_recipe(config, text)

    def start_from(self, features: Any) -> None:
        """The words' first embeddings, as the settings ask."""
        self.embed.start_from(features)

    def forward(self, inputs: Tokens) -> Tensor:
        """`W [v_1; ...; v_A] + b`, `v_a` the words of attribute a as NAML reads them.

        N items' tokens to `[N, D]`. Beyond an attribute's ends the convolution reads zeros; an
        attribute without text is zeros.
        """
        views = [
            by_length(self.embed, partial(self._encode, number), self._attribute(inputs, number))
            for number in range(len(self.convolve))
        ]
        return self.project(torch.cat(views, dim=-1))

    def _attribute(self, inputs: Tokens, number: int) -> Tokens:
        """The tokens of one attribute alone, moved to the front."""
        own = inputs.mask & (inputs.attribute == number)
        front = torch.sort((~own).to(torch.uint8), dim=1, stable=True).indices[:, : self.length]
        return Tokens(
            inputs.ids.gather(1, front), own.gather(1, front), inputs.attribute.gather(1, front)
        )

    def _encode(self, number: int, embedded: Tensor, inputs: Tokens) -> Tensor:
        convolved = self.convolve[number](embedded.transpose(1, 2)).transpose(1, 2)
        contexts = torch.relu(convolved[:, -embedded.shape[1] :])  # an even kernel gives one more
        return self.pool[number](self.dropout(contexts), inputs.mask)
