"""`dcn`: explicit feature crosses beside a deep network."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from legoray.config import Positive, Share
from legoray.model.base import ClickPredictor, FieldsConfig, PartConfig, Shape, UserKind, UserState
from legoray.model.layers import MLP, Activation, scoring
from legoray.model.predictor.fields import FieldStack


class DcnConfig(FieldsConfig):
    """Settings of `dcn`."""

    cross_layers: Positive = 3
    units: list[Positive] = Field(default_factory=lambda: [128, 64], min_length=1)
    activation: Activation = "relu"
    dropout: Share = 0.1


class DcnPredictor(ClickPredictor):
    """A cross network and an MLP on `[u; c; fields]`, joined by one linear layer."""

    Config: ClassVar[type[PartConfig]] = DcnConfig
    accepts: ClassVar[frozenset[UserKind]] = frozenset({"vector"})
    paper: ClassVar[str] = "Wang et al.: Deep & Cross Network (ADKDD 2017, arXiv 1708.05123)"

    def __init__(self, config: DcnConfig, shape: Shape) -> None:
        super().__init__()
        self.stack = FieldStack(shape)
        size = self.stack.count * shape.hidden_size
        scale = 1 / math.sqrt(size)
        self.weights = nn.Parameter(torch.randn(config.cross_layers, size) * scale)
        self.biases = nn.Parameter(torch.zeros(config.cross_layers, size))
        self.deep = MLP(
            size=size, units=config.units, activation=config.activation, dropout=config.dropout
        )
        self.output = scoring(size + self.deep.output_size)

    def forward(self, user: UserState, candidates: Tensor, fields: Tensor | None = None) -> Tensor:
        """`x_{l+1} = x_0 (x_l^T w_l) + b_l + x_l`, `s = W [x_L; MLP(x_0)] + b` (DCN, eq. 3 and on).

        `x_0 = [u; c; fields]`: `u [B, D]`, `c [B, K, D]` to `[B, K]`.
        """
        first = self.stack(user, candidates, fields).flatten(2)
        deep = self.deep.of_pairs(first, candidates.shape[-1])
        return self.output(torch.cat([self.cross(first), deep], dim=-1)).squeeze(-1)

    def cross(self, first: Tensor) -> Tensor:
        """The cross network: `x_0 [..., N]` to `x_L [..., N]`, N its width."""
        crossed = first
        for weight, bias in zip(self.weights, self.biases, strict=True):
            crossed = first * (crossed @ weight).unsqueeze(-1) + bias + crossed
        return crossed
