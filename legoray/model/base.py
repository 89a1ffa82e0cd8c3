"""What the three parts of a model are, what they declare, and what passes between them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from legoray.config import Strict
from legoray.data.recipes import ItemInput, Recipe

UserKind = Literal["vector", "interests", "sequence"]


class PartConfig(Strict):
    """Base of every part's own settings."""


@dataclass(frozen=True)
class Shape:
    """The sizes that a part is built for."""

    hidden_size: int  # D
    item_count: int  # rows of an item table, the padding row 0 included
    vocabulary: int = 0  # tokens the content operator may meet, padding 0 included
    attributes: int = 1  # attributes the content operator reads
    max_history: int = 50


@dataclass(frozen=True)
class UserState:
    """What a behavior operator knows of B users: exactly one of the three kinds.

    `vector`: `values [B, D]`. `interests`: `values [B, M, D]`. `sequence`: `values [B, H, D]` with
    `mask [B, H]` (True where there is an item).
    """

    kind: UserKind
    values: Tensor
    mask: Tensor | None = None

    def select(self, rows: Tensor) -> UserState:
        """The states of some rows, for scoring cached users."""
        return UserState(
            self.kind, self.values[rows], None if self.mask is None else self.mask[rows]
        )


class ContentOperator(nn.Module, ABC):
    """Item -> vector. `forward(inputs)` maps the input of N items to `[N, D]`.

    `inputs` is what the operator's recipe asks for: ids `[N]`, `Tokens`, or `States`.
    """

    Config: ClassVar[type[PartConfig]]
    paper: ClassVar[str] = ""

    @classmethod
    @abstractmethod
    def recipe(cls, config: Any, text: tuple[str, ...]) -> Recipe:
        """What to read of an item; `text` holds the data set's default text attributes."""

    @abstractmethod
    def forward(self, inputs: Any) -> Tensor:
        """`[N, D]` vectors of N items."""


class BehaviorOperator(nn.Module, ABC):
    """History -> user state.

    `forward(history, mask)` reads `history [B, H, D]` and `mask [B, H]` (bool, True where there is
    an item; items need not be contiguous) and gives a `UserState` of the declared kind. What lies
    under the mask never matters; a row whose mask is all False gives a finite state.
    """

    Config: ClassVar[type[PartConfig]]
    produces: ClassVar[UserKind]
    looks_at_candidates: ClassVar[bool] = False
    paper: ClassVar[str] = ""

    @abstractmethod
    def forward(self, history: Tensor, mask: Tensor) -> UserState:
        """The state of B users."""


class ClickPredictor(nn.Module, ABC):
    """User x item -> score. `forward(user, candidates [B, K, D])` gives raw scores `[B, K]`."""

    Config: ClassVar[type[PartConfig]]
    accepts: ClassVar[frozenset[UserKind]]
    paper: ClassVar[str] = ""

    @abstractmethod
    def forward(self, user: UserState, candidates: Tensor) -> Tensor:
        """`[B, K]` scores; higher means a click is likelier."""


@dataclass(frozen=True)
class Batch:
    """One step's input. Items are numbered within the batch: 0 is padding, n + 1 is `items[n]`."""

    items: ItemInput  # inputs of the N distinct items
    history: Tensor  # [B, H] int64, 0 = padding
    candidates: Tensor  # [B, K] int64, 0 = no candidate
    labels: Tensor  # [B, K] float; in matching the click stands first

    def to(self, device: torch.device | str) -> Batch:
        return Batch(
            self.items.to(device),
            self.history.to(device),
            self.candidates.to(device),
            self.labels.to(device),
        )
