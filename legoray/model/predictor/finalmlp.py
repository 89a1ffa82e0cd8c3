"""`finalmlp`: two MLPs that see the fields differently, joined by a bilinear form."""

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


class FinalMlpConfig(FieldsConfig):
    """Settings of `finalmlp`."""

    first_units: list[Positive] = Field(default_factory=lambda: [128, 64], min_length=1)
    second_units: list[Positive] = Field(default_factory=lambda: [128, 64], min_length=1)
    gate_units: list[Positive] = Field(default_factory=lambda: [64])
    heads: Positive = Field(4, description="of the fusion; they divide both streams' last units")
    activation: Activation = "relu"
    dropout: Share = 0.1


class FinalMlpPredictor(ClickPredictor):
    """Two MLPs behind gates of the user and of the item, fused bilinearly per head."""

    Config: ClassVar[type[PartConfig]] = FinalMlpConfig
    accepts: ClassVar[frozenset[UserKind]] = frozenset({"vector"})
    paper: ClassVar[str] = "Mao et al.: FinalMLP (AAAI 2023, arXiv 2304.00902)"

    def __init__(self, config: FinalMlpConfig, shape: Shape) -> None:
        super().__init__()
        self.stack = FieldStack(shape)
        size = self.stack.count * shape.hidden_size
        self.gates = nn.ModuleList(
            MLP(
                size=shape.hidden_size,
                units=config.gate_units,
                output_size=size,
                activation=config.activation,
            )
            for _ in range(2)
        )
        self.streams = nn.ModuleList(
            MLP(size=size, units=units, activation=config.activation, dropout=config.dropout)
            for units in (config.first_units, config.second_units)
        )
        self.fusion = Fusion(config.first_units[-1], config.second_units[-1], config.heads)

    @classmethod
    def problems(cls, config: FinalMlpConfig, hidden_size: int) -> list[str]:
        """The heads share the last units of each stream equally."""
        last = {"first_units": config.first_units[-1], "second_units": config.second_units[-1]}
        shared = math.gcd(*last.values())
        fitting = [n for n in range(1, shared + 1) if shared % n == 0]
        return [
            f"heads {config.heads} do not divide the last of {name}, {units}; all of {fitting} do"
            for name, units in last.items()
            if units % config.heads
        ]

    def forward(self, user: UserState, candidates: Tensor, fields: Tensor | None = None) -> Tensor:
        """`s = fusion(MLP_1(2 sigmoid(gate_1(u)) * e), MLP_2(2 sigmoid(gate_2(c)) * e))`.

        `e = [u; c; fields]`; of the paper's choices for the gates' input these are user and item
        (FinalMLP, stream-specific feature selection). `u [B, D]`, `c [B, K, D]` to `[B, K]`.
        """
        joined = self.stack(user, candidates, fields).flatten(2)
        of_user, of_item = self.gates
        first = 2 * torch.sigmoid(of_user(user.values)).unsqueeze(1) * joined
        second = 2 * torch.sigmoid(of_item(candidates)) * joined
        return self.fusion(self.streams[0](first), self.streams[1](second))


class Fusion(nn.Module):
    """The bilinear form of two streams, head by head."""

    def __init__(self, first: int, second: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first = scoring(first)
        self.second = scoring(second, bias=False)
        scale = math.sqrt(2 * heads / (first + second))
        self.both = nn.Parameter(torch.randn(heads, first // heads, second // heads) * scale)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """`b + w_1^T o_1 + w_2^T o_2 + sum_h o_1h^T W_h o_2h`: `[B, K, .]` twice to `[B, K]`.

        The multi-head bilinear fusion of FinalMLP; its first three terms are those of all heads.
        """
        left, right = (values.unflatten(-1, (self.heads, -1)) for values in (first, second))
        mapped = torch.einsum("bkhi,hij->bkhj", left, self.both)
        linear = (self.first(first) + self.second(second)).squeeze(-1)
        return linear + (mapped * right).sum((2, 3), dtype=linear.dtype)
