"""Content operators of a user's own that fail in ways which only building or running shows."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from legoray.data.recipes import IdRecipe, Recipe
from legoray.model.base import ContentOperator, PartConfig, Shape


class Plain(ContentOperator):
    """An identifier table."""

    Config: ClassVar[type[PartConfig]] = PartConfig

    def __init__(self, config: PartConfig, shape: Shape) -> None:
        super().__init__()
        self.table = nn.Embedding(shape.item_count, shape.hidden_size)

    @classmethod
    def recipe(cls, config: Any, text: tuple[str, ...]) -> Recipe:
        return IdRecipe()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.table(inputs)


class Narrow(Plain):
    """Gives vectors of a wrong width."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.table(inputs)[:, :3]


class Diverging(Plain):
    """Gives vectors that are not numbers."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.table(inputs) * torch.nan
