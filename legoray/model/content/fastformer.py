"""`fastformer`: words with positions in layers of additive attention, linear in the length."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from legoray.config import Positive
from legoray.data.recipes import TokenRecipe, Tokens
from legoray.model.base import ContentOperator, PartConfig, Shape
from legoray.model.content.text import TextConfig, by_length, token_recipe, word_embedding
from legoray.model.fastformer import FastformerLayers
from legoray.model.layers import WORD_SCALE, AdditiveAttention, dense, heads_problems
from legoray.model.transformer import LearnedPositions


class FastformerConfig(TextConfig):
    """Settings of `fastformer`."""

    layers: Positive = 2
    heads: Positive = 8
    inner_size: Positive | None = None  # 4 times hidden_size where it is not given
    share_layers: bool = True  # one set of weights for all layers, as in the paper
    attention_size: Positive = 64


class FastformerOperator(ContentOperator):
    """Token embeddings, learned positions, Fastformer layers, additive attention."""

    Config: ClassVar[type[PartConfig]] = FastformerConfig
    paper: ClassVar[str] = "Wu et al.: Fastformer (arXiv 2108.09084)"

    def __init__(self, config: FastformerConfig, shape: Shape) -> None:
        super().__init__()
        size = shape.hidden_size
        same = config.embedding_size == size
        self.embed = word_embedding(config, shape)
        self.enter: nn.Module = nn.Identity() if same else dense(config.embedding_size, size)
        self.positions = LearnedPositions(config.length * shape.input.attributes, size)
        self.layers = FastformerLayers(
            size=size,
            layers=config.layers,
            heads=config.heads,
            inner_size=config.inner_size or 4 * size,
            dropout=config.dropout,
            share_layers=config.share_layers,
        )
        # what comes out is as spread as the words that go in, or first scores would be large
        nn.init.constant_(self.layers.get_parameter("norm.weight"), WORD_SCALE)
        self.pool = AdditiveAttention(size, config.attention_size)

    @classmethod
    def recipe(cls, config: FastformerConfig, text: tuple[str, ...]) -> TokenRecipe:
        """Tokens of the configured attributes, read as one sequence."""
        return token_recipe(config, text)

    @classmethod
    def problems(cls, config: FastformerConfig, hidden_size: int) -> list[str]:
        """The heads share the hidden size equally."""
        return heads_problems(config.heads, hidden_size)

    def start_from(self, features: Any) -> None:
        """The words' first embeddings, as the settings ask."""
        self.embed.start_from(features)

    def forward(self, inputs: Tokens) -> Tensor:
        """`sum_t a_t layers(W e_t + p_t)`, `a` by additive attention (Wu et al., section 3).

        N items' tokens to `[N, D]`, zeros without any word; W is there where embeddings are not D
        wide.
        """
        return by_length(self.embed, self._encode, inputs)

    def _encode(self, embedded: Tensor, inputs: Tokens) -> Tensor:
        words = self.enter(embedded)
        contexts = self.layers(self.positions(words, inputs.mask), inputs.mask)
        return self.pool(contexts, inputs.mask)
