"""`din`: each candidate picks what matters from the history (deep interest network)."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from legoray.config import Positive, Share
from legoray.model.base import ClickPredictor, PartConfig, Shape, UserKind, UserState
from legoray.model.layers import (
    MLP,
    Activation,
    activation_layer,
    dense,
    masked_softmax,
    pair_layer,
    zero_masked,
)


class DinConfig(PartConfig):
    """Settings of `din`."""

    attention_units: list[Positive] = Field(default_factory=lambda: [64, 16], min_length=1)
    units: list[Positive] = Field(default_factory=lambda: [128, 64], min_length=1)
    activation: Activation = "relu"
    softmax: bool = False  # the paper keeps the weights' intensity
    dropout: Share = 0.1


class DinPredictor(ClickPredictor):
    """Target attention over the history's sequence, then an MLP."""

    Config: ClassVar[type[PartConfig]] = DinConfig
    accepts: ClassVar[frozenset[UserKind]] = frozenset({"sequence"})
    paper: ClassVar[str] = "Zhou et al.: Deep Interest Network (KDD 2018, arXiv 1706.06978)"

    def __init__(self, config: DinConfig, shape: Shape) -> None:
        super().__init__()
        size = shape.hidden_size
        self.softmax = config.softmax
        self.first = dense(4 * size, config.attention_units[0])
        self.rest = MLP(
            size=config.attention_units[0],
            units=config.attention_units[1:],
            output_size=1,
            activation=config.activation,
            output_bias=not config.softmax,  # a softmax does not see it
        )
        self.activate = activation_layer(config.activation)
        self.mlp = MLP(
            size=3 * size,
            units=config.units,
            score=True,
            activation=config.activation,
            dropout=config.dropout,
        )

    def forward(self, user: UserState, candidates: Tensor, fields: Tensor | None = None) -> Tensor:
        """`a_i = MLP([h_i; c; h_i - c; h_i * c])`, `u = sum_i a_i h_i`, `s = MLP([u; c; u * c])`.

        DIN, eq. 3: `h [B, H, D]`, `c [B, K, D]` to `[B, K]`. Nothing under the mask is weighted,
        and without a history u is zero.
        """
        if user.mask is None:
            raise ValueError("a sequence needs its mask")
        history = zero_masked(user.values, user.mask)
        scores = self.rest(self.activate(self.compare(history, candidates))).squeeze(-1)
        mask = user.mask.unsqueeze(1).expand_as(scores)
        weights = masked_softmax(scores, mask) if self.softmax else scores.masked_fill(~mask, 0.0)
        pooled = weights.to(history.dtype) @ history
        return self.mlp(torch.cat([pooled, candidates, pooled * candidates], dim=-1)).squeeze(-1)

    def compare(self, history: Tensor, candidates: Tensor) -> Tensor:
        """The first layer on `[h; c; h - c; h * c]`, all pairs: `[B, K, H, U]`.

        The layer is linear, so its parts are computed once per h and once per c; only the product's
        part is computed per pair, and the four times wider input is never written down.
        """
        of_h, of_c, of_difference, of_product = self.first.weight.chunk(4, dim=1)
        weights = (of_h + of_difference, of_c - of_difference, of_product)
        return pair_layer(history, candidates, weights, self.first.bias)
