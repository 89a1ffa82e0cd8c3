"""`fastformer`: the history through layers of additive attention, then pooled (Fastformer)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from legoray.config import Positive, Share
from legoray.model.base import BehaviorOperator, History, PartConfig, Shape, UserKind, UserState
from legoray.model.behavior.order import PlacedItems
from legoray.model.fastformer import FastformerLayers
from legoray.model.layers import AdditiveAttention, heads_problems


class FastformerConfig(PartConfig):
    """Settings of `fastformer`."""

    layers: Positive = 2
    heads: Positive = 8
    inner_size: Positive | None = Field(
        None, description="of the feed-forward network; four times hidden_size by default"
    )
    attention_size: Positive = 64
    dropout: Share = 0.1


class FastformerOperator(BehaviorOperator):
    """Learned positions counted from the newest item, Fastformer layers, additive attention."""

    Config: ClassVar[type[PartConfig]] = FastformerConfig
    produces: ClassVar[UserKind] = "vector"
    paper: ClassVar[str] = "Wu et al.: Fastformer (arXiv 2108.09084)"

    def __init__(self, config: FastformerConfig, shape: Shape) -> None:
        super().__init__()
        size = shape.hidden_size
        self.place = PlacedItems(shape, config.dropout)
        self.mix = FastformerLayers(
            size=size,
            layers=config.layers,
            heads=config.heads,
            inner_size=config.inner_size or 4 * size,
            dropout=config.dropout,
        )
        self.pool = AdditiveAttention(size, config.attention_size)

    @classmethod
    def problems(cls, config: FastformerConfig, hidden_size: int) -> list[str]:
        """The heads share the hidden size equally."""
        return heads_problems(config.heads, hidden_size)

    def forward(self, history: History, candidates: Tensor | None = None) -> UserState:
        """`u = pool(Fastformer(h_i + p_i))` (Fastformer, section 3).

        `[B, H, D]` to `[B, D]`; zeros without a history.
        """
        mixed = self.mix(self.place(history), history.mask)
        return UserState("vector", self.pool(mixed, history.mask))
