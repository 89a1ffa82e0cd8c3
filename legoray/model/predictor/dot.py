"""`dot`: the inner product of user and item."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from legoray.model.base import ClickPredictor, PartConfig, Shape, UserKind, UserState
from legoray.model.layers import inner_products


class DotConfig(PartConfig):
    """`dot` has no settings."""


class DotPredictor(ClickPredictor):
    """The inner product of the user vector and the item vector."""

    Config: ClassVar[type[PartConfig]] = DotConfig
    accepts: ClassVar[frozenset[UserKind]] = frozenset({"vector"})
    paper: ClassVar[str] = "Wu et al.: NRMS (EMNLP 2019, D19-1671)"

    def __init__(self, config: DotConfig, shape: Shape) -> None:
        super().__init__()

    def forward(self, user: UserState, candidates: Tensor, fields: Tensor | None = None) -> Tensor:
        """`s = u^T c` (NRMS, its click predictor): `u [B, D]`, `c [B, K, D]` to `[B, K]`."""
        return inner_products(candidates, user.values.unsqueeze(1)).squeeze(-1)

    def score_all(self, user: UserState, items: Tensor) -> Tensor:
        """`u^T c` of all pairs: `u [B, D]`, `c [N, D]` to `[B, N]`."""
        return inner_products(user.values, items)
