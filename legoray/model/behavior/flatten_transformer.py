"""`flatten-transformer`: one long text of the whole history through transformer layers."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from legoray.data.recipes import TokenRecipe
from legoray.model.base import BehaviorOperator, History, PartConfig, Shape, UserKind, UserState
from legoray.model.behavior.flat import FlatConfig, FlatHistory
from legoray.model.content.text import token_recipe
from legoray.model.layers import heads_problems
from legoray.model.transformer import TransformerLayers


class FlattenTransformerConfig(FlatConfig):
    """Settings of `flatten-transformer`."""


class FlattenTransformerOperator(BehaviorOperator):
    """The words of the whole history as one text, transformer layers, additive attention."""

    Config: ClassVar[type[PartConfig]] = FlattenTransformerConfig
    produces: ClassVar[UserKind] = "vector"
    paper: ClassVar[str] = "Vaswani et al. (arXiv 1706.03762), on the history's text"

    def __init__(self, config: FlattenTransformerConfig, shape: Shape) -> None:
        super().__init__()
        self.flat = FlatHistory(config, shape, TransformerLayers)

    @classmethod
    def recipe(cls, config: FlattenTransformerConfig, text: tuple[str, ...]) -> TokenRecipe:
        """Tokens of the configured attributes of the history's items."""
        return token_recipe(config, text)

    @classmethod
    def problems(cls, config: FlattenTransformerConfig, hidden_size: int) -> list[str]:
        """The heads share the hidden size equally."""
        return heads_problems(config.heads, hidden_size)

    def start_from(self, features: Any) -> None:
        """Word vectors, where the settings say which."""
        self.flat.embed.start_from(features)

    def work(self) -> int:
        """The inner layer of each token."""
        return self.flat.work

    def forward(self, history: History, candidates: Tensor | None = None) -> UserState:
        """`u = pool(Transformer(x_1 .. x_T))` over all tokens of the history (Vaswani et al.).

        The items' own vectors are not read. Users' tokens, `[B, T]` of them, to `[B, D]`; zeros
        without any.
        """
        return UserState("vector", self.flat(history))
