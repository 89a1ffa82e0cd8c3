"""`dcnv2`: feature crosses by whole matrices, or by a mixture of low-rank ones."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from legoray.config import Positive, Share
from legoray.model.base import ClickPredictor, FieldsConfig, PartConfig, Shape, UserKind, UserState
from legoray.model.layers import MLP, Activation, dense, scoring
from legoray.model.predictor.fields import FieldStack


class DcnV2Config(FieldsConfig):
    """Settings of `dcnv2`."""

    structure: Literal["stacked", "parallel"] = "stacked"
    cross: Literal["full", "low-rank"] = "full"
    cross_layers: Positive = 3
    rank: Positive = Field(16, description="of `low-rank`")
    experts: Positive = Field(4, description="low-rank crosses per layer, mixed by a gate")
    nonlinear: bool = Field(True, description="tanh in the space of `low-rank`, twice")
    units: list[Positive] = Field(default_factory=lambda: [128, 64], min_length=1)
    activation: Activation = "relu"
    dropout: Share = 0.1


class DcnV2Predictor(ClickPredictor):
    """A cross network of matrices, below an MLP or beside it."""

    Config: ClassVar[type[PartConfig]] = DcnV2Config
    accepts: ClassVar[frozenset[UserKind]] = frozenset({"vector"})
    paper: ClassVar[str] = "Wang et al.: DCN V2 (WWW 2021, arXiv 2008.13535)"

    def __init__(self, config: DcnV2Config, shape: Shape) -> None:
        super().__init__()
        self.stack = FieldStack(shape)
        size = self.stack.count * shape.hidden_size
        self.parallel = config.structure == "parallel"
        self.crosses = nn.ModuleList(
            dense(size, size) if config.cross == "full" else LowRank(config, size)
            for _ in range(config.cross_layers)
        )
        self.deep = MLP(
            size=size, units=config.units, activation=config.activation, dropout=config.dropout
        )
        self.output = scoring(self.deep.output_size + (size if self.parallel else 0))

    def forward(self, user: UserState, candidates: Tensor, fields: Tensor | None = None) -> Tensor:
        """Stacked `W MLP(x_L) + b`, parallel `W [x_L; MLP(x_0)] + b` (DCN V2, figure 1).

        `x_0 = [u; c; fields]`: `u [B, D]`, `c [B, K, D]` to `[B, K]`.
        """
        first = self.stack(user, candidates, fields).flatten(2)
        crossed = self.cross(first)
        if self.parallel:
            deep = self.deep.of_pairs(first, candidates.shape[-1])
            return self.output(torch.cat([crossed, deep], dim=-1)).squeeze(-1)
        return self.output(self.deep(crossed)).squeeze(-1)

    def cross(self, first: Tensor) -> Tensor:
        """`x_{l+1} = x_0 * (W_l x_l + b_l) + x_l` (DCN V2, eq. 1): `[..., S]` to `[..., S]`."""
        crossed = first
        for layer in self.crosses:
            crossed = first * layer(crossed) + crossed
        return crossed


class LowRank(nn.Module):
    """What stands for `W x + b`: experts of a low rank, mixed by a gate that sees x."""

    def __init__(self, config: DcnV2Config, size: int) -> None:
        super().__init__()
        rank, experts = config.rank, config.experts
        self.experts = experts
        self.down = dense(size, experts * rank, bias=False)
        self.core = None
        if config.nonlinear:
            self.core = nn.Parameter(torch.randn(experts, rank, rank) / math.sqrt(rank))
        self.up = dense(experts * rank, size)
        # a single expert always has the whole weight
        self.gate = dense(size, experts, bias=False) if experts > 1 else None

    def forward(self, values: Tensor) -> Tensor:
        """`sum_i G_i(x) (U_i g(C_i g(V_i^T x)) + b)`, `G = softmax(W_g x)`, g = tanh.

        DCN V2, section 3.5, without C and g unless `nonlinear`. `[B, K, S]` to `[B, K, S]`. The
        weights G add up to 1, so b stands outside, and all U_i are one matrix on weighted values.
        """
        inner = self.down(values).unflatten(-1, (self.experts, -1))
        if self.core is not None:
            inner = torch.tanh(torch.einsum("bker,eqr->bkeq", torch.tanh(inner), self.core))
        if self.gate is not None:
            weights = torch.softmax(self.gate(values), dim=-1).to(inner.dtype)
            inner = inner * weights.unsqueeze(-1)
        return self.up(inner.flatten(-2))
