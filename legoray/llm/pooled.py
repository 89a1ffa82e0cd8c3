"""One vector per item and layer: a language model's hidden states, pooled and stored.

They stand on the store of hidden states (`legoray.llm.store`) as units of their own: the rows of a
text are its layers, one after another, each pooled as soon as it is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from legoray.data.built import Say, quietly
from legoray.data.recipes import LayersRecipe
from legoray.llm.mapped import MappedRows
from legoray.llm.store import open_rows_of, rows_of_new
from legoray.llm.units import unit_of_layers


class PooledRows:
    """The pooled states of n items, gathered by item."""

    def __init__(self, rows: MappedRows, layers: int) -> None:
        self.rows = rows
        self.shape = (len(rows), layers, rows.width)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, items: Tensor) -> Tensor:
        """`[N, layers, H]` of `items [N]`, from 0."""
        if not len(items):
            return torch.empty(0, *self.shape[1:], dtype=self.rows.blocks[0].dtype)
        return self.rows.gather(items)[0]

    def all(self) -> Tensor:
        """`[n, layers, H]` of all items: the mapped rows themselves where they lie in order."""
        layers = self.shape[1]
        block, first = self.rows.block, self.rows.first
        ordered = bool((block == block[:1]).all()) and bool((first.diff() == layers).all())
        if len(self) and ordered:
            start = int(first[0])
            rows = self.rows.blocks[int(block[0])][start : start + len(self) * layers]
            return rows.view(self.shape)
        return self.take(torch.arange(len(self)))


def open_pooled(
    recipe: LayersRecipe, tables: Path, home: Path, *, last: bool = False, say: Say = quietly
) -> PooledRows:
    """The pooled states `[items, layers, H]` of all items, mapped from the disk.

    Args:
        recipe: what is wanted.
        tables: folder of the prepared tables.
        home: folder of shared caches; on a cluster, storage that every node sees.
        last: the last layer alone, instead of the embeddings and every layer.
        say: told what is computed or waited for.

    Raises:
        InputError: as `legoray.llm.store.ensure_states`; layers differ in width.
    """
    unit = unit_of_layers(recipe, last=last)
    return PooledRows(open_rows_of(unit, tables, home, say), len(unit.layers))


def pooled_of_texts(
    recipe: LayersRecipe, rows: Sequence[dict[str, str]], *, last: bool = False
) -> PooledRows:
    """The pooled states `[items, layers, H]` of items given as attributes, computed now.

    Args:
        recipe: what to compute.
        rows: one mapping attribute -> text per item.
        last: as in `open_pooled`.

    Raises:
        InputError: a row lacks an attribute of the template, or as `open_pooled`.
    """
    unit = unit_of_layers(recipe, last=last)
    return PooledRows(rows_of_new(unit, rows), len(unit.layers))
