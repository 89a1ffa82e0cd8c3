"""Who the user is, for operators that read it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from legoray.model.base import History, Shape
from legoray.model.layers import RowTable, zero_masked

USER_SCALE = 0.1  # a user is a correction of what the history says, at first


class UserEmbedding(nn.Module):
    """One vector per known user, hidden at random in training; zeros for unknown ones."""

    def __init__(self, shape: Shape, size: int, mask_rate: float) -> None:
        super().__init__()
        self.table = RowTable(shape.user_count, size, USER_SCALE)
        self.mask_rate = mask_rate

    def forward(self, history: History) -> Tensor:
        """`m W_u` with `m ~ Bernoulli(1 - mask_rate)` per sample, in training only: `[B, size]`.

        Nothing is rescaled: a hidden user looks exactly like one who is not known.
        """
        if history.users is None:
            raise ValueError("this operator reads who the user is, and the history does not say")
        users = history.users
        if self.training and self.mask_rate:
            hidden = torch.rand(users.shape, device=users.device) < self.mask_rate
            users = users.masked_fill(hidden, 0)
        return zero_masked(self.table(users), users > 0)
