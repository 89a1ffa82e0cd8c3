"""What the three parts of a model are, what they declare, and what passes between them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from legoray.config import Strict
from legoray.data.recipes import NOTHING, InputSizes, ItemInput, Recipe, Tokens

UserKind = Literal["vector", "interests", "sequence"]


class PartConfig(Strict):
    """Base of every part's own settings."""


class FieldsConfig(PartConfig):
    """Base of the settings of predictors that read categorical fields."""

    fields: list[str] = Field(
        default_factory=list,
        description="such as item.category, user.gender, time.hour; none where it is not given",
    )


@dataclass(frozen=True)
class Shape:
    """The sizes that a part is built for."""

    hidden_size: int  # D
    item_count: int  # rows of an item table, the padding row 0 included
    max_history: int = 50
    input: InputSizes = NOTHING  # of what the content operator reads
    history_input: InputSizes = NOTHING  # of what the behavior operator reads of items itself
    user_count: int = 1  # rows of a user table, row 0 for users who are not known included
    fields: tuple[int, ...] = ()  # values of each categorical field that the predictor reads


@dataclass(frozen=True)
class History:
    """The histories of B users.

    `vectors [B, H, D]` and `mask [B, H]` (bool, True where there is an item; items need not be
    contiguous). Operators that declare it find more: with `reads_users`, `users [B]` (0: not
    known); with a recipe of their own, `inputs`, what that recipe reads of some items, and `items
    [B, H]`, where item n of the history is row n - 1 of `inputs` (0: padding).
    """

    vectors: Tensor
    mask: Tensor
    users: Tensor | None = None
    inputs: ItemInput | None = None
    items: Tensor | None = None

    def tokens(self) -> Tokens:
        """The items' tokens, for an operator whose recipe asks for them."""
        if not isinstance(self.inputs, Tokens):
            raise ValueError("this operator reads tokens, and the history has none")
        return self.inputs


@dataclass(frozen=True)
class UserState:
    """What a behavior operator knows of B users: exactly one of the three kinds.

    `vector`: `values [B, D]`. `interests`: `values [B, M, D]`. `sequence`: `values [B, H, D]` with
    `mask [B, H]` (True where there is an item). `penalty [B]` is what the operator adds to the loss
    of each user's sample in training, if anything.
    """

    kind: UserKind
    values: Tensor
    mask: Tensor | None = None
    penalty: Tensor | None = None

    def select(self, rows: Tensor) -> UserState:
        """The states of some rows `[n]`."""
        return UserState(
            self.kind,
            self.values.index_select(0, rows),
            None if self.mask is None else self.mask[rows],
            None if self.penalty is None else self.penalty[rows],
        )


def joined_states(states: Sequence[UserState]) -> UserState:
    """The states of several groups of users, one group after another; no sequences."""
    penalties = [state.penalty for state in states if state.penalty is not None]
    values = torch.cat([state.values for state in states])
    return UserState(states[0].kind, values, penalty=torch.cat(penalties) if penalties else None)


class ContentOperator(nn.Module, ABC):
    """Item -> vector. `forward(inputs)` maps the input of N items to `[N, D]`.

    `inputs` is what the operator's recipe asks for (`legoray.data.recipes`).
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

    def start_from(self, features: Any) -> None:
        """Take initial weights from the data, before training; by default nothing is taken.

        Args:
            features: what the operator will read (`legoray.model.features.Features`).

        Raises:
            InputError: the weights that the settings ask for cannot be had.
        """


class BehaviorOperator(nn.Module, ABC):
    """History -> user state.

    `forward(history)` gives a `UserState` of the declared kind. What lies under the history's mask
    never matters; a row whose mask is all False gives a finite state.

    An operator that `looks_at_candidates` is called with `candidates [B, K, D]` and gives each
    candidate a user of its own: the state's values have one more dimension, `[B, K, ...]`. Of the
    history it finds the vectors and the mask, nothing else.
    """

    Config: ClassVar[type[PartConfig]]
    produces: ClassVar[UserKind]
    looks_at_candidates: ClassVar[bool] = False  # then its users cannot be cached
    reads_users: ClassVar[bool] = False  # who the user is, besides the history
    paper: ClassVar[str] = ""

    @classmethod
    def recipe(cls, config: Any, text: tuple[str, ...]) -> Recipe | None:
        """What to read of the history's items besides their vectors; None where they suffice."""
        return None

    @abstractmethod
    def forward(self, history: History, candidates: Tensor | None = None) -> UserState:
        """The state of B users."""

    def start_from(self, features: Any) -> None:
        """As a content operator's, with the features of the operator's own recipe."""

    def work(self) -> int:
        """Numbers that it holds at once per item of a history, where more than the item's D."""
        return 0


class ClickPredictor(nn.Module, ABC):
    """User x item -> score. `forward(user, candidates, fields)` gives raw scores `[B, K]`.

    Predictors whose settings have `fields` (`FieldsConfig`) read categorical fields beside the two
    vectors, `fields [B, K, F]` with 0 for no value.
    """

    Config: ClassVar[type[PartConfig]]
    accepts: ClassVar[frozenset[UserKind]]
    paper: ClassVar[str] = ""

    @abstractmethod
    def forward(self, user: UserState, candidates: Tensor, fields: Tensor | None = None) -> Tensor:
        """`[B, K]` scores of `candidates [B, K, D]`; higher means a click is likelier."""

    def score_all(self, user: UserState, items: Tensor) -> Tensor | None:
        """`[B, N]` scores of all B users with the same `items [N, D]`, without fields.

        None where that is no quicker than `forward` with the items repeated for each user, whose
        scores it must equal.
        """
        return None

    def work(self) -> int:
        """Numbers that it holds at once to score one candidate, where more than its D."""
        return 0


@dataclass(frozen=True)
class Batch:
    """One step's input. Items are numbered within the batch: 0 is padding, n + 1 is `items[n]`."""

    items: ItemInput  # inputs of the N distinct items
    history: Tensor  # [B, H] int64, 0 = padding
    candidates: Tensor  # [B, K] int64, 0 = no candidate
    labels: Tensor  # [B, K] float; in matching the click stands first
    users: Tensor | None = None  # [B] int64, 0 = not known; of operators that read users
    history_items: ItemInput | None = None  # of the N items, for the behavior operator's recipe
    fields: Tensor | None = None  # [B, K, F] int64, 0 = no value

    def to(self, device: torch.device | str) -> Batch:
        def move(value: Any) -> Any:
            return None if value is None else value.to(device)

        return Batch(**{field.name: move(getattr(self, field.name)) for field in fields(self)})
