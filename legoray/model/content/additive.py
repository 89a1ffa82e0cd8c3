"""`additive`: word embeddings pooled by attention, without anything between them."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from legoray.config import Positive
from legoray.data.recipes import TokenRecipe, Tokens
from legoray.model.base import ContentOperator, PartConfig, Shape
from legoray.model.content.text import TextConfig, by_length, token_recipe, word_embedding
from legoray.model.layers import AdditiveAttention, dense


class AdditiveConfig(TextConfig):
    """Settings of `additive`."""

    attention_size: Positive = 64


class AdditiveOperator(ContentOperator):
    """Token embeddings, dropout, additive attention, projected where the sizes differ."""

    Config: ClassVar[type[PartConfig]] = AdditiveConfig
    paper: ClassVar[str] = (
        "Wu et al.: NAML (IJCAI 2019, arXiv 1907.05576), its word attention alone"
    )

    def __init__(self, config: AdditiveConfig, shape: Shape) -> None:
        super().__init__()
        size = config.embedding_size
        same = size == shape.hidden_size
        self.embed = word_embedding(config, shape)
        self.pool = AdditiveAttention(size, config.attention_size)
        self.project: nn.Module = nn.Identity() if same else dense(size, shape.hidden_size)

    @classmethod
    def recipe(cls, config: AdditiveConfig, text: tuple[str, ...]) -> TokenRecipe:
        """Tokens of the configured attributes, read as one set."""
        return token_recipe(config, text)

    def start_from(self, features: Any) -> None:
        """The words' first embeddings, as the settings ask."""
        self.embed.start_from(features)

    def forward(self, inputs: Tokens) -> Tensor:
        """`W sum_t a_t e_t + b`, `a = softmax(q^T tanh(V e_t + v))` (NAML, its attention).

        N items' tokens to `[N, D]`; without W and b where embeddings are D wide.
        """
        return by_length(self.embed, self._encode, inputs)

    def _encode(self, embedded: Tensor, inputs: Tokens) -> Tensor:
        return self.project(self.pool(embedded, inputs.mask))
