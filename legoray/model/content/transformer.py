"""`transformer`: words with positions in a stack of Transformer layers trained from the start."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from legoray.config import Positive
from legoray.data.recipes import TokenRecipe, Tokens
from legoray.model.base import ContentOperator, PartConfig, Shape
from legoray.model.content.text import TextConfig, by_length, token_recipe, word_embedding
from legoray.model.layers import WORD_SCALE, AdditiveAttention, dense, heads_problems, masked_mean
from legoray.model.transformer import LearnedPositions, TransformerLayers


class TransformerConfig(TextConfig):
    """Settings of `transformer`."""

    layers: Positive = 2
    heads: Positive = 8
    inner_size: Positive | None = None  # 4 times hidden_size where it is not given
    pool: Literal["additive", "mean"] = "additive"
    attention_size: Positive = 64  # of `pool: additive`


class TransformerOperator(ContentOperator):
    """Token embeddings, learned positions, Transformer layers, additive attention or the mean."""

    Config: ClassVar[type[PartConfig]] = TransformerConfig
    paper: ClassVar[str] = "Vaswani et al.: Attention is all you need (NeurIPS 2017, 1706.03762)"

    def __init__(self, config: TransformerConfig, shape: Shape) -> None:
        super().__init__()
        size = shape.hidden_size
        same = config.embedding_size == size
        self.embed = word_embedding(config, shape)
        self.enter: nn.Module = nn.Identity() if same else dense(config.embedding_size, size)
        self.positions = LearnedPositions(config.length * shape.input.attributes, size)
        self.layers = TransformerLayers(
            size=size,
            layers=config.layers,
            heads=config.heads,
            inner_size=config.inner_size or 4 * size,
            dropout=config.dropout,
        )
        # what comes out is as spread as the words that go in, or first scores would be large
        nn.init.constant_(self.layers.get_parameter("norm.weight"), WORD_SCALE)
        additive = config.pool == "additive"
        self.pool = AdditiveAttention(size, config.attention_size) if additive else None

    @classmethod
    def recipe(cls, config: TransformerConfig, text: tuple[str, ...]) -> TokenRecipe:
        """Tokens of the configured attributes, read as one sequence."""
        return token_recipe(config, text)

    @classmethod
    def problems(cls, config: TransformerConfig, hidden_size: int) -> list[str]:
        """The heads share the hidden size equally."""
        return heads_problems(config.heads, hidden_size)

    def start_from(self, features: Any) -> None:
        """The words' first embeddings, as the settings ask."""
        self.embed.start_from(features)

    def forward(self, inputs: Tokens) -> Tensor:
        """`pool_t(layers(W e_t + p_t))`; N items' tokens to `[N, D]`, zeros without any word.

        The layers are those of Vaswani et al., section 3, with the normalization before each part;
        W is there where embeddings are not D wide.
        """
        return by_length(self.embed, self._encode, inputs)

    def _encode(self, embedded: Tensor, inputs: Tokens) -> Tensor:
        words = self.enter(embedded)
        contexts = self.layers(self.positions(words, inputs.mask), inputs.mask)
        if self.pool is None:
            return masked_mean(contexts, inputs.mask)
        return self.pool(contexts, inputs.mask)
