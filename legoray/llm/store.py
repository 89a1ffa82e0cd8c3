"""The store of hidden states: the lower layers run once per text, and never again.

Everything that decides a hidden state is in its key: the model's id and revision, the checksums of
its weights and its tokenizer, the template, the texts themselves, the length, the layer, the
precision, and the type that is stored. All trials, workers and nodes share `<home>/states`; one
process computes, the others wait for it. A folder appears there whole or not at all, and one that
was damaged later is an error that says so, not a silent recomputation: whoever shares the store
should learn of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from legoray.data.built import Say, locked
from legoray.data.recipes import InputSizes, StateRecipe, States
from legoray.data.shelf import note_use
from legoray.errors import InputError, Problem
from legoray.llm.build import build_states, identity_of, width_after
from legoray.llm.catalogue import locate, tokenizer_checksum, weights_checksum
from legoray.llm.compute import run_texts
from legoray.llm.load import facts, load_base, load_tokenizer
from legoray.llm.statefile import map_states, verify
from legoray.llm.text import (
    check_attributes,
    encode,
    render,
    template_attributes,
    texts_fingerprint,
)
from legoray.records import digest, write_json


class StateFeatures:
    """Hidden states of n items, gathered by item id. Item 0 is padding and stands nowhere."""

    def __init__(self, hidden: Tensor, offsets: Tensor, recipe: StateRecipe) -> None:
        """States `hidden [T, H]`; item `i` owns the rows `offsets[i - 1]:offsets[i]`."""
        self.hidden = hidden
        self.offsets = offsets
        self.recipe = recipe

    @property
    def sizes(self) -> InputSizes:
        """The width of a hidden state."""
        return InputSizes(width=self.hidden.shape[1])

    @property
    def item_count(self) -> int:
        """Rows of an item table, the padding row included."""
        return len(self.offsets)

    def lengths(self, items: Tensor) -> Tensor:
        """`[N]` tokens of items `[N]`."""
        return self.offsets[items] - self.offsets[items - 1]

    def gather(self, items: Tensor) -> States:
        """States of items `[N]` (ids from 1), padded with zeros to the longest of them."""
        start, end = self.offsets[items - 1], self.offsets[items]
        width = int((end - start).max()) if len(items) else 1
        column = torch.arange(width)
        mask = column < (end - start)[:, None]
        # under the mask: the item's own last token, so that no page but its own is touched
        rows = torch.minimum(start[:, None] + column, end[:, None] - 1)
        hidden = self.hidden.index_select(0, rows.flatten()).view(
            len(items), width, self.hidden.shape[1]
        )
        return States(hidden.masked_fill_(~mask.unsqueeze(-1), 0), mask)

    def save_assets(self, folder: Path) -> None:
        """Note in a model's folder which language model it stands on; its weights stay outside."""
        source = locate(self.recipe.model)
        note = {
            "id": source.id,
            "revision": source.revision,
            "licence": source.licence,
            "weights_sha256": weights_checksum(source),
            "tokenizer_sha256": tokenizer_checksum(source),
            "recipe": dataclasses.asdict(self.recipe),
        }
        write_json(folder / "language_model.json", note)


def ensure_states(
    recipes: StateRecipe | Sequence[StateRecipe],
    tables: Path,
    home: Path,
    say: Say = lambda message: None,
) -> list[Path]:
    """See that the hidden states of all items are in the store; compute those that are not.

    Recipes that differ in the split alone are computed in one pass.

    Args:
        recipes: what is wanted.
        tables: folder of the prepared tables.
        home: folder of shared caches; on a cluster, storage that every node sees.
        say: told what is computed or waited for.

    Returns:
        The folders of the states, one per recipe.

    Raises:
        InputError: a template names an attribute that the tables lack; a stored folder is damaged;
            the disk is full; a hidden state is NaN or infinite; the language model is missing.
    """
    wanted = [recipes] if isinstance(recipes, StateRecipe) else list(recipes)
    found: dict[StateRecipe, Path] = {}
    for family in {dataclasses.replace(recipe, split=0): None for recipe in wanted}:
        members = [r for r in wanted if dataclasses.replace(r, split=0) == family]
        found |= _ensure_family(list(dict.fromkeys(members)), tables, home, say)
    return [found[recipe] for recipe in wanted]


def open_states(recipe: StateRecipe, tables: Path, home: Path) -> StateFeatures:
    """The stored states of all items of the tables, computed first where they are missing.

    Raises:
        InputError: as `ensure_states`.
    """
    (folder,) = ensure_states(recipe, tables, home)
    hidden, offsets = map_states(folder, verify(folder))
    note_use(folder)
    return StateFeatures(hidden, offsets, recipe)


def states_of_texts(recipe: StateRecipe, rows: Sequence[dict[str, str]]) -> StateFeatures:
    """The states of some items given as attributes, computed now and held in memory.

    Args:
        recipe: what to compute.
        rows: one mapping attribute -> text per item; the first is item 1.

    Raises:
        InputError: a row lacks an attribute of the template, or as `ensure_states`.
    """
    _check_split(recipe)
    names = template_attributes(recipe.template)
    if rows:
        check_attributes(recipe.template, sorted(set.intersection(*map(set, rows))), "items")
    columns = {name: pa.array([row[name] for row in rows], pa.string()) for name in names}
    texts = render(recipe.template, columns)
    encoded = encode(load_tokenizer(recipe.model), texts, recipe.length)
    base = load_base(recipe.model, recipe.precision)  # type: ignore[arg-type]
    shape = (len(encoded.ids), width_after(base, recipe.split))
    hidden = torch.empty(shape, dtype=getattr(torch, recipe.store_dtype))

    def keep(split: int, positions: np.ndarray, states: Tensor) -> None:
        hidden[torch.from_numpy(positions)] = states.to("cpu", hidden.dtype)

    run_texts(
        base, encoded, [recipe.split], keep, describe=lambda i: (str(i + 1), texts[i].as_py())
    )
    return StateFeatures(hidden, torch.from_numpy(encoded.offsets), recipe)


def state_key(recipe: StateRecipe, texts: pa.Array) -> str:
    """The name of a recipe's folder in the store, for these texts."""
    return digest(identity_of(recipe, texts_fingerprint(texts)), 24)


def _ensure_family(
    recipes: list[StateRecipe], tables: Path, home: Path, say: Say
) -> dict[StateRecipe, Path]:
    """`ensure_states` for recipes that differ in the split alone."""
    for recipe in recipes:
        _check_split(recipe)
    texts = _texts_of(recipes[0], tables)
    fingerprint = texts_fingerprint(texts)
    store = home / "states"
    folders = {r: store / digest(identity_of(r, fingerprint), 24) for r in recipes}
    if not all(folder.exists() for folder in folders.values()):
        family = digest(identity_of(dataclasses.replace(recipes[0], split=0), fingerprint), 24)
        waiting = (
            f"{recipes[0].model}: another process computes these hidden states; waiting for it"
        )
        with locked(store / family, waiting, say):
            missing = {r: folder for r, folder in folders.items() if not folder.exists()}
            if missing:
                build_states(missing, texts, lambda i: item_key(tables, i), say)
    for folder in folders.values():
        verify(folder)
    return folders


def _check_split(recipe: StateRecipe) -> None:
    known = facts(recipe.model)
    lowest, layers = known.lowest_split, known.layers
    if not lowest <= recipe.split <= layers:
        raise InputError(
            Problem(
                recipe.model,
                f"it has {layers} layers and cannot be split after layer {recipe.split}",
                f"{lowest} to {layers}",
            )
        )


def _texts_of(recipe: StateRecipe, tables: Path) -> pa.Array:
    from legoray.data.load import load_items, read_manifest

    check_attributes(recipe.template, read_manifest(tables).attributes, f"model {recipe.model}")
    names = template_attributes(recipe.template)
    table = load_items(tables, names)
    return render(recipe.template, {name: table[name] for name in names})


def item_key(tables: Path, row: int) -> str:
    """The raw data's key of the item in a row of the items table."""
    from legoray.data.load import load_items

    return str(load_items(tables, ["key"])["key"][row])
