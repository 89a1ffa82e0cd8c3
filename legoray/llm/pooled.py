"""One vector per item and layer: a language model's hidden states, pooled and stored.

All wanted layers come out of one pass, each pooled as soon as it is computed, so that a text's own
states are never written down. What decides a vector is in the key of its folder, as in
`legoray.llm.store`; `<home>/pooled` is shared like `<home>/states`.

    <home>/pooled/<key>/states.safetensors   the rows of item i: its layers, one after another
    <home>/pooled/<key>/meta.json            PooledMeta
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from legoray.data.built import Say, ensure_folder, quietly
from legoray.data.load import load_items, read_manifest
from legoray.data.recipes import LayersRecipe, StateRecipe, VectorSource
from legoray.data.shelf import note_use
from legoray.errors import InputError, Problem
from legoray.llm.build import identity_of, spoken, width_after
from legoray.llm.catalogue import locate, tokenizer_checksum, weights_checksum
from legoray.llm.compute import run_texts
from legoray.llm.load import Base, facts, load_base, load_tokenizer
from legoray.llm.statefile import META, STATES, StateMeta, StateWriter, map_states
from legoray.llm.store import item_key
from legoray.llm.text import (
    Encoded,
    check_attributes,
    encode,
    render,
    template_attributes,
    texts_fingerprint,
)
from legoray.records import digest, read_json, write_json

WHAT = "pooled hidden states"
Keep = Callable[[NDArray[np.int64], int, Tensor], None]


class PooledMeta(StateMeta):
    """What a folder of pooled states holds; `split` is the last of its layers."""

    pooling: str
    layers: list[int]


def open_pooled(
    recipe: LayersRecipe, tables: Path, home: Path, *, last: bool = False, say: Say = quietly
) -> Tensor:
    """The pooled states `[items, layers, H]` of all items, mapped from the disk.

    Args:
        recipe: what is wanted.
        tables: folder of the prepared tables.
        home: folder of shared caches; on a cluster, storage that every node sees.
        last: the last layer alone, instead of the embeddings and every layer.
        say: told what is computed or waited for.

    Raises:
        InputError: the template names an attribute that the tables lack; a stored folder is
            damaged; the disk is full; a hidden state is NaN or infinite; the model is missing.
    """
    check_attributes(recipe.template, read_manifest(tables).attributes, f"model {recipe.model}")
    names = template_attributes(recipe.template)
    table = load_items(tables, names)
    texts = render(recipe.template, {name: table[name] for name in names})
    layers = layers_of_interest(recipe.model, last=last)
    folder = home / "pooled" / pooled_key(recipe, texts, layers)

    def make(working: Path) -> None:
        _store(working, folder.name, recipe, texts, layers, lambda i: item_key(tables, i), say)

    ensure_folder(folder, make, WHAT, say)
    note_use(folder)
    hidden, _ = map_states(folder, read_json(folder / META, PooledMeta))
    return hidden.view(len(texts), len(layers), -1)


def pooled_of_texts(
    recipe: LayersRecipe, rows: Sequence[dict[str, str]], *, last: bool = False
) -> Tensor:
    """The pooled states `[items, layers, H]` of items given as attributes, computed now.

    Args:
        recipe: what to compute.
        rows: one mapping attribute -> text per item.
        last: as in `open_pooled`.

    Raises:
        InputError: a row lacks an attribute of the template, or as `open_pooled`.
    """
    names = template_attributes(recipe.template)
    if rows:
        check_attributes(recipe.template, sorted(set.intersection(*map(set, rows))), "items")
    columns = {name: pa.array([row[name] for row in rows], pa.string()) for name in names}
    texts = render(recipe.template, columns)
    layers = layers_of_interest(recipe.model, last=last)
    base, encoded = _loaded(recipe, texts)
    width = _width(base, layers)
    found = torch.empty(len(texts), len(layers), width, dtype=getattr(torch, recipe.store_dtype))

    def keep(items: NDArray[np.int64], place: int, pooled: Tensor) -> None:
        found[torch.from_numpy(items), place] = pooled.to("cpu", found.dtype)

    _run(base, encoded, recipe.pooling, layers, keep, lambda i: (str(i + 1), str(texts[i])))
    return found


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


def layers_of_interest(model: str, *, last: bool) -> list[int]:
    """After which layers the states are pooled; 0 (the embeddings) where the family has it.

    Raises:
        InputError: as `legoray.llm.load.facts`.
    """
    known = facts(model)
    return [known.layers] if last else list(range(known.lowest_split, known.layers + 1))


def pooled_key(recipe: LayersRecipe, texts: pa.Array, layers: Sequence[int]) -> str:
    """The name of the folder of these texts' pooled states: a hash of all that decides them."""
    return digest(_identity(recipe, texts_fingerprint(texts), layers), 24)


def note_of(recipe: LayersRecipe | VectorSource) -> dict[str, Any]:
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


def _identity(recipe: LayersRecipe, texts: str, layers: Sequence[int]) -> dict[str, Any]:
    alike = StateRecipe(
        recipe.model,
        layers[-1],
        recipe.template,
        recipe.length,
        recipe.precision,
        recipe.store_dtype,
    )
    return {**identity_of(alike, texts), "pooling": recipe.pooling, "layers": list(layers)}


def _loaded(recipe: LayersRecipe, texts: pa.Array) -> tuple[Base, Encoded]:
    encoded = encode(load_tokenizer(recipe.model), texts, recipe.length)
    return load_base(recipe.model, recipe.precision), encoded  # type: ignore[arg-type]


def _store(
    working: Path,
    key: str,
    recipe: LayersRecipe,
    texts: pa.Array,
    layers: list[int],
    key_of: Callable[[int], str],
    say: Say,
) -> None:
    """Compute all texts' pooled states into a folder."""
    base, encoded = _loaded(recipe, texts)
    width, count = _width(base, layers), len(layers)
    after = f"layers {layers[0]} to {layers[-1]}" if count > 1 else f"layer {layers[-1]}"
    say(f"{recipe.model}: pooling the hidden states after {after} of {len(texts):,} texts")
    started = time.monotonic()
    offsets = np.arange(len(texts) + 1, dtype=np.int64) * count
    writer = StateWriter(working / STATES, offsets, width, recipe.store_dtype)

    def keep(items: NDArray[np.int64], place: int, pooled: Tensor) -> None:
        writer.write(items * count + place, pooled)

    describe = lambda row: (key_of(row), str(texts[row]))  # noqa: E731
    _run(base, encoded, recipe.pooling, layers, keep, describe, spoken(recipe.model, say))
    size, checksum = writer.close()
    content = _identity(recipe, texts_fingerprint(texts), layers)
    del content["version"]
    content |= {"key": key, "items": len(texts), "tokens": len(encoded.ids)}
    content |= {"hidden_size": width, "size": size, "checksum": checksum}
    write_json(working / META, PooledMeta.model_validate(content))
    say(f"{recipe.model}: {WHAT} stored in {time.monotonic() - started:.1f} s")


def _run(
    base: Base,
    encoded: Encoded,
    pooling: str,
    layers: list[int],
    keep: Keep,
    describe: Callable[[int], tuple[str, str]],
    progress: Callable[[float], None] = lambda share: None,
) -> None:
    """Pass all texts through the model; `keep` gets items `[n]`, a layer's place, `[n, H]`."""
    place = {layer: number for number, layer in enumerate(layers)}

    def sink(layer: int, positions: NDArray[np.int64], states: Tensor) -> None:
        # a batch holds whole texts of one length
        first = int(np.searchsorted(encoded.offsets, positions[0], side="right")) - 1
        length = int(encoded.lengths[first])
        items = np.searchsorted(encoded.offsets, positions[::length], side="right") - 1
        keep(items, place[layer], pool(states.unflatten(0, (-1, length)), pooling))

    if len(encoded.lengths):
        run_texts(base, encoded, layers, sink, describe=describe, progress=progress)


def pool(states: Tensor, pooling: str) -> Tensor:
    """`[n, H]` in float32 of `states [n, T, H]` without padding: mean, first or last token."""
    if pooling == "mean":
        return states.float().mean(dim=1)
    return (states[:, 0] if pooling == "cls" else states[:, -1]).float()


def _width(base: Base, layers: list[int]) -> int:
    widths = {width_after(base, layer) for layer in layers}
    if len(widths) > 1:
        message = f"its layers give states of different widths: {sorted(widths)}"
        raise InputError(Problem(base.source.name, message, "choose another model"))
    return widths.pop()
