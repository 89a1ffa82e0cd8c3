"""Codes as features: from a file, or made of vectors once and kept with their centroids.

<home>/codes/<key>/codes.safetensors   codes [items, levels], centroids [levels, K, W]
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from legoray.data.built import Say, ensure_folder, quietly
from legoray.data.codes import VERSION, assign_codes, fit_centroids, read_codes
from legoray.data.load import load_items
from legoray.data.recipes import CodeRecipe, InputSizes
from legoray.data.shelf import note_use
from legoray.model.stored import (
    RowFeatures,
    Rows,
    damaged_asset,
    only_known,
    open_vectors,
    save_model_note,
    vectors_of_texts,
)
from legoray.records import digest

CENTROIDS = "centroids.safetensors"
_CODES = "codes.safetensors"


def open_codes(recipe: CodeRecipe, tables: Path, home: Path, say: Say = quietly) -> RowFeatures:
    """The codes of all items.

    Raises:
        InputError: as `legoray.model.stored.open_rows`.
    """
    if recipe.vectors is None:
        keys = load_items(tables, ["key"])["key"]
        found = read_codes(Path(recipe.file), keys, recipe.levels, recipe.codes)
        return _codes(recipe, torch.from_numpy(found), None)
    codes, centroids = codes_of_vectors(recipe, tables, home, say)
    return _codes(recipe, codes, centroids)


def codes_of_vectors(
    recipe: CodeRecipe, tables: Path, home: Path, say: Say = quietly
) -> tuple[Tensor, Tensor]:
    """The codes `[items, levels]` of vectors, and their centroids `[levels, K, W]`.

    They are made once per content of the vectors and settings, in `<home>/codes`.

    Raises:
        InputError: as `open_rows`.
    """
    assert recipe.vectors is not None
    vectors = open_vectors(recipe.vectors, tables, home, say).numpy()
    content = hashlib.sha256(np.ascontiguousarray(vectors).data).hexdigest()
    told = [VERSION, content, list(vectors.shape), recipe.levels, recipe.codes, recipe.seed]
    folder = home / "codes" / digest(told, 24)

    def make(working: Path) -> None:
        say(f"making {recipe.levels} x {recipe.codes} codes of {len(vectors):,} vectors")
        centroids = fit_centroids(vectors, recipe.levels, recipe.codes, recipe.seed)
        codes = torch.from_numpy(assign_codes(vectors, centroids))
        tensors = {"codes": codes, "centroids": torch.from_numpy(centroids)}
        save_file(tensors, working / _CODES)

    ensure_folder(folder, make, "stored codes", say)
    note_use(folder)
    stored = load_file(folder / _CODES)
    return stored["codes"], stored["centroids"]


def codes_of_texts(recipe: CodeRecipe, folder: Path, rows: Rows) -> RowFeatures:
    """The codes of new items, by the centroids that a model's folder holds.

    Raises:
        InputError: as `legoray.model.stored.rows_of_texts`.
    """
    if recipe.vectors is None:
        raise only_known(folder, f"codes stored in {recipe.file}")
    vectors = vectors_of_texts(recipe.vectors, folder, rows)
    try:
        centroids = load_file(folder / CENTROIDS)["centroids"]
        codes = assign_codes(vectors.numpy(), centroids.numpy())
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise damaged_asset(folder / CENTROIDS, error) from None
    return _codes(recipe, torch.from_numpy(codes), centroids)


def _codes(recipe: CodeRecipe, codes: Tensor, centroids: Tensor | None) -> RowFeatures:
    def save(folder: Path) -> None:
        if centroids is not None:
            save_file({"centroids": centroids}, folder / CENTROIDS)
        if recipe.vectors is not None and recipe.vectors.model:
            save_model_note(recipe.vectors, folder)

    sizes = InputSizes(values=(recipe.codes + 1,) * recipe.levels)
    return RowFeatures(codes, sizes, save)
