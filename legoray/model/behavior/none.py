"""`none`: the history itself, for predictors that read it item by item."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from legoray.model.base import BehaviorOperator, History, PartConfig, Shape, UserKind, UserState
from legoray.model.layers import zero_masked


class NoneConfig(PartConfig):
    """`none` has no settings."""


class NoneOperator(BehaviorOperator):
    """Passes the sequence on."""

    Config: ClassVar[type[PartConfig]] = NoneConfig
    produces: ClassVar[UserKind] = "sequence"

    def __init__(self, config: NoneConfig, shape: Shape) -> None:
        super().__init__()

    def forward(self, history: History, candidates: Tensor | None = None) -> UserState:
        """The vectors `[B, H, D]` as they are, zeros under the mask."""
        return UserState("sequence", zero_masked(history.vectors, history.mask), history.mask)
