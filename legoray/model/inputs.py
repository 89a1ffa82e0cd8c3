"""Everything that a composition reads of a data set: of the items, of users, of the moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from legoray.data.corpus import Corpus, Split
from legoray.data.fields import MOMENTS, FieldTables, saved_fields
from legoray.data.recipes import ItemInput, Recipe
from legoray.errors import InputError, Problem
from legoray.model.features import Features, features_of_texts

HISTORY = "history"  # folder of what the behavior operator needs


@dataclass(frozen=True)
class Recipes:
    """What the three parts of a composition want to read."""

    items: Recipe  # of the content operator
    history: Recipe | None = None  # of the behavior operator, besides the items' vectors
    fields: tuple[str, ...] = ()  # of the click predictor


@dataclass(frozen=True)
class Inputs:
    """The opened counterpart of `Recipes`."""

    items: Features
    history: Features | None = None
    fields: FieldTables | None = None
    user_count: int = 1  # rows of a user table, the row 0 for unknown users included

    def of_history(self, items: Tensor) -> ItemInput | None:
        """What the behavior operator reads of `items [N]` itself, if anything."""
        return self.history.gather(items) if self.history is not None else None

    def of_fields(
        self, split: Split, impression: NDArray[np.int64], items: NDArray[np.int64]
    ) -> Tensor | None:
        """The fields `[B, K, F]` of `items [B, K]` in the impressions `[B]`, if any are read."""
        if self.fields is None:
            return None
        return torch.from_numpy(self.fields.gather(split, impression, items))

    def save_assets(self, folder: Path) -> None:
        """Write beside a model what reading new texts needs."""
        self.items.save_assets(folder)
        if self.history is not None:
            below = folder / HISTORY
            below.mkdir()
            self.history.save_assets(below)
        if self.fields is not None:
            self.fields.save(folder)


def open_inputs(
    recipes: Recipes,
    corpus: Corpus,
    *,
    features: Callable[[Recipe], Features],
    fields: Callable[[tuple[str, ...]], FieldTables],
) -> Inputs:
    """What the recipes ask for of a prepared data set.

    Args:
        recipes: of a composition.
        corpus: of the data set.
        features: opens one recipe, perhaps from a cache.
        fields: opens some fields likewise.

    Raises:
        InputError: something that is asked for is not there.
    """
    if any(name in MOMENTS for name in recipes.fields):
        _check_times(recipes.fields, corpus)
    return Inputs(
        items=features(recipes.items),
        history=features(recipes.history) if recipes.history else None,
        fields=fields(recipes.fields) if recipes.fields else None,
        user_count=int(corpus.known_users.max(initial=0)) + 1,
    )


def _check_times(names: tuple[str, ...], corpus: Corpus) -> None:
    """Refuse fields of the moment where no moment is known: they would be empty everywhere."""
    if not any((split.time >= 0).any() for split in corpus.splits.values()):
        named = ", ".join(name for name in names if name in MOMENTS)
        message = f"its interactions have no times, which {named} would be made of"
        raise InputError(Problem(f"data set {corpus.name}", message, "leave these fields out"))


def inputs_of_texts(recipes: Recipes, folder: Path, rows: list[dict[str, str]]) -> Inputs:
    """What the recipes ask for of new items, known by their attributes; `rows[i]` is item i + 1.

    Args:
        recipes: of a model.
        folder: the model's, where `Inputs.save_assets` wrote.
        rows: per item, attribute -> text.

    Raises:
        InputError: the model knows items by number alone, a row lacks an attribute, the folder is
            damaged.
    """
    return Inputs(
        items=features_of_texts(recipes.items, folder, rows),
        history=features_of_texts(recipes.history, folder / HISTORY, rows)
        if recipes.history
        else None,
        fields=saved_fields(folder) if recipes.fields else None,
    )


def user_numbers(corpus: Corpus, split: Split, impression: NDArray[np.int64]) -> Tensor:
    """The users `[B]` of impressions as operators number them: 0 for who is not in training."""
    return torch.from_numpy(corpus.known_users[split.user[impression]])
