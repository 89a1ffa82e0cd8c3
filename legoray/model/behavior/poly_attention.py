"""`poly-attention`: several interests, each picked from the history by a code (MINER)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from legoray.config import Positive, Share
from legoray.model.base import BehaviorOperator, History, PartConfig, Shape, UserKind, UserState
from legoray.model.layers import Dropout, dense, masked_softmax, zero_masked


class PolyAttentionConfig(PartConfig):
    """Settings of `poly-attention`."""

    interests: Positive = Field(32, description="context codes, each of which finds one interest")
    code_size: Positive = 200
    disagreement: Annotated[float, Field(ge=0)] = Field(
        0.8, description="weight of the loss that keeps interests apart; 0 for none"
    )
    dropout: Share = 0.0


class PolyAttentionOperator(BehaviorOperator):
    """Attention over the history by several learned codes, kept apart by a disagreement loss."""

    Config: ClassVar[type[PartConfig]] = PolyAttentionConfig
    produces: ClassVar[UserKind] = "interests"
    paper: ClassVar[str] = "Li et al.: MINER (Findings of ACL 2022, 2022.findings-acl.29)"

    def __init__(self, config: PolyAttentionConfig, shape: Shape) -> None:
        super().__init__()
        self.disagreement = config.disagreement
        self.dropout = Dropout(config.dropout)
        self.project = dense(shape.hidden_size, config.code_size, bias=False)
        self.codes = dense(config.code_size, config.interests, bias=False)

    def forward(self, history: History, candidates: Tensor | None = None) -> UserState:
        """`e_k = sum_i a_ki h_i`, `a_k = softmax_i(c_k . tanh(W h_i))` (MINER, its poly attention).

        `[B, H, D]` to `[B, M, D]`; zeros without a history. In training, `disagreement` times
        `disagree(e)` is the state's penalty.
        """
        values = zero_masked(self.dropout(history.vectors), history.mask)
        weights = self.weights(values, history.mask).to(values.dtype)
        interests = weights @ values
        penalty = None
        if self.training and self.disagreement:
            penalty = self.disagreement * disagree(interests)
        return UserState("interests", interests, penalty=penalty)

    def weights(self, values: Tensor, mask: Tensor) -> Tensor:
        """How much of each item is in each interest: `[B, H, D]` to `[B, M, H]`."""
        scores = self.codes(torch.tanh(self.project(values))).transpose(1, 2)
        return masked_softmax(scores, mask.unsqueeze(1).expand_as(scores))


def disagree(interests: Tensor) -> Tensor:
    """`1/M^2 sum_jk cos(e_j, e_k)`, the mean cosine of all pairs: `[B, M, D]` to `[B]`.

    MINER's disagreement loss. The sum over all pairs of unit vectors is their sum's squared length.
    """
    return F.normalize(interests.float(), dim=-1).mean(dim=1).square().sum(dim=-1)
