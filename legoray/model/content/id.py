"""`id`: one learned vector per item, no content."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor, nn

from legoray.config import Positive, Share
from legoray.data.recipes import IdRecipe
from legoray.model.base import ContentOperator, PartConfig, Shape
from legoray.model.layers import Dropout, RowTable, dense


class IdConfig(PartConfig):
    """Settings of `id`."""

    embedding_size: Positive | None = None  # hidden_size where it is not given
    dropout: Share = 0.0


class IdOperator(ContentOperator):
    """An embedding table, projected where its width differs from the model's."""

    Config: ClassVar[type[PartConfig]] = IdConfig
    paper: ClassVar[str] = "identifier baseline (the 'Null' content of Legommenders, WWW 2025)"

    def __init__(self, config: IdConfig, shape: Shape) -> None:
        super().__init__()
        size = config.embedding_size or shape.hidden_size
        same = size == shape.hidden_size
        self.table = RowTable(shape.item_count, size, 1 / math.sqrt(size))  # unit length
        self.dropout = Dropout(config.dropout)
        self.project: nn.Module = nn.Identity() if same else dense(size, shape.hidden_size)

    @classmethod
    def recipe(cls, config: IdConfig, text: tuple[str, ...]) -> IdRecipe:
        """The item's number alone."""
        return IdRecipe()

    def forward(self, inputs: Tensor) -> Tensor:
        """`e_i` (or `W e_i + b`): ids `[N]` to `[N, D]`."""
        return self.project(self.dropout(self.table(inputs)))
