"""What feature-interaction predictors read: user, item, and categorical fields, side by side."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from legoray.model.base import Shape, UserState
from legoray.model.layers import embedding


class FieldStack(nn.Module):
    """The user vector, the candidate vector and one embedding per categorical field.

    A field without a value (0) is a vector of zeros.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        size = shape.hidden_size
        self.count = 2 + len(shape.fields)
        scale = 1 / math.sqrt(size)
        self.tables = nn.ModuleList(embedding(values, size, scale) for values in shape.fields)

    def forward(self, user: UserState, candidates: Tensor, fields: Tensor | None) -> Tensor:
        """`u [B, D]`, `c [B, K, D]` and `fields [B, K, F]` to `[B, K, 2 + F, D]`.

        Raises:
            ValueError: the predictor was built for fields, and there are none.
        """
        if len(self.tables) and (fields is None or fields.shape[-1] != len(self.tables)):
            raise ValueError(f"{len(self.tables)} fields were expected")
        stacked = [user.values.unsqueeze(1).expand_as(candidates), candidates]
        stacked += [table(fields[..., f]) for f, table in enumerate(self.tables)]  # type: ignore[index]
        return torch.stack(stacked, dim=2)
