"""`miner`: a candidate is matched with each of a user's interests."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from legoray.model.base import ClickPredictor, PartConfig, Shape, UserKind, UserState
from legoray.model.layers import dense, inner_products


class MinerConfig(PartConfig):
    """Settings of `miner`."""

    how: Literal["weighted", "max", "mean"] = "weighted"


class MinerPredictor(ClickPredictor):
    """The inner products of item and interests: the highest, their mean, or by attention."""

    Config: ClassVar[type[PartConfig]] = MinerConfig
    accepts: ClassVar[frozenset[UserKind]] = frozenset({"interests"})
    paper: ClassVar[str] = "Li et al.: MINER (Findings of ACL 2022, 2022.findings-acl.29)"

    def __init__(self, config: MinerConfig, shape: Shape) -> None:
        super().__init__()
        self.how = config.how
        if config.how == "weighted":
            self.query = dense(shape.hidden_size, shape.hidden_size, bias=False)

    def forward(self, user: UserState, candidates: Tensor, fields: Tensor | None = None) -> Tensor:
        """`m_i = e_i^T c`; the maximum, the mean, or `sum_i a_i m_i` over the interests i.

        `a = softmax(e_i^T gelu(W c))`, the target-aware attention of MINER. `e [B, M, D]`,
        `c [B, K, D]` to `[B, K]`.
        """
        matches = inner_products(candidates, user.values)
        if self.how == "max":
            return matches.amax(dim=-1)
        if self.how == "mean":
            return matches.mean(dim=-1)
        wanted = F.gelu(self.query(candidates))
        weights = torch.softmax(inner_products(wanted, user.values), dim=-1)
        return (weights * matches).sum(dim=-1)
