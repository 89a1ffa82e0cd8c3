"""`attention`: the items of the history attend to each other, then are pooled (NRMS)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from legoray.config import Positive, Share
from legoray.model.base import (
    BehaviorOperator,
    History,
    PartConfig,
    Shape,
    UserKind,
    UserState,
)
from legoray.model.layers import AdditiveAttention, Dropout, SelfAttention, heads_problems


class AttentionConfig(PartConfig):
    """Settings of `attention`."""

    heads: Positive = 8
    attention_size: Positive = 64
    dropout: Share = 0.1


class AttentionOperator(BehaviorOperator):
    """Multi-head self-attention over the history, dropout, additive attention."""

    Config: ClassVar[type[PartConfig]] = AttentionConfig
    produces: ClassVar[UserKind] = "vector"
    paper: ClassVar[str] = "Wu et al.: NRMS (EMNLP 2019, D19-1671)"

    def __init__(self, config: AttentionConfig, shape: Shape) -> None:
        super().__init__()
        size = shape.hidden_size
        self.mix = SelfAttention(size=size, output_size=size, heads=config.heads)
        self.dropout = Dropout(config.dropout)
        self.pool = AdditiveAttention(size, config.attention_size)

    @classmethod
    def problems(cls, config: AttentionConfig, hidden_size: int) -> list[str]:
        """The heads share the hidden size equally."""
        return heads_problems(config.heads, hidden_size)

    def forward(self, history: History, candidates: Tensor | None = None) -> UserState:
        """Self-attention among the history's items, then additive attention (NRMS, over news).

        `[B, H, D]` to `[B, D]`; zeros without a history.
        """
        mixed = self.dropout(self.mix(history.vectors, history.mask))
        return UserState("vector", self.pool(mixed, history.mask))
