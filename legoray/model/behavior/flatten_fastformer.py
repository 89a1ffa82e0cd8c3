"""`flatten-fastformer`: one long text of the whole history through fastformer layers."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from legoray.data.recipes import TokenRecipe
from legoray.model.base import BehaviorOperator, History, PartConfig, Shape, UserKind, UserState
from legoray.model.behavior.flat import FlatConfig, FlatHistory
from legoray.model.content.text import token_recipe
from legoray.model.fastformer import FastformerLayers
from legoray.model.layers import heads_problems


class FlattenFastformerConfig(FlatConfig):
    """Settings of `flatten-fastformer`."""


class FlattenFastformerOperator(BehaviorOperator):
    """The words of the whole history as one text, Fastformer layers, additive attention."""

    Config: ClassVar[type[PartConfig]] = FlattenFastformerConfig
    produces: ClassVar[UserKind] = "vector"
    paper: ClassVar[str] = "Wu et al.: Fastformer (arXiv 2108.09084), on the history's text"

    def __init__(self, config: FlattenFastformerConfig, shape: Shape) -> None:
        super().__init__()
        self.flat = FlatHistory(config, shape, FastformerLayers)

    @classmethod
    def recipe(cls, config: FlattenFastformerConfig, text: tuple[str, ...]) -> TokenRecipe:
        """Tokens of the configured attributes of the history's items."""
        return token_recipe(config, text)

    @classmethod
    def problems(cls, config: FlattenFastformerConfig, hidden_size: int) -> list[str]:
        """The heads share the hidden size equally."""
        return heads_problems(config.heads, hidden_size)

    def start_from(self, features: Any) -> None:
        """Word vectors, where the settings say which."""
        self.flat.embed.start_from(features)

    def work(self) -> int:
        """The inner layer of each token."""
        return self.flat.work

    def forward(self, history: History, candidates: Tensor | None = None) -> UserState:
        """`u = pool(Fastformer(x_1 .. x_T))` over all tokens of the history (Fastformer).

        The items' own vectors are not read. Users' tokens, `[B, T]` of them, to `[B, D]`; zeros
        without any.
        """
        return UserState("vector", self.flat(history))
