"""Everything that a composition reads of a data set: of the items, of users, of the moment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from legoray.data.corpus import Corpus, Split
from legoray.data.fields import FieldTables
from legoray.data.recipes import ItemInput, Recipe
from legoray.model.features import Features


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
            below = folder / "history"
            below.mkdir()
            self.history.save_assets(below)
        if self.fields is not None:
            self.fields.save(folder)


def user_numbers(corpus: Corpus, split: Split, impression: NDArray[np.int64]) -> Tensor:
    """The users `[B]` of impressions as operators number them: 0 for who is not in training."""
    return torch.from_numpy(corpus.known_users[split.user[impression]])
