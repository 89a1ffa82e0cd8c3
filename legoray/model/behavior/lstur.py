"""`lstur`: long-term interest from who the user is, short-term interest from a GRU (LSTUR)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from legoray.config import Share
from legoray.model.base import BehaviorOperator, History, PartConfig, Shape, UserKind, UserState
from legoray.model.behavior.gru import compact
from legoray.model.behavior.users import UserEmbedding
from legoray.model.layers import Dropout, last_of, zero_masked


class LsturConfig(PartConfig):
    """Settings of `lstur`."""

    how: Literal["initial", "concat"] = Field(
        "initial", description="the user starts the GRU, or stands beside its last state"
    )
    mask_rate: Share = Field(0.5, description="share of samples whose user is hidden in training")
    dropout: Share = 0.0


class LsturOperator(BehaviorOperator):
    """A GRU over the history, started from the user's embedding or joined with it."""

    Config: ClassVar[type[PartConfig]] = LsturConfig
    produces: ClassVar[UserKind] = "vector"
    reads_users: ClassVar[bool] = True
    paper: ClassVar[str] = "An et al.: LSTUR (ACL 2019, P19-1033)"

    def __init__(self, config: LsturConfig, shape: Shape) -> None:
        super().__init__()
        size = shape.hidden_size
        self.concat = config.how == "concat"
        user_size = size // 2 if self.concat else size
        state_size = size - user_size if self.concat else size
        self.users = UserEmbedding(shape, user_size, config.mask_rate)
        self.dropout = Dropout(config.dropout)
        self.gru = nn.GRU(size, state_size, batch_first=True)

    @classmethod
    def problems(cls, config: LsturConfig, hidden_size: int) -> list[str]:
        """Two halves need two dimensions."""
        if config.how == "concat" and hidden_size < 2:
            return [f"how: concat halves the hidden size, and hidden_size is {hidden_size}"]
        return []

    def forward(self, history: History, candidates: Tensor | None = None) -> UserState:
        """`h_t = GRU(x_t, h_{t-1})`, n the true length, `u_l` the user (LSTUR).

        `initial`: `h_0 = u_l` and `u = h_n`. `concat`: `h_0 = 0` and `u = [h_n; u_l]`, of which
        each is D/2 wide, so that u can be compared with items. `[B, H, D]` and users `[B]` to
        `[B, D]`; without a history `h_n = h_0`, and the embedding of an unknown user is zero.
        """
        user = self.users(history)
        vectors = zero_masked(self.dropout(history.vectors), history.mask)
        items, length = compact(vectors, history.mask)
        start = torch.zeros_like(user[:, :1]).expand(-1, self.gru.hidden_size)
        start = start if self.concat else user
        states, _ = self.gru(items, start.to(items.dtype).unsqueeze(0).contiguous())
        final = torch.where((length > 0)[:, None], last_of(states, length), start.to(states.dtype))
        return UserState("vector", torch.cat([final, user], dim=-1) if self.concat else final)
