"""What a content operator reads of items: a recipe turned into arrays that are gathered from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from tokenizers import Tokenizer
from torch import Tensor

from legoray.data.load import read_manifest
from legoray.data.recipes import (
    IdRecipe,
    InputSizes,
    ItemInput,
    JoinedRecipe,
    Recipe,
    StateRecipe,
    TokenRecipe,
    Tokens,
)
from legoray.data.tokenization import load_tokenizer_file, vocabulary_size
from legoray.data.tokens import (
    TokenTable,
    gather_tokens,
    make_table,
    open_table,
    open_word_tokenizer,
    token_counts,
)
from legoray.errors import InputError, Problem
from legoray.model.stored import JoinedFeatures, no_numbers, open_rows, rows_of_texts

WORDS = "words"
TOKENIZER_FILE = "tokenizer.json"


class Features(Protocol):
    """The inputs of all items for one recipe. Item ids start at 1; tensors are on the CPU."""

    @property
    def sizes(self) -> InputSizes:
        """The sizes that an operator of these features is built for."""

    @property
    def item_count(self) -> int:
        """Rows of an item table, the padding row included."""

    def gather(self, items: Tensor) -> ItemInput:
        """The input of `items [N]` int64, padded to the longest of these."""

    def lengths(self, items: Tensor) -> Tensor:
        """How many tokens each of `items [N]` has, for bucketing: `[N]`."""

    def save_assets(self, folder: Path) -> None:
        """Write beside a model what `features_of_texts` needs."""


class IdFeatures:
    """Items known by their number alone."""

    sizes = InputSizes()

    def __init__(self, item_count: int) -> None:
        self.item_count = item_count

    def gather(self, items: Tensor) -> Tensor:
        """The ids themselves, `[N]`."""
        return items

    def lengths(self, items: Tensor) -> Tensor:
        """1 for every item."""
        return torch.ones_like(items)

    def save_assets(self, folder: Path) -> None:
        """Nothing to write."""


class TokenFeatures:
    """Items as the token ids of some attributes."""

    def __init__(self, tables: Sequence[TokenTable], tokenizer: Tokenizer, shift: int) -> None:
        self.tables = tuple(tables)
        self.tokenizer = tokenizer
        self.shift = shift
        self.sizes = InputSizes(vocabulary_size(tokenizer, shift), len(self.tables))
        self.item_count = len(self.tables[0].offsets) - 1

    def gather(self, items: Tensor) -> Tokens:
        """Tokens `[N, L]` of `items [N]`, L the longest of these."""
        return gather_tokens(self.tables, items)

    def lengths(self, items: Tensor) -> Tensor:
        """How many tokens each of `items [N]` has."""
        return token_counts(self.tables, items)

    def save_assets(self, folder: Path) -> None:
        """Write `tokenizer.json`."""
        self.tokenizer.save(str(folder / TOKENIZER_FILE))


def open_features(recipe: Recipe, tables: Path, home: Path) -> Features:
    """What `recipe` asks for of a prepared data set's items; made now where it is not there yet.

    Args:
        recipe: the content operator's.
        tables: folder of the prepared tables.
        home: folder of shared caches.

    Raises:
        InputError: an unknown attribute or language model, damaged tables or caches.
    """
    if isinstance(recipe, IdRecipe):
        return IdFeatures(read_manifest(tables).counts["items"] + 1)
    if isinstance(recipe, StateRecipe):
        from legoray.llm.store import open_states

        return open_states(recipe, tables, home)
    if isinstance(recipe, JoinedRecipe):
        return JoinedFeatures([open_features(part, tables, home) for part in recipe.parts])
    if not isinstance(recipe, TokenRecipe):
        return open_rows(recipe, tables, home)
    if recipe.tokenizer == WORDS:
        words = recipe.vocabulary or recipe.attributes
        tokenizer = open_word_tokenizer(tables, words, recipe.min_count)
    else:
        tokenizer = _catalogue_tokenizer(recipe.tokenizer)
    shift = _shift(recipe)
    opened = [
        open_table(tables, name, length=recipe.length, tokenizer=tokenizer, shift=shift)
        for name in recipe.attributes
    ]
    return TokenFeatures(opened, tokenizer, shift)


def features_of_texts(recipe: Recipe, model_folder: Path, rows: list[dict[str, str]]) -> Features:
    """What `recipe` asks for of new items, known by their text alone; `rows[i]` is item i + 1.

    Args:
        recipe: the content operator's.
        model_folder: where `save_assets` wrote.
        rows: per item, attribute -> text.

    Raises:
        InputError: the model knows items by number alone, a row lacks an attribute, the folder is
            damaged.
    """
    if isinstance(recipe, IdRecipe):
        message = "knows items by their number alone and cannot score new ones"
        raise InputError(Problem(str(model_folder), f"this model {message}", "use a text model"))
    if isinstance(recipe, StateRecipe):
        from legoray.llm.store import states_of_texts

        return states_of_texts(recipe, rows)
    if isinstance(recipe, JoinedRecipe):
        return JoinedFeatures(
            [
                no_numbers(len(rows))
                if isinstance(part, IdRecipe)
                else features_of_texts(part, model_folder / f"input-{number}", rows)
                for number, part in enumerate(recipe.parts)
            ]
        )
    if not isinstance(recipe, TokenRecipe):
        return rows_of_texts(recipe, model_folder, rows)
    tokenizer = load_tokenizer_file(model_folder / TOKENIZER_FILE)
    shift = _shift(recipe)
    made = [
        make_table(texts, length=recipe.length, tokenizer=tokenizer, shift=shift)
        for texts in (_column(rows, name) for name in recipe.attributes)
    ]
    return TokenFeatures(made, tokenizer, shift)


def _shift(recipe: TokenRecipe) -> int:
    """`words` keeps id 0 for padding; in other vocabularies 0 may be a word, so all move up."""
    return 0 if recipe.tokenizer == WORDS else 1


def _catalogue_tokenizer(name: str) -> Tokenizer:
    from legoray.llm.load import load_tokenizer

    return Tokenizer.from_str(load_tokenizer(name).backend_tokenizer.to_str())


def _column(rows: list[dict[str, str]], attribute: str) -> list[str]:
    """One attribute of all rows."""
    for number, row in enumerate(rows, start=1):
        value = row.get(attribute)
        if not isinstance(value, str):
            found = "is missing" if value is None else f"is {value!r}, not a text"
            known = ", ".join(row) or "nothing"
            raise InputError(Problem(f"item {number}", f"'{attribute}' {found}", f"has: {known}"))
    return [row[attribute] for row in rows]
