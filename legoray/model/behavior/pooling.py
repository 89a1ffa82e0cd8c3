"""`pooling`: the mean or maximum of the history."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from legoray.model.base import BehaviorOperator, History, PartConfig, Shape, UserKind, UserState
from legoray.model.layers import masked_max, masked_mean


class PoolingConfig(PartConfig):
    """Settings of `pooling`."""

    pool: Literal["mean", "max"] = "mean"


class PoolingOperator(BehaviorOperator):
    """Mean or maximum over the items of the history."""

    Config: ClassVar[type[PartConfig]] = PoolingConfig
    produces: ClassVar[UserKind] = "vector"
    paper: ClassVar[str] = "Liu, Fan, Wu: Legommenders (WWW 2025), 'Pooling'"

    def __init__(self, config: PoolingConfig, shape: Shape) -> None:
        super().__init__()
        self.pool = config.pool

    def forward(self, history: History, candidates: Tensor | None = None) -> UserState:
        """`u = mean_i h_i` or `max_i h_i`: `[B, H, D]` to `[B, D]`; zeros without a history."""
        pool = masked_mean if self.pool == "mean" else masked_max
        return UserState("vector", pool(history.vectors, history.mask))
