"""`wide-deep`: a linear model that remembers, beside an MLP that generalizes."""

from __future__ import annotations

from itertools import combinations
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from legoray.config import Positive, Share
from legoray.model.base import ClickPredictor, FieldsConfig, PartConfig, Shape, UserKind, UserState
from legoray.model.layers import MLP, Activation, embedding, scoring
from legoray.model.predictor.fields import FieldStack
from legoray.model.predictor.fm import LinearTerms

_WEIGHT_SCALE = 0.01


class WideDeepConfig(FieldsConfig):
    """Settings of `wide-deep`."""

    units: list[Positive] = Field(default_factory=lambda: [128, 64], min_length=1)
    activation: Activation = "relu"
    dropout: Share = 0.1
    buckets: Positive = Field(
        100_000, description="weights for the pairs of values of two fields; more pairs share them"
    )


class WideDeepPredictor(ClickPredictor):
    """A linear model on features and their cross products, and an MLP on vectors."""

    Config: ClassVar[type[PartConfig]] = WideDeepConfig
    accepts: ClassVar[frozenset[UserKind]] = frozenset({"vector"})
    paper: ClassVar[str] = "Cheng et al.: Wide & Deep Learning (DLRS 2016, arXiv 1606.07792)"

    def __init__(self, config: WideDeepConfig, shape: Shape) -> None:
        super().__init__()
        self.stack = FieldStack(shape)
        self.linear = LinearTerms(shape)
        self.cross = scoring(shape.hidden_size, bias=False)
        pairs = combinations(range(len(shape.fields)), 2)
        self.pairs = nn.ModuleList(
            PairWeights(shape.fields, first, second, config.buckets) for first, second in pairs
        )
        self.deep = MLP(
            size=self.stack.count * shape.hidden_size,
            units=config.units,
            score=True,
            activation=config.activation,
            dropout=config.dropout,
            output_bias=False,  # the linear terms have one
        )

    def forward(self, user: UserState, candidates: Tensor, fields: Tensor | None = None) -> Tensor:
        """`s = w_wide^T [x; phi(x)] + MLP([v_1; ...; v_m]) + b` (Wide & Deep, eqs. 1-3).

        The raw features x of the wide part are the coordinates of u and c and the categorical
        values. Their cross products phi are, of the two dense vectors, `u_d c_d` for each
        coordinate d, and of every two fields, that both have these values. `u [B, D]`,
        `c [B, K, D]` to `[B, K]`.
        """
        stacked = self.stack(user, candidates, fields)
        both = self.cross(stacked[:, :, 0] * stacked[:, :, 1])
        crossed = sum((pair(fields) for pair in self.pairs), both)
        deep = self.deep.of_pairs(stacked.flatten(2), stacked.shape[-1])
        return self.linear(stacked, fields) + (crossed + deep).squeeze(-1)


class PairWeights(nn.Module):
    """One weight for each pair of values of two fields."""

    def __init__(self, sizes: tuple[int, ...], first: int, second: int, buckets: int) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.step = sizes[second] - 1  # values of the second field, the absent one aside
        count = max(1, min((sizes[first] - 1) * self.step, buckets))
        self.table = embedding(count + 1, 1, _WEIGHT_SCALE)

    def forward(self, fields: Tensor) -> Tensor:
        """`fields [B, K, F]` to `[B, K, 1]`; 0 where either field has no value."""
        one, other = fields[..., self.first], fields[..., self.second]
        number = ((one - 1) * self.step + other - 1) % (self.table.num_embeddings - 1) + 1
        return self.table(torch.where((one > 0) & (other > 0), number, 0))
