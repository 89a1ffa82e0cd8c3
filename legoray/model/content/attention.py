"""`attention`: words attend to each other, then are pooled by attention (NRMS)."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from legoray.config import Positive
from legoray.data.recipes import TokenRecipe, Tokens
from legoray.model.base import ContentOperator, PartConfig, Shape
from legoray.model.content.text import TextConfig, by_length, token_recipe, word_embedding
from legoray.model.layers import AdditiveAttention, Dropout, SelfAttention, heads_problems


class AttentionConfig(TextConfig):
    """Settings of `attention`."""

    heads: Positive = 8
    attention_size: Positive = 64


class AttentionOperator(ContentOperator):
    """Token embeddings, dropout, multi-head self-attention, dropout, additive attention."""

    Config: ClassVar[type[PartConfig]] = AttentionConfig
    paper: ClassVar[str] = "Wu et al.: NRMS (EMNLP 2019, D19-1671)"

    def __init__(self, config: AttentionConfig, shape: Shape) -> None:
        super().__init__()
        size = shape.hidden_size
        self.embed = word_embedding(config, shape)
        self.mix = SelfAttention(size=config.embedding_size, output_size=size, heads=config.heads)
        self.dropout = Dropout(config.dropout)
        self.pool = AdditiveAttention(size, config.attention_size)

    @classmethod
    def recipe(cls, config: AttentionConfig, text: tuple[str, ...]) -> TokenRecipe:
        """Tokens of the configured attributes, read as one sequence."""
        return token_recipe(config, text)

    @classmethod
    def problems(cls, config: AttentionConfig, hidden_size: int) -> list[str]:
        """The heads share the hidden size equally."""
        return heads_problems(config.heads, hidden_size)

    def start_from(self, features: Any) -> None:
        """The words' first embeddings, as the settings ask."""
        self.embed.start_from(features)

    def forward(self, inputs: Tokens) -> Tensor:
        """Self-attention over the tokens, then additive attention (NRMS, its news encoder).

        N items' tokens to `[N, D]`; the heads' outputs, joined, are D wide.
        """
        return by_length(self.embed, self._encode, inputs)

    def _encode(self, embedded: Tensor, inputs: Tokens) -> Tensor:
        mixed = self.dropout(self.mix(embedded, inputs.mask))
        return self.pool(mixed, inputs.mask)
