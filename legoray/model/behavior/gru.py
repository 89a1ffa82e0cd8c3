"""`gru`: the history read in order by a recurrent network (LSTUR's short-term interest)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from legoray.config import Share
from legoray.model.base import BehaviorOperator, History, PartConfig, Shape, UserKind, UserState
from legoray.model.layers import Dropout, last_of, zero_masked


class GruConfig(PartConfig):
    """Settings of `gru`."""

    dropout: Share = 0.0


class GruOperator(BehaviorOperator):
    """The state of a gated recurrent unit after the last item of the history."""

    Config: ClassVar[type[PartConfig]] = GruConfig
    produces: ClassVar[UserKind] = "vector"
    paper: ClassVar[str] = "An et al.: LSTUR (ACL 2019, P19-1033), short-term part"

    def __init__(self, config: GruConfig, shape: Shape) -> None:
        super().__init__()
        self.dropout = Dropout(config.dropout)
        self.gru = nn.GRU(shape.hidden_size, shape.hidden_size, batch_first=True)

    def forward(self, history: History, candidates: Tensor | None = None) -> UserState:
        """`u = h_n`, `h_t = GRU(x_t, h_{t-1})`, n the history's true length (LSTUR).

        `[B, H, D]` to `[B, D]`; zeros without a history.
        """
        vectors = zero_masked(self.dropout(history.vectors), history.mask)
        items, length = compact(vectors, history.mask)
        # a recurrent network does not look ahead: what follows the last item cannot matter
        states, _ = self.gru(items)
        return UserState("vector", last_of(states, length))


def compact(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The unmasked rows of each sequence moved to its front, in their order, and their number.

    Args:
        values: `[B, H, D]`.
        mask: `[B, H]`.

    Returns:
        `[B, H, D]` and `[B]`.
    """
    order = torch.sort((~mask).to(torch.uint8), dim=1, stable=True).indices
    moved = values.gather(1, order[:, :, None].expand_as(values))
    return moved, mask.sum(dim=1)
