"""`personalised`: the history pooled by a query of the user's own (NPA)."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from legoray.config import Positive, Share
from legoray.model.base import BehaviorOperator, History, PartConfig, Shape, UserKind, UserState
from legoray.model.behavior.users import UserEmbedding
from legoray.model.layers import Dropout, dense, masked_softmax, zero_masked

_FIRST_BIAS = 0.1  # at zero, a query made of the bias alone could not start to learn


class PersonalisedConfig(PartConfig):
    """Settings of `personalised`."""

    user_size: Positive = 50
    query_size: Positive = 200
    mask_rate: Share = Field(0.0, description="share of samples whose user is hidden in training")
    dropout: Share = 0.2


class PersonalisedOperator(BehaviorOperator):
    """Attention over the history with a query made of the user's embedding."""

    Config: ClassVar[type[PartConfig]] = PersonalisedConfig
    produces: ClassVar[UserKind] = "vector"
    reads_users: ClassVar[bool] = True
    paper: ClassVar[str] = "Wu et al.: NPA (KDD 2019, arXiv 1907.05559)"

    def __init__(self, config: PersonalisedConfig, shape: Shape) -> None:
        super().__init__()
        self.users = UserEmbedding(shape, config.user_size, config.mask_rate)
        self.query = dense(config.user_size, config.query_size)
        nn.init.constant_(self.query.bias, _FIRST_BIAS)
        self.project = dense(config.query_size, shape.hidden_size)
        self.dropout = Dropout(config.dropout)

    def forward(self, history: History, candidates: Tensor | None = None) -> UserState:
        """`u = sum_i a_i h_i`, `a = softmax(h_i . tanh(W q + w))`, `q = ReLU(V e_u + v)`.

        The personalized attention of NPA, over news. `[B, H, D]` and users `[B]` to `[B, D]`; an
        unknown user's `e_u` is zero, so that `q = ReLU(v)`; zeros without a history.
        """
        values = zero_masked(self.dropout(history.vectors), history.mask)
        query = torch.relu(self.query(self.users(history)))
        wanted = torch.tanh(self.project(query))
        scores = (values @ wanted.to(values.dtype).unsqueeze(-1)).squeeze(-1)
        weights = masked_softmax(scores, history.mask).to(values.dtype)
        return UserState("vector", (weights.unsqueeze(1) @ values).squeeze(1))
