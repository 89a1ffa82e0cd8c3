"""`fm`: every two fields interact through the inner product of their vectors."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from legoray.model.base import ClickPredictor, FieldsConfig, PartConfig, Shape, UserKind, UserState
from legoray.model.layers import embedding, scoring
from legoray.model.predictor.fields import FieldStack

_WEIGHT_SCALE = 0.01


class FmConfig(FieldsConfig):
    """Settings of `fm`."""


class FmPredictor(ClickPredictor):
    """Linear terms and the inner products of all pairs of fields."""

    Config: ClassVar[type[PartConfig]] = FmConfig
    accepts: ClassVar[frozenset[UserKind]] = frozenset({"vector"})
    paper: ClassVar[str] = "Rendle: Factorization Machines (ICDM 2010)"

    def __init__(self, config: FmConfig, shape: Shape) -> None:
        super().__init__()
        self.stack = FieldStack(shape)
        self.linear = LinearTerms(shape)

    def forward(self, user: UserState, candidates: Tensor, fields: Tensor | None = None) -> Tensor:
        """`s = w_0 + sum_i w_i x_i + sum_{i<j} <v_i, v_j>` (FM, eq. 1).

        The vectors v are the user's, the item's and the categorical values'. `u [B, D]`,
        `c [B, K, D]` to `[B, K]`.
        """
        stacked = self.stack(user, candidates, fields)
        return self.linear(stacked, fields) + pair_sum(stacked)


class LinearTerms(nn.Module):
    """A bias, a weight per coordinate of user and item, and one per value of each field."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.dense = scoring(2 * shape.hidden_size)
        self.tables = nn.ModuleList(embedding(n, 1, _WEIGHT_SCALE) for n in shape.fields)

    def forward(self, stacked: Tensor, fields: Tensor | None) -> Tensor:
        """`w_0 + w^T [u; c] + sum_f w_f[x_f]`: `[B, K, 2 + F, D]`, `[B, K, F]` to `[B, K]`."""
        total = self.dense(stacked[:, :, :2].flatten(2))
        for number, table in enumerate(self.tables):
            assert fields is not None  # the field stack has seen to it
            total = total + table(fields[..., number])
        return total.squeeze(-1)


def pair_sum(vectors: Tensor) -> Tensor:
    """`sum_{i<j} <v_i, v_j> = 1/2 sum_d ((sum_i v_id)^2 - sum_i v_id^2)` (FM, lemma 3.1).

    `[..., N, D]` to `[...]`, in float32 at least since one square is taken from another.
    """
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    return 0.5 * (vectors.sum(dim=-2).square() - vectors.square().sum(dim=-2)).sum(dim=-1)
