"""`hybrid`: an item's text and its identity, mixed by a gate."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from legoray.config import Share
from legoray.data.recipes import IdRecipe, Joined, JoinedRecipe
from legoray.model.base import ContentOperator, PartConfig, Shape
from legoray.model.content import nested
from legoray.model.layers import Dropout, RowTable, dense
from legoray.model.registry import parse_part


class HybridConfig(PartConfig):
    """Settings of `hybrid`."""

    text: dict[str, Any] = Field(
        default_factory=lambda: {"name": "cnn"}, description="another content operator"
    )
    dropout: Share = Field(0.0, description="of the item's own vector")


class HybridOperator(ContentOperator):
    """A gate per dimension between a text vector and the item's own vector."""

    Config: ClassVar[type[PartConfig]] = HybridConfig
    paper: ClassVar[str] = "gate as in Arevalo et al.: Gated Multimodal Units (arXiv 1702.01992)"

    def __init__(self, config: HybridConfig, shape: Shape) -> None:
        super().__init__()
        size = shape.hidden_size
        self.text = nested.nested_part(config.text, shape, 0)
        # zeros, so that an item that training never met is like one that is wholly new
        self.table = RowTable(shape.item_count, size, 0.0)
        self.dropout = Dropout(config.dropout)
        self.gate = dense(2 * size, size)

    @classmethod
    def recipe(cls, config: HybridConfig, text: tuple[str, ...]) -> JoinedRecipe:
        """What the text's operator reads, and the item's number."""
        part, own = parse_part("content", config.text, "model.content.text")
        return JoinedRecipe((part.recipe(own, text), IdRecipe()))

    @classmethod
    def problems(cls, config: HybridConfig, hidden_size: int) -> list[str]:
        """What is wrong with the text operator's settings."""
        return nested.nested_problems(config.text, hidden_size, "text")

    def start_from(self, features: Any) -> None:
        """The text operator from its own input."""
        assert isinstance(self.text, ContentOperator)
        self.text.start_from(features.parts[0])

    def forward(self, inputs: Joined) -> Tensor:
        """`v = g * t + (1 - g) * e` with `g = sigmoid(W [t; e] + b)` (1702.01992, eq. of the GMU).

        Args:
            inputs: what the text operator reads of N items, and their numbers `[N]`; a new item has
                number 0, whose `e` is zeros.

        Returns:
            `[N, D]`.
        """
        read, numbers = inputs.parts
        assert isinstance(numbers, Tensor)
        text = self.text(read)
        own = self.dropout(self.table(numbers)).to(text.dtype)
        gate = torch.sigmoid(self.gate(torch.cat([text, own], dim=-1)))
        return gate * text + (1 - gate) * own

    def encoder_parameters(self) -> list[nn.Parameter]:
        """The text operator's own."""
        return nested.encoder_parameters({"text": self.text})

    def saved_state(self) -> dict[str, Tensor]:
        """Everything, as the text operator saves itself."""
        return nested.saved_state(self, {"text": self.text})

    def load_saved_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `saved_state` gave.

        Raises:
            ValueError: names or shapes are not this operator's.
        """
        nested.load_saved_state(self, {"text": self.text}, state)
