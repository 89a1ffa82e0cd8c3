"""`causal-transformer`: the history through transformer layers that see no future (SASRec)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from legoray.config import Positive, Share
from legoray.model.base import BehaviorOperator, History, PartConfig, Shape, UserKind, UserState
from legoray.model.behavior.order import PlacedItems, ages
from legoray.model.layers import heads_problems
from legoray.model.transformer import TransformerLayers


class CausalTransformerConfig(PartConfig):
    """Settings of `causal-transformer`."""

    layers: Positive = 2
    heads: Positive = 1
    inner_size: Positive | None = Field(
        None, description="of the feed-forward network; hidden_size by default"
    )
    dropout: Share = 0.2


class CausalTransformerOperator(BehaviorOperator):
    """Learned positions, causal transformer layers; the state at the newest item."""

    Config: ClassVar[type[PartConfig]] = CausalTransformerConfig
    produces: ClassVar[UserKind] = "vector"
    paper: ClassVar[str] = "Kang, McAuley: SASRec (ICDM 2018, arXiv 1808.09781)"

    def __init__(self, config: CausalTransformerConfig, shape: Shape) -> None:
        super().__init__()
        self.place = PlacedItems(shape, config.dropout)
        self.mix = TransformerLayers(
            size=shape.hidden_size,
            layers=config.layers,
            heads=config.heads,
            inner_size=config.inner_size or shape.hidden_size,
            dropout=config.dropout,
            causal=True,
        )

    @classmethod
    def problems(cls, config: CausalTransformerConfig, hidden_size: int) -> list[str]:
        """The heads share the hidden size equally."""
        return heads_problems(config.heads, hidden_size)

    def forward(self, history: History, candidates: Tensor | None = None) -> UserState:
        """`u = F_n`, n the newest item, of which `states` gives all (SASRec, section III).

        `[B, H, D]` to `[B, D]`; zeros without a history.
        """
        newest = ages(history.mask) == 1  # one item per user, or none
        weights = newest.unsqueeze(1).to(history.vectors.dtype)
        states = self.states(history)
        return UserState("vector", (weights.to(states.dtype) @ states).squeeze(1))

    def states(self, history: History) -> Tensor:
        """What the layers say at each item from it and the ones before it: `[B, H, D]`.

        Positions count from the newest item, as with SASRec's padding on the left.
        """
        return self.mix(self.place(history), history.mask)
