"""`dnn`: a multi-layer perceptron on user and item."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from legoray.config import Positive, Share
from legoray.model.base import ClickPredictor, PartConfig, Shape, UserKind, UserState
from legoray.model.layers import MLP, Activation


class DnnConfig(PartConfig):
    """Settings of `dnn`."""

    units: list[Positive] = Field(default_factory=lambda: [128, 64], min_length=1)
    activation: Activation = "relu"
    dropout: Share = 0.1


class DnnPredictor(ClickPredictor):
    """An MLP on the user vector and the item vector side by side."""

    Config: ClassVar[type[PartConfig]] = DnnConfig
    accepts: ClassVar[frozenset[UserKind]] = frozenset({"vector"})
    paper: ClassVar[str] = "He et al.: Neural Collaborative Filtering (WWW 2017), MLP part"

    def __init__(self, config: DnnConfig, shape: Shape) -> None:
        super().__init__()
        self.mlp = MLP(
            size=2 * shape.hidden_size,
            units=config.units,
            output_size=1,
            activation=config.activation,
            dropout=config.dropout,
        )

    def forward(self, user: UserState, candidates: Tensor) -> Tensor:
        """`s = MLP([u; c])`: `u [B, D]`, `c [B, K, D]` to `[B, K]`."""
        return self.mlp(pair(user.values, candidates)).squeeze(-1)


def pair(user: Tensor, candidates: Tensor) -> Tensor:
    """`u [B, D]` beside each of `c [B, K, D]`: `[B, K, 2 D]`."""
    return torch.cat([user.unsqueeze(1).expand_as(candidates), candidates], dim=-1)
