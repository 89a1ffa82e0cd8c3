"""`xdeepfm`: explicit interactions of whole vectors (CIN), an MLP and linear terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from legoray.config import Positive, Share
from legoray.model.base import ClickPredictor, FieldsConfig, PartConfig, Shape, UserKind, UserState
from legoray.model.layers import MLP, Activation, dense, scoring
from legoray.model.predictor.fields import FieldStack
from legoray.model.predictor.fm import LinearTerms


class XDeepFmConfig(FieldsConfig):
    """Settings of `xdeepfm`."""

    maps: list[Positive] = Field(
        default_factory=lambda: [16, 16], min_length=1, description="vectors per layer of the CIN"
    )
    units: list[Positive] = Field(default_factory=lambda: [128, 64], min_length=1)
    activation: Activation = "relu"
    dropout: Share = 0.1


class XDeepFmPredictor(ClickPredictor):
    """A compressed interaction network, an MLP and linear terms."""

    Config: ClassVar[type[PartConfig]] = XDeepFmConfig
    accepts: ClassVar[frozenset[UserKind]] = frozenset({"vector"})
    paper: ClassVar[str] = "Lian et al.: xDeepFM (KDD 2018, arXiv 1803.05170)"

    def __init__(self, config: XDeepFmConfig, shape: Shape) -> None:
        super().__init__()
        self.stack = FieldStack(shape)
        self.linear = LinearTerms(shape)
        self.cin = Cin(self.stack.count, config.maps)
        widest = max([self.stack.count, *config.maps[:-1]])
        self._work = widest * self.stack.count * shape.hidden_size
        self.deep = MLP(
            size=self.stack.count * shape.hidden_size,
            units=config.units,
            activation=config.activation,
            dropout=config.dropout,
        )
        # the bias is one of the linear terms
        self.output = scoring(self.deep.output_size + sum(config.maps), bias=False)

    def work(self) -> int:
        """Each layer's products of two vectors."""
        return self._work

    def forward(self, user: UserState, candidates: Tensor, fields: Tensor | None = None) -> Tensor:
        """`s = w_linear^T x + w_dnn^T MLP([v_1; ...; v_m]) + w_cin^T p + b` (xDeepFM, section 3.3).

        p is what the CIN gives. `u [B, D]`, `c [B, K, D]` to `[B, K]`.
        """
        stacked = self.stack(user, candidates, fields)
        joined = torch.cat(
            [self.deep.of_pairs(stacked.flatten(2), stacked.shape[-1]), self.cin(stacked)], dim=-1
        )
        return self.linear(stacked, fields) + self.output(joined).squeeze(-1)


class Cin(nn.Module):
    """Each layer's vectors are weighted sums of products of the last layer's and the fields'."""

    def __init__(self, fields: int, maps: Sequence[int]) -> None:
        super().__init__()
        sizes = [fields, *maps[:-1]]
        self.layers = nn.ModuleList(
            dense(before * fields, after, bias=False)
            for before, after in zip(sizes, maps, strict=True)
        )

    def forward(self, stacked: Tensor) -> Tensor:
        """`X^k_h = sum_ij W^kh_ij (X^{k-1}_i * X^0_j)`, `p^k_h = sum_d X^k_hd` (xDeepFM, eq. 6).

        `[B, K, N, D]` to `[B, K, P]`, where P counts the vectors of all layers.
        """
        first = stacked.transpose(-1, -2)
        last, pooled = first, []
        for layer in self.layers:
            last = layer((last.unsqueeze(-1) * first.unsqueeze(-2)).flatten(-2))  # [B, K, D, H]
            pooled.append(last.sum(dim=-2))
        return torch.cat(pooled, dim=-1)
