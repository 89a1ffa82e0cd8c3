"""Scores of texts that no data set has: a model's folder, histories and candidates in, scores out.

Each distinct text is encoded once, however often it stands in histories and among candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from legoray.data.recipes import (
    CategoryRecipe,
    CodeRecipe,
    ItemInput,
    JoinedRecipe,
    LayersRecipe,
    Recipe,
    StateRecipe,
    TokenRecipe,
    VectorRecipe,
)
from legoray.errors import InputError, Problem, nearest
from legoray.model.base import History
from legoray.model.features import Features
from legoray.model.inputs import Inputs, Recipes, inputs_of_texts
from legoray.model.io import load_model, saved_recipes

Text = str | Mapping[str, Any]  # an item: its text, or attribute -> text
ITEMS, USERS = 256, 64  # items encoded, and users scored, at once


@dataclass(frozen=True)
class _Known:
    """What is known of some new items, row 0 of each table being padding."""

    table: Tensor  # [N + 1, D] vectors
    history_items: ItemInput | None  # of the N items, for the behavior operator
    fields: Tensor | None  # [N + 1, F]


class Scorer:
    """A trained model that scores new texts."""

    def __init__(self, folder: Path) -> None:
        """Load a model's folder.

        Raises:
            InputError: the folder is missing or damaged, or its language model cannot be had.
        """
        self.folder = Path(folder)
        self.loaded = load_model(self.folder)

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes that the model reads of an item; none if it knows items by number."""
        return attributes_of(self.loaded.recipes)

    def score(
        self, histories: Sequence[Sequence[Text]], candidates: Sequence[Sequence[Text]]
    ) -> list[NDArray[np.float64]]:
        """Scores of each user's candidates; higher means a click is likelier.

        Args:
            histories: per user what was read, oldest first; the newest `max_history` count. May be
                empty.
            candidates: per user what to score; as many users as histories.

        Returns:
            Per user one score for each candidate.

        Raises:
            InputError: the model knows items by number alone, or an item is neither a text nor a
                mapping with all attributes that the model reads.
        """
        if not _attributes(self.loaded.recipes.items):
            label = self.loaded.config.label()
            message = f"{label} knows the items of its data set alone and cannot score new texts"
            raise InputError(Problem(str(self.folder), message, "take a model that reads text"))
        numbers: dict[tuple[str, ...], int] = {}  # 0 is padding
        longest = self.loaded.shape.max_history
        history = [self._numbers(h[-longest:], numbers, "history") for h in histories]
        wanted = [self._numbers(c, numbers, "candidates") for c in candidates]
        rows = [dict(zip(self.attributes, texts, strict=True)) for texts in numbers]
        inputs = inputs_of_texts(self.loaded.recipes, self.folder, rows)
        with torch.inference_mode():
            known = self._known(inputs, rows)
            scores: list[NDArray[np.float64]] = []
            for start in range(0, len(history), USERS):
                block = slice(start, start + USERS)
                scores += self._score(known, history[block], wanted[block])
        return scores

    def _known(self, inputs: Inputs, rows: list[dict[str, str]]) -> _Known:
        codes = inputs.fields.of_items(rows) if inputs.fields else None
        return _Known(
            table=self._encode(inputs.items, len(rows)),
            history_items=inputs.of_history(torch.arange(1, len(rows) + 1)),
            fields=None if codes is None else torch.from_numpy(codes),
        )

    def _numbers(
        self, items: Iterable[Text], numbers: dict[tuple[str, ...], int], what: str
    ) -> list[int]:
        texts = [self._texts(item, f"{what}[{i}]") for i, item in enumerate(items)]
        return [numbers.setdefault(text, len(numbers) + 1) for text in texts]

    def _texts(self, item: Text, where: str) -> tuple[str, ...]:
        """An item's attributes in the model's order; a plain text is the first of them."""
        if isinstance(item, str):
            return (item, *[""] * (len(self.attributes) - 1))
        if not isinstance(item, Mapping):
            expected = "a text, or a mapping of attributes to texts"
            raise InputError(Problem(where, f"{item!r} is not {expected}"))
        for name in self.attributes:
            if name not in item:
                raise InputError(_missing(name, [str(key) for key in item], where))
        values = [item[name] for name in self.attributes]
        return tuple("" if value is None else str(value) for value in values)

    def _encode(self, features: Features, count: int) -> Tensor:
        """Vectors `[count + 1, D]` of all items, those of like length together; row 0 is zero."""
        model = self.loaded.recommender
        if not count:
            return torch.zeros(1, self.loaded.shape.hidden_size)
        items = torch.arange(1, count + 1)
        order = torch.argsort(features.lengths(items))
        blocks = [
            model.encode_items(features.gather(items[block])).float()
            for block in order.split(ITEMS)
        ]
        table = blocks[0].new_zeros(count + 1, blocks[0].shape[1])
        table[order + 1] = torch.cat(blocks)
        return table

    def _score(
        self, known: _Known, history: list[list[int]], candidates: list[list[int]]
    ) -> list[NDArray[np.float64]]:
        model = self.loaded.recommender
        past, asked = _padded(history), _padded(candidates)
        user = model.encode_users(
            History(
                vectors=F.embedding(past, known.table),
                mask=past > 0,
                users=torch.zeros(len(past), dtype=torch.int64),  # nobody that training knew
                inputs=known.history_items,
                items=past,
            )
        )
        fields = None if known.fields is None else known.fields[asked]
        scores = model.score(user, F.embedding(asked, known.table), fields).double().numpy()
        return [row[: len(c)] for row, c in zip(scores, candidates, strict=True)]


def attributes_of(recipes: Recipes) -> tuple[str, ...]:
    """The attributes that a model reads of an item, each once, in its order."""
    found = list(_attributes(recipes.items))
    found += _attributes(recipes.history) if recipes.history else ()
    found += [name.partition(".")[2] for name in recipes.fields if name.startswith("item.")]
    return tuple(dict.fromkeys(found))


def scores_texts(folder: Path) -> bool:
    """Whether a saved model can score new texts, rather than the items of its data set alone."""
    try:
        return bool(_attributes(saved_recipes(folder).items))
    except InputError:  # there is no such model
        return False


def _attributes(recipe: Recipe) -> tuple[str, ...]:
    if isinstance(recipe, TokenRecipe | CategoryRecipe):
        return recipe.attributes
    if isinstance(recipe, JoinedRecipe):
        return tuple(name for part in recipe.parts for name in _attributes(part))
    if isinstance(recipe, CodeRecipe):
        return _attributes(VectorRecipe(recipe.vectors)) if recipe.vectors else ()
    template = recipe.source.template if isinstance(recipe, VectorRecipe) else ""
    if isinstance(recipe, StateRecipe | LayersRecipe):
        template = recipe.template
    if not template:
        return ()
    from legoray.llm.text import template_attributes

    return tuple(template_attributes(template))


def _padded(rows: list[list[int]]) -> Tensor:
    """`[B, W]` with 0 on the right of shorter rows; W is at least 1."""
    width = max((len(row) for row in rows), default=0) or 1
    return torch.tensor([row + [0] * (width - len(row)) for row in rows], dtype=torch.int64)


def _missing(name: str, given: list[str], where: str) -> Problem:
    close = nearest(name, given)
    hint = f"is '{close}' meant?" if close else f"given: {', '.join(given) or 'nothing'}"
    message = f"the attribute '{name}', which the model reads, is missing"
    return Problem(where, message, f"{hint}; an empty text will do")
