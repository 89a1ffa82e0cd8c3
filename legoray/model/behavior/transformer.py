"""`transformer`: the history with positions through transformer layers, then pooled (BST)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from legoray.config import Positive, Share
from legoray.model.base import BehaviorOperator, History, PartConfig, Shape, UserKind, UserState
from legoray.model.behavior.order import PlacedItems
from legoray.model.layers import Activation, AdditiveAttention, heads_problems, masked_mean
from legoray.model.transformer import TransformerLayers


class TransformerConfig(PartConfig):
    """Settings of `transformer`."""

    layers: Positive = 1
    heads: Positive = 8
    inner_size: Positive | None = Field(
        None, description="of the feed-forward network; four times hidden_size by default"
    )
    activation: Activation = "relu"
    pool: Literal["mean", "additive"] = "mean"
    attention_size: Positive = Field(64, description="of pool: additive")
    dropout: Share = 0.1


class TransformerOperator(BehaviorOperator):
    """Learned positions counted from the newest item, transformer layers, pooling."""

    Config: ClassVar[type[PartConfig]] = TransformerConfig
    produces: ClassVar[UserKind] = "vector"
    paper: ClassVar[str] = "Chen et al.: BST (DLP-KDD 2019, arXiv 1905.06874)"

    def __init__(self, config: TransformerConfig, shape: Shape) -> None:
        super().__init__()
        size = shape.hidden_size
        self.place = PlacedItems(shape, config.dropout)
        self.mix = TransformerLayers(
            size=size,
            layers=config.layers,
            heads=config.heads,
            inner_size=config.inner_size or 4 * size,
            dropout=config.dropout,
            pre_norm=False,
            activation=config.activation,
        )
        additive = config.pool == "additive"
        self.pool: nn.Module | None = (
            AdditiveAttention(size, config.attention_size) if additive else None
        )

    @classmethod
    def problems(cls, config: TransformerConfig, hidden_size: int) -> list[str]:
        """The heads share the hidden size equally."""
        return heads_problems(config.heads, hidden_size)

    def forward(self, history: History, candidates: Tensor | None = None) -> UserState:
        """`u = pool(Transformer(h_i + p_i))` (BST).

        As in BST a position says how long before the present an item stands: there in time, here in
        items, the newest being 1. Unlike there the candidate meets the history only in the click
        predictor. `[B, H, D]` to `[B, D]`; zeros without a history.
        """
        mixed = self.mix(self.place(history), history.mask)
        pool = masked_mean if self.pool is None else self.pool
        return UserState("vector", pool(mixed, history.mask))
