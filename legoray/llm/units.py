"""A unit of the store: all that decides what is kept of a text, but the text itself.

    <home>/states/<unit key>/meta.json                       UnitMeta
    <home>/states/<unit key>/blocks/<name>.safetensors       states of some texts
    <home>/states/<unit key>/sets/<texts>.safetensors        where each item of a list of texts lies

The key is a hash of the model's id and revision, the checksums of its weights and its tokenizer,
the template, the length, the layers, the pooling, the precision and the type that is stored.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from legoray.config import Strict
from legoray.data.recipes import (
    CodeRecipe,
    LayersRecipe,
    Recipe,
    StateRecipe,
    VectorRecipe,
    VectorSource,
)
from legoray.data.shelf import REMOVED
from legoray.data.tensorfile import UNFINISHED
from legoray.errors import DamagedError, InputError, Problem
from legoray.llm.catalogue import Source, locate, tokenizer_checksum, weights_checksum
from legoray.llm.load import facts
from legoray.records import digest, read_json, write_json

STORE_VERSION = 2
META = "meta.json"
NOTE = "language_model.json"  # in a model's folder
WHAT = "hidden states"


class Family(NamedTuple):
    """What one pass over the texts has in common."""

    model: str
    template: str
    length: int
    precision: str


@dataclass(frozen=True)
class Unit:
    """What is kept of every text."""

    family: Family
    layers: tuple[int, ...]  # after which layers, in order
    dtype: str  # float32 | bfloat16
    pooling: str = ""  # how a text's tokens become one row per layer; "" keeps every token's state

    @property
    def words(self) -> str:
        """Which states, such as `after layer 5`."""
        first, last = self.layers[0], self.layers[-1]
        after = f"layers {first} to {last}" if last > first else f"layer {last}"
        return f"{self.pooling}-pooled after {after}" if self.pooling else f"after {after}"


class UnitMeta(Strict):
    """What a unit's folder holds; everything that its key was made of is said here."""

    version: int
    model: str
    revision: str
    weights: str  # checksum
    tokenizer: str  # checksum
    template: str
    length: int
    layers: list[int]
    pooling: str
    precision: str
    dtype: str


def unit_of(recipe: StateRecipe) -> Unit:
    """The states of every token after one layer.

    Raises:
        InputError: the model is not here, or has no such layer.
    """
    known = facts(recipe.model)
    if not known.lowest_split <= recipe.split <= known.layers:
        message = f"it has {known.layers} layers and cannot be split after layer {recipe.split}"
        raise InputError(Problem(recipe.model, message, f"{known.lowest_split} to {known.layers}"))
    family = Family(recipe.model, recipe.template, recipe.length, recipe.precision)
    return Unit(family, (recipe.split,), recipe.store_dtype)


def unit_of_layers(recipe: LayersRecipe, *, last: bool = False) -> Unit:
    """One pooled row per layer: of the embeddings, where the family has them, and of every layer.

    Args:
        recipe: what is wanted.
        last: the last layer alone.

    Raises:
        InputError: the model is not here.
    """
    known = facts(recipe.model)
    layers = (known.layers,) if last else tuple(range(known.lowest_split, known.layers + 1))
    family = Family(recipe.model, recipe.template, recipe.length, recipe.precision)
    return Unit(family, layers, recipe.store_dtype, recipe.pooling)


def last_layer_of(source: VectorSource) -> LayersRecipe:
    """What a language model's vectors are made of."""
    return LayersRecipe(
        source.model,
        source.template,
        source.length,
        source.pooling,
        source.precision,
        store_dtype="float32",
    )


def unit_behind(recipe: Recipe) -> Unit | None:
    """The unit that a recipe reads; None where it reads no language model's states.

    Raises:
        InputError: as `unit_of`.
    """
    if isinstance(recipe, StateRecipe):
        return unit_of(recipe)
    if isinstance(recipe, LayersRecipe):
        return unit_of_layers(recipe)
    if isinstance(recipe, VectorRecipe):
        source: VectorSource | None = recipe.source
    else:
        source = recipe.vectors if isinstance(recipe, CodeRecipe) else None
    if source is None or not source.model:
        return None
    return unit_of_layers(last_layer_of(source), last=True)


def meta_of(unit: Unit) -> UnitMeta:
    """Everything that decides a unit.

    Raises:
        InputError: the model is not here.
    """
    source = locate(unit.family.model)
    return UnitMeta(
        version=STORE_VERSION,
        model=source.id,
        revision=source.revision,
        weights=weights_checksum(source),
        tokenizer=tokenizer_checksum(source),
        template=unit.family.template,
        length=unit.family.length,
        layers=list(unit.layers),
        pooling=unit.pooling,
        precision=unit.family.precision,
        dtype=unit.dtype,
    )


def key_of_unit(unit: Unit) -> str:
    """The name of a unit's folder.

    Raises:
        InputError: the model is not here.
    """
    return digest(meta_of(unit).model_dump(), 24)


def open_unit(store: Path, unit: Unit) -> Path:
    """A unit's folder, made now where there is none; its `meta.json` is checked.

    Raises:
        InputError: the folder cannot be written.
        DamagedError: `meta.json` is not what was written.
    """
    meta = meta_of(unit)
    folder = store / digest(meta.model_dump(), 24)
    if not folder.exists():
        _make(folder, meta)
    try:
        check_meta(folder, meta)
    except DamagedError:
        if folder.exists():
            raise
        _make(folder, meta)  # it was pruned at this moment
    return folder


def _make(folder: Path, meta: UnitMeta) -> None:
    """A folder with its `meta.json`, in one step: whoever comes first makes it.

    What makers left that were killed in between goes as soon as one is through.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        working = Path(tempfile.mkdtemp(prefix=f"{UNFINISHED}{folder.name}-", dir=folder.parent))
        try:
            working.chmod(0o755)
            write_json(working / META, meta)
            os.rename(working, folder)
        except (OSError, InputError):  # somebody else was first, and swept this one away
            shutil.rmtree(working, ignore_errors=True)
            if not folder.exists():
                raise
    except OSError as error:
        hint = "free some space, or set LEGORAY_HOME to another disk"
        message = f"cannot be written: {error.strerror}"
        raise InputError(Problem(str(folder.parent), message, hint)) from None
    for left in folder.parent.glob(f"{UNFINISHED}{folder.name}-*"):
        if not left.name.endswith(REMOVED):  # whoever removes a unit needs it to the end
            shutil.rmtree(left, ignore_errors=True)


def check_meta(folder: Path, meta: UnitMeta) -> None:
    """See that a folder says that it is this unit's.

    Raises:
        DamagedError: it does not.
    """
    try:
        found = read_json(folder / META, UnitMeta)
        why = "" if found == meta else f"its {META} is of other states"
    except InputError as error:
        why = str(error)
    if why:
        hint = f"delete the folder {folder}; what it held is computed again when it is needed"
        message = f"these stored {WHAT} are damaged: {why}"
        raise DamagedError(Problem(str(folder), message, hint))


def write_note(recipe: StateRecipe | LayersRecipe | VectorSource, folder: Path) -> None:
    """Note in a model's folder which language model it stands on; its weights stay outside."""
    write_json(folder / NOTE, note_of(recipe))


def warn_of_others(folder: Path) -> None:
    """Say where a model's folder stands on another language model than the one that is here.

    It is no error: a GGUF file that another version of transformers converts is another file, with
    the same numbers.
    """
    for path in sorted(folder.rglob(NOTE)):
        try:
            note: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            name = note["recipe"]["model"]
            source = locate(name)
            others = _others(note, source)
        except (OSError, ValueError, KeyError, TypeError, InputError):
            continue  # what cannot be had or read is told by whoever needs it
        if others:
            logging.getLogger("legoray").warning(
                f"{folder}: was trained on other files of {name} than those of {source.folder} "
                f"(other {' and '.join(others)}): its scores may be others than were measured"
            )


def _others(note: dict[str, Any], source: Source) -> list[str]:
    here = {"weights": weights_checksum(source), "tokenizer": tokenizer_checksum(source)}
    return [what for what, sum_ in here.items() if note.get(f"{what}_sha256", sum_) != sum_]


def note_of(recipe: StateRecipe | LayersRecipe | VectorSource) -> dict[str, Any]:
    """Which language model stands behind a recipe, to be kept beside a trained model."""
    source = locate(recipe.model)
    return {
        "id": source.id,
        "revision": source.revision,
        "licence": source.licence,
        "weights_sha256": weights_checksum(source),
        "tokenizer_sha256": tokenizer_checksum(source),
        "recipe": dataclasses.asdict(recipe),
    }
