"""`additive`: the history pooled by a learned query (NAML)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from legoray.config import Positive, Share
from legoray.model.base import BehaviorOperator, History, PartConfig, Shape, UserKind, UserState
from legoray.model.layers import AdditiveAttention, Dropout


class AdditiveConfig(PartConfig):
    """Settings of `additive`."""

    attention_size: Positive = 64
    dropout: Share = 0.0


class AdditiveOperator(BehaviorOperator):
    """Additive attention over the items of the history."""

    Config: ClassVar[type[PartConfig]] = AdditiveConfig
    produces: ClassVar[UserKind] = "vector"
    paper: ClassVar[str] = "Wu et al.: NAML (IJCAI 2019, arXiv 1907.05576)"

    def __init__(self, config: AdditiveConfig, shape: Shape) -> None:
        super().__init__()
        self.dropout = Dropout(config.dropout)
        self.pool = AdditiveAttention(shape.hidden_size, config.attention_size)

    def forward(self, history: History, candidates: Tensor | None = None) -> UserState:
        """`u = sum_i a_i h_i`, `a = softmax(q^T tanh(W h_i + b))` (NAML, its user encoder).

        `[B, H, D]` to `[B, D]`; zeros without a history.
        """
        return UserState("vector", self.pool(self.dropout(history.vectors), history.mask))
