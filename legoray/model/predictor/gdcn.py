"""`gdcn`: feature crosses, each let through by a gate as far as it matters."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from legoray.config import Positive, Share
from legoray.model.base import ClickPredictor, FieldsConfig, PartConfig, Shape, UserKind, UserState
from legoray.model.layers import MLP, Activation, dense, scoring
from legoray.model.predictor.fields import FieldStack


class GdcnConfig(FieldsConfig):
    """Settings of `gdcn`."""

    structure: Literal["stacked", "parallel"] = "parallel"
    cross_layers: Positive = 3
    units: list[Positive] = Field(default_factory=lambda: [128, 64], min_length=1)
    activation: Activation = "relu"
    dropout: Share = 0.1


class GdcnPredictor(ClickPredictor):
    """A cross network with information gates, below an MLP or beside it."""

    Config: ClassVar[type[PartConfig]] = GdcnConfig
    accepts: ClassVar[frozenset[UserKind]] = frozenset({"vector"})
    paper: ClassVar[str] = "Wang et al.: Gated Deep & Cross Network (CIKM 2023, arXiv 2311.04635)"

    def __init__(self, config: GdcnConfig, shape: Shape) -> None:
        super().__init__()
        self.stack = FieldStack(shape)
        size = self.stack.count * shape.hidden_size
        self.parallel = config.structure == "parallel"
        layers = range(config.cross_layers)
        self.crosses = nn.ModuleList(dense(size, size) for _ in layers)
        self.gates = nn.ModuleList(dense(size, size, bias=False) for _ in layers)
        self.deep = MLP(
            size=size, units=config.units, activation=config.activation, dropout=config.dropout
        )
        self.output = scoring(self.deep.output_size + (size if self.parallel else 0))

    def forward(self, user: UserState, candidates: Tensor, fields: Tensor | None = None) -> Tensor:
        """Stacked `W MLP(c_L) + b` (GDCN-S), parallel `W [c_L; MLP(c_0)] + b` (GDCN-P).

        `c_0 = [u; c; fields]`: `u [B, D]`, `c [B, K, D]` to `[B, K]`.
        """
        first = self.stack(user, candidates, fields).flatten(2)
        crossed = self.cross(first)
        if self.parallel:
            deep = self.deep.of_pairs(first, candidates.shape[-1])
            return self.output(torch.cat([crossed, deep], dim=-1)).squeeze(-1)
        return self.output(self.deep(crossed)).squeeze(-1)

    def cross(self, first: Tensor) -> Tensor:
        """`c_{l+1} = c_0 * (W_c c_l + b) * sigmoid(W_g c_l) + c_l`: `[..., S]` to `[..., S]`.

        The gated cross layer of GDCN, with matrices of its own in each layer l.
        """
        crossed = first
        for layer, gate in zip(self.crosses, self.gates, strict=True):
            crossed = first * layer(crossed) * torch.sigmoid(gate(crossed)) + crossed
        return crossed
