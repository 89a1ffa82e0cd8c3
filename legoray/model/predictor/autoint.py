"""`autoint`: the fields attend to each other."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from legoray.config import Positive, Share
from legoray.model.base import ClickPredictor, FieldsConfig, PartConfig, Shape, UserKind, UserState
from legoray.model.layers import MLP, Activation, dense, scoring
from legoray.model.predictor.fields import FieldStack


class AutoIntConfig(FieldsConfig):
    """Settings of `autoint`."""

    layers: Positive = 3
    heads: Positive = 2
    head_size: Positive = 16
    units: list[Positive] = Field(
        default_factory=list, description="of an MLP beside it (AutoInt+); none where it is empty"
    )
    activation: Activation = "relu"
    dropout: Share = Field(0.0, description="of that MLP")


class AutoIntPredictor(ClickPredictor):
    """Multi-head self-attention over the fields, with residuals, then a linear layer."""

    Config: ClassVar[type[PartConfig]] = AutoIntConfig
    accepts: ClassVar[frozenset[UserKind]] = frozenset({"vector"})
    paper: ClassVar[str] = "Song et al.: AutoInt (CIKM 2019, arXiv 1810.11921)"

    def __init__(self, config: AutoIntConfig, shape: Shape) -> None:
        super().__init__()
        self.stack = FieldStack(shape)
        width = config.heads * config.head_size
        sizes = [shape.hidden_size] + [width] * (config.layers - 1)
        self.layers = nn.ModuleList(Interacting(size, width, config.heads) for size in sizes)
        self.output = scoring(self.stack.count * width)
        self.deep = None
        if config.units:
            self.deep = MLP(
                size=self.stack.count * shape.hidden_size,
                units=config.units,
                score=True,
                activation=config.activation,
                dropout=config.dropout,
                output_bias=False,
            )

    def forward(self, user: UserState, candidates: Tensor, fields: Tensor | None = None) -> Tensor:
        """`s = w^T [e_1; ...; e_N] + b` after the last layer (AutoInt, eq. 9).

        `u [B, D]`, `c [B, K, D]` to `[B, K]`.
        """
        stacked = self.stack(user, candidates, fields)
        attended = stacked
        for layer in self.layers:
            attended = layer(attended)
        scores = self.output(attended.flatten(2))
        if self.deep is not None:
            scores = scores + self.deep.of_pairs(stacked.flatten(2), stacked.shape[-1])
        return scores.squeeze(-1)


class Interacting(nn.Module):
    """One layer of attention among fields."""

    def __init__(self, size: int, output_size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.residual = (
            dense(size, output_size, bias=False) for _ in range(4)
        )

    def forward(self, values: Tensor) -> Tensor:
        """Per head `softmax(Q K^T) V`, joined; `relu(joined + W_res e)` (AutoInt, eqs. 5-8).

        The paper does not scale the inner products. `[B, K, N, size]` to
        `[B, K, N, output_size]`.
        """
        query, key, value = (
            layer(values).unflatten(-1, (self.heads, -1)).transpose(-2, -3)
            for layer in (self.query, self.key, self.value)
        )
        weights = torch.softmax(query @ key.transpose(-1, -2), dim=-1).to(value.dtype)
        joined = (weights @ value).transpose(-2, -3).flatten(-2)
        return torch.relu(joined + self.residual(values))
