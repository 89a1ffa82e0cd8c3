"""Where an item stands in its history: what operators that learn positions have in common."""

from __future__ import annotations

from torch import Tensor, nn

from legoray.model.base import History, Shape
from legoray.model.layers import Dropout, embedding, zero_masked

POSITION_SCALE = 0.1  # below the items' own spread, so that what an item is comes first


def ages(mask: Tensor) -> Tensor:
    """How old each item is: 1 for the newest, counting the items that are there; 0 under the mask.

    `[B, H]` to int64 `[B, H]`.
    """
    return mask.flip(1).cumsum(1).flip(1).masked_fill(~mask, 0)


class PlacedItems(nn.Module):
    """The history's vectors with a learned vector of their age added, then dropout."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.table = embedding(shape.max_history + 1, shape.hidden_size, POSITION_SCALE)
        self.dropout = Dropout(dropout)

    def forward(self, history: History) -> Tensor:
        """`h_i + p_age(i)`: `[B, H, D]`, zeros under the mask.

        Items older than the longest history of the shape share its last position.
        """
        positions = self.table(ages(history.mask).clamp(max=self.table.num_embeddings - 1))
        return self.dropout(zero_masked(history.vectors + positions, history.mask))
