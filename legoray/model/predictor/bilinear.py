"""`bilinear`: a learned matrix says which sides of user and item go together."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from legoray.model.base import ClickPredictor, PartConfig, Shape, UserKind, UserState
from legoray.model.layers import dense, inner_products


class BilinearConfig(PartConfig):
    """`bilinear` has no settings."""


class BilinearPredictor(ClickPredictor):
    """The user vector times a matrix times the item vector."""

    Config: ClassVar[type[PartConfig]] = BilinearConfig
    accepts: ClassVar[frozenset[UserKind]] = frozenset({"vector"})
    paper: ClassVar[str] = "Chu and Park: Predictive Bilinear Models (WWW 2009)"

    def __init__(self, config: BilinearConfig, shape: Shape) -> None:
        super().__init__()
        self.matrix = dense(shape.hidden_size, shape.hidden_size, bias=False)

    def forward(self, user: UserState, candidates: Tensor, fields: Tensor | None = None) -> Tensor:
        """`s = u^T W c`: `u [B, D]`, `c [B, K, D]` to `[B, K]`.

        The matrix meets the users, of which there are fewer than candidates; `matrix.weight` is
        the transpose of W.
        """
        return inner_products(candidates, self.matrix(user.values).unsqueeze(1)).squeeze(-1)

    def score_all(self, user: UserState, items: Tensor) -> Tensor:
        """`u^T W c` of all pairs: `u [B, D]`, `c [N, D]` to `[B, N]`."""
        return inner_products(self.matrix(user.values), items)
