"""Features that are one row per item: stored vectors, codes, pooled states, values of categories.

And those of several recipes joined. For new items, known by their text alone, rows are computed
where a language model makes them; what comes from a file can only be known of the file's items.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from legoray.data.built import Say, quietly
from legoray.data.fields import coded
from legoray.data.load import load_items
from legoray.data.recipes import (
    CategoryRecipe,
    CodeRecipe,
    InputSizes,
    Joined,
    LayersRecipe,
    VectorRecipe,
    VectorSource,
)
from legoray.errors import DamagedError, InputError, Problem

if TYPE_CHECKING:
    from legoray.llm.pooled import PooledRows
    from legoray.model.features import Features

Rows = list[dict[str, str]]
RowRecipe = VectorRecipe | CodeRecipe | LayersRecipe | CategoryRecipe

CATEGORIES = "categories.json"


def _nothing(folder: Path) -> None:
    """Nothing to write."""


class RowFeatures:
    """Items as the rows of one tensor: row i is item i + 1."""

    def __init__(
        self, rows: Tensor, sizes: InputSizes, save: Callable[[Path], None] = _nothing
    ) -> None:
        """Features of `rows [items, ...]`; `save` writes what new items will need into a folder."""
        self.rows = rows
        self.sizes = sizes
        self.save_assets = save

    @property
    def item_count(self) -> int:
        """Rows of an item table, the padding row included."""
        return len(self.rows) + 1

    def gather(self, items: Tensor) -> Tensor:
        """`[N, ...]` rows of `items [N]`, ids from 1."""
        return self.rows.index_select(0, items - 1)

    def lengths(self, items: Tensor) -> Tensor:
        """1 for every item."""
        return torch.ones_like(items)


class PooledFeatures:
    """Items as the pooled hidden states of a language model's layers, mapped from the store."""

    def __init__(self, recipe: LayersRecipe, rows: PooledRows) -> None:
        """Features whose row i is item i + 1."""
        self.rows = rows
        self.sizes = InputSizes(width=rows.shape[2], layers=rows.shape[1])
        self.save_assets = functools.partial(save_model_note, recipe)

    @property
    def item_count(self) -> int:
        """Rows of an item table, the padding row included."""
        return len(self.rows) + 1

    def gather(self, items: Tensor) -> Tensor:
        """`[N, layers, H]` of `items [N]`, ids from 1."""
        return self.rows.take(items - 1)

    def lengths(self, items: Tensor) -> Tensor:
        """1 for every item."""
        return torch.ones_like(items)


class JoinedFeatures:
    """The features of several recipes, side by side."""

    def __init__(self, parts: Sequence[Features]) -> None:
        self.parts = tuple(parts)
        self.sizes = InputSizes(parts=tuple(part.sizes for part in self.parts))
        self.item_count = max(part.item_count for part in self.parts)

    def gather(self, items: Tensor) -> Joined:
        """What each part has of `items [N]`."""
        return Joined(tuple(part.gather(items) for part in self.parts))

    def lengths(self, items: Tensor) -> Tensor:
        """The largest length that a part has of each of `items [N]`."""
        return torch.stack([part.lengths(items) for part in self.parts]).amax(dim=0)

    def save_assets(self, folder: Path) -> None:
        """Each part's assets in a folder `input-0`, `input-1`, ... of its own."""
        for number, part in enumerate(self.parts):
            below = folder / f"input-{number}"
            below.mkdir(parents=True, exist_ok=True)
            part.save_assets(below)


def no_numbers(count: int) -> RowFeatures:
    """New items where another recipe asks for their numbers: they have none, which is 0."""
    return RowFeatures(torch.zeros(count, dtype=torch.int64), InputSizes())


def open_rows(
    recipe: RowRecipe, tables: Path, home: Path, say: Say = quietly
) -> RowFeatures | PooledFeatures:
    """The rows of all items of prepared tables; made now where they are not there yet.

    Raises:
        InputError: an attribute or language model is unknown; a file lacks an item or is damaged.
    """
    if isinstance(recipe, CategoryRecipe):
        return _open_categories(recipe, tables)
    if isinstance(recipe, LayersRecipe):
        from legoray.llm.pooled import open_pooled

        return PooledFeatures(recipe, open_pooled(recipe, tables, home, say=say))
    if isinstance(recipe, CodeRecipe):
        from legoray.model.storedcodes import open_codes

        return open_codes(recipe, tables, home, say)
    return _vectors(recipe.source, open_vectors(recipe.source, tables, home, say))


def rows_of_texts(recipe: RowRecipe, folder: Path, rows: Rows) -> RowFeatures | PooledFeatures:
    """The rows of new items, known by their text alone.

    Args:
        recipe: what to compute.
        folder: where a model's `save_assets` wrote.
        rows: per item, attribute -> text.

    Raises:
        InputError: only a file knows the items; a row lacks an attribute; the folder is damaged.
    """
    if isinstance(recipe, CategoryRecipe):
        return _categories_of_texts(recipe, folder, rows)
    if isinstance(recipe, LayersRecipe):
        from legoray.llm.pooled import pooled_of_texts

        return PooledFeatures(recipe, pooled_of_texts(recipe, rows))
    if isinstance(recipe, CodeRecipe):
        from legoray.model.storedcodes import codes_of_texts

        return codes_of_texts(recipe, folder, rows)
    return _vectors(recipe.source, vectors_of_texts(recipe.source, folder, rows))


def open_vectors(source: VectorSource, tables: Path, home: Path, say: Say = quietly) -> Tensor:
    """The vectors `[items, W]` of all items, in float32.

    Raises:
        InputError: as `open_rows`.
    """
    if source.model:
        from legoray.llm.pooled import open_pooled
        from legoray.llm.units import last_layer_of

        return open_pooled(last_layer_of(source), tables, home, last=True, say=say).all()[:, 0]
    from legoray.data.vectors import read_vectors

    keys = load_items(tables, ["key"])["key"]
    return torch.from_numpy(read_vectors(Path(source.file), keys))


def vectors_of_texts(source: VectorSource, folder: Path, rows: Rows) -> Tensor:
    """The vectors `[items, W]` of new items.

    Raises:
        InputError: as `rows_of_texts`.
    """
    if not source.model:
        raise only_known(folder, f"vectors stored in {source.file}")
    from legoray.llm.pooled import pooled_of_texts
    from legoray.llm.units import last_layer_of

    return pooled_of_texts(last_layer_of(source), rows, last=True).all()[:, 0]


def _vectors(source: VectorSource, vectors: Tensor) -> RowFeatures:
    save = functools.partial(save_model_note, source) if source.model else _nothing
    return RowFeatures(vectors, InputSizes(width=vectors.shape[1]), save)


def save_model_note(recipe: LayersRecipe | VectorSource, folder: Path) -> None:
    """Note in a model's folder which language model it stands on; its weights stay outside."""
    from legoray.llm.units import write_note

    write_note(recipe, folder)


def _open_categories(recipe: CategoryRecipe, tables: Path) -> RowFeatures:
    table = load_items(tables, list(recipe.attributes))
    pairs = {name: coded(table[name]) for name in recipe.attributes}
    codes = np.stack([pairs[name][0] for name in recipe.attributes], axis=1)
    values = {name: known for name, (_, known) in pairs.items()}
    return _categories(recipe, torch.from_numpy(codes), values)


def _categories_of_texts(recipe: CategoryRecipe, folder: Path, rows: Rows) -> RowFeatures:
    try:
        content = json.loads((folder / CATEGORIES).read_text(encoding="utf-8"))
        values = {name: list(content[name]) for name in recipe.attributes}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged_asset(folder / CATEGORIES, error) from None
    found = torch.zeros(len(rows), len(recipe.attributes), dtype=torch.int64)
    for place, name in enumerate(recipe.attributes):
        known = {value: code for code, value in enumerate(values[name], 1)}
        own = [known.get(_text(row, name, i), 0) for i, row in enumerate(rows, 1)]
        found[:, place] = torch.tensor(own, dtype=torch.int64)
    return _categories(recipe, found, values)


def _categories(recipe: CategoryRecipe, codes: Tensor, values: dict[str, list[str]]) -> RowFeatures:
    """Categories by their numbers `codes [items, A]`; value n - 1 of an attribute is its code n."""

    def save(folder: Path) -> None:
        content = json.dumps(values, ensure_ascii=False)
        (folder / CATEGORIES).write_text(content, encoding="utf-8")

    sizes = InputSizes(values=tuple(len(values[name]) + 1 for name in recipe.attributes))
    return RowFeatures(codes, sizes, save)


def _text(row: dict[str, str], attribute: str, number: int) -> str:
    value: Any = row.get(attribute)
    if not isinstance(value, str):
        known = ", ".join(row) or "nothing"
        raise InputError(Problem(f"item {number}", f"'{attribute}' is missing", f"has: {known}"))
    return value


def only_known(folder: Path, what: str) -> InputError:
    """The error of asking for new items where a file knows the data set's alone."""
    message = f"this model reads {what}, which has nothing of new items: it cannot score them"
    return InputError(Problem(str(folder), message, "use a text model, or vectors of a model"))


def damaged_asset(file: Path, error: Exception) -> DamagedError:
    """The error of a file in a model's folder that cannot be read."""
    reason = f"{type(error).__name__} {error}".replace("\n", " ")
    return DamagedError(Problem(str(file), f"is damaged: {reason}"))
