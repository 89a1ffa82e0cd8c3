"""What jobs share within a process: a warm worker opens it once and serves many trials with it."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

from legoray.data.corpus import Corpus
from legoray.data.fields import FieldTables, open_fields
from legoray.data.load import load_corpus, read_manifest
from legoray.data.recipes import CodeRecipe, Recipe, VectorRecipe, leaves
from legoray.model.features import Features, open_features
from legoray.model.inputs import Inputs, Recipes, open_inputs
from legoray.model.reads import names_in


class ProcessCache:
    """The values used last, by key."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The value of a key, made now if it is not there."""
        with self._lock:
            if key not in self._values:
                self._values[key] = make()
                while len(self._values) > self._most:
                    self._values.popitem(last=False)
            self._values.move_to_end(key)
            return self._values[key]


_CORPORA = ProcessCache(2)
_FEATURES = ProcessCache(16)
_FIELDS = ProcessCache(16)


def shared_corpus(tables: Path) -> Corpus:
    """The corpus of prepared tables, read once per process and content."""
    stamp = (tables / "manifest.json").stat().st_mtime_ns if tables.is_dir() else 0
    return _CORPORA.get((str(tables), stamp), lambda: load_corpus(tables))


def shared_features(recipe: Recipe, tables: Path, home: Path) -> Features:
    """The features of a recipe, opened once per process and content of the tables."""
    key = (recipe, str(tables), str(home), _content(names_in(recipe), tables), _stamps(recipe))
    return _FEATURES.get(key, lambda: open_features(recipe, tables, home))


def _content(attributes: Sequence[str], tables: Path) -> tuple[str, ...]:
    """Fingerprints of the tables, and of those attributes of items or users written later."""
    manifest = read_manifest(tables)
    known = manifest.written
    later = [f"{name}:{known[name].fingerprint}" for name in attributes if name in known]
    return (manifest.fingerprint, *later)


def _stamps(recipe: Recipe) -> tuple[tuple[int, int], ...]:
    """Time and size of the files of the user's own that a recipe reads."""
    named = [_file(leaf) for leaf in leaves(recipe)]
    found = [os.stat(name) for name in named if name and os.path.exists(name)]
    return tuple((stat.st_mtime_ns, stat.st_size) for stat in found)


def _file(recipe: Recipe) -> str:
    if isinstance(recipe, VectorRecipe):
        return recipe.source.file
    if isinstance(recipe, CodeRecipe):
        return recipe.file or (recipe.vectors.file if recipe.vectors else "")
    return ""


def shared_inputs(recipes: Recipes, tables: Path, home: Path, corpus: Corpus) -> Inputs:
    """The inputs of a composition, each of them opened once per process and content."""
    return open_inputs(
        recipes,
        corpus,
        features=lambda one: shared_features(one, tables, home),
        fields=lambda names: _shared_fields(names, tables),
    )


def _shared_fields(names: tuple[str, ...], tables: Path) -> FieldTables:
    """The codes of fields, read once per process and content of the tables."""
    attributes = [name.partition(".")[2] for name in names]
    key = (names, str(tables), _content(attributes, tables))
    return _FIELDS.get(key, lambda: open_fields(names, tables))
