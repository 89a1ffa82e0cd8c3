"""`dnn`: a multi-layer perceptron on user and item."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from legoray.config import Positive, Share
from legoray.model.base import ClickPredictor, FieldsConfig, PartConfig, Shape, UserKind, UserState
from legoray.model.layers import MLP, Activation
from legoray.model.predictor.fields import FieldStack


class DnnConfig(FieldsConfig):
    """Settings of `dnn`."""

    units: list[Positive] = Field(default_factory=lambda: [128, 64], min_length=1)
    activation: Activation = "relu"
    dropout: Share = 0.1


class DnnPredictor(ClickPredictor):
    """An MLP on the user vector, the item vector and the fields side by side."""

    Config: ClassVar[type[PartConfig]] = DnnConfig
    accepts: ClassVar[frozenset[UserKind]] = frozenset({"vector"})
    paper: ClassVar[str] = "He et al.: Neural Collaborative Filtering (WWW 2017), MLP part"

    def __init__(self, config: DnnConfig, shape: Shape) -> None:
        super().__init__()
        self.stack = FieldStack(shape)
        self.mlp = MLP(
            size=self.stack.count * shape.hidden_size,
            units=config.units,
            score=True,
            activation=config.activation,
            dropout=config.dropout,
        )

    def forward(self, user: UserState, candidates: Tensor, fields: Tensor | None = None) -> Tensor:
        """`s = MLP([u; c; fields])`: `u [B, D]`, `c [B, K, D]` to `[B, K]`."""
        pairs = self.stack(user, candidates, fields).flatten(2)
        return self.mlp.of_pairs(pairs, candidates.shape[-1]).squeeze(-1)
