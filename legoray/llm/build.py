"""Computing folders of the store: several layers in one pass, whole or not at all.

Work goes on in a folder whose name begins with `.building-`; only when its file is complete, synced
and its checksum noted does it get its real name. What a killed process left is swept away by the
next one that computes the same states.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from legoray.data.built import Say, working_folder
from legoray.data.recipes import StateRecipe
from legoray.errors import InputError, Problem
from legoray.llm.catalogue import locate, tokenizer_checksum, weights_checksum
from legoray.llm.compute import run_texts
from legoray.llm.load import Base, load_base, load_tokenizer
from legoray.llm.statefile import META, STATES, StateMeta, StateWriter, file_size
from legoray.llm.text import Encoded, encode, texts_fingerprint
from legoray.records import write_json

STORE_VERSION = 1
_SPARE = 64 * 2**20  # bytes to leave free on the disk
_SECONDS_BETWEEN_NEWS = 15.0


def identity_of(recipe: StateRecipe, texts: str) -> dict[str, str | int]:
    """Everything that decides the hidden states of texts with this fingerprint."""
    source = locate(recipe.model)
    return {
        "version": STORE_VERSION,
        "model": source.id,
        "revision": source.revision,
        "weights": weights_checksum(source),
        "tokenizer": tokenizer_checksum(source),
        "texts": texts,
        "template": recipe.template,
        "length": recipe.length,
        "split": recipe.split,
        "precision": recipe.precision,
        "dtype": recipe.store_dtype,
    }


def width_after(base: Base, split: int) -> int:
    """The size of the hidden states after `split` layers."""
    return base.output_size if split == base.layers else base.hidden_size


def build_states(
    folders: Mapping[StateRecipe, Path], texts: pa.Array, key_of: Callable[[int], str], say: Say
) -> None:
    """Compute the folders of recipes that differ in the split alone.

    Args:
        folders: recipe -> its folder, which does not exist yet; the caller holds the lock.
        texts: the filled-in templates of all items.
        key_of: row -> the item's key, for an error.
        say: told what is done.

    Raises:
        InputError: the disk is full or cannot be written; a hidden state is NaN or infinite.
    """
    recipe = next(iter(folders))
    encoded = encode(load_tokenizer(recipe.model), texts, recipe.length)
    base = load_base(recipe.model, recipe.precision)  # type: ignore[arg-type]
    store = next(iter(folders.values())).parent
    sizes = {
        r: file_size(len(texts), len(encoded.ids), width_after(base, r.split), r.store_dtype)
        for r in folders
    }
    _check_disk(store, sum(sizes.values()))
    say(_news(recipe, sorted(r.split for r in folders), encoded, sum(sizes.values())))
    started = time.monotonic()
    try:
        _write(folders, base, encoded, texts, key_of, say)
    except OSError as error:
        raise InputError(Problem(str(store), f"cannot be written: {error.strerror}")) from None
    say(f"{recipe.model}: hidden states stored in {time.monotonic() - started:.1f} s")


def _write(
    folders: Mapping[StateRecipe, Path],
    base: Base,
    encoded: Encoded,
    texts: pa.Array,
    key_of: Callable[[int], str],
    say: Say,
) -> None:
    working = {recipe: working_folder(folder) for recipe, folder in folders.items()}
    try:
        writers = {
            r.split: StateWriter(
                working[r] / STATES, encoded.offsets, width_after(base, r.split), r.store_dtype
            )
            for r in folders
        }

        def sink(split: int, positions: NDArray[np.int64], states: Tensor) -> None:
            writers[split].write(positions, states)

        run_texts(
            base,
            encoded,
            list(writers),
            sink,
            describe=lambda row: (key_of(row), str(texts[row])),
            progress=spoken(base.source.name, say),
        )
        fingerprint = texts_fingerprint(texts)
        for recipe, folder in folders.items():
            size, checksum = writers[recipe.split].close()
            meta = _meta(recipe, folder.name, fingerprint, encoded, base, size, checksum)
            write_json(working[recipe] / META, meta)
            os.replace(working[recipe], folder)
    finally:
        for folder in working.values():
            shutil.rmtree(folder, ignore_errors=True)


def _meta(
    recipe: StateRecipe,
    key: str,
    texts: str,
    encoded: Encoded,
    base: Base,
    size: int,
    checksum: str,
) -> StateMeta:
    identity = identity_of(recipe, texts)
    del identity["version"]
    return StateMeta.model_validate(
        {
            **identity,
            "key": key,
            "items": len(encoded.lengths),
            "tokens": len(encoded.ids),
            "hidden_size": width_after(base, recipe.split),
            "size": size,
            "checksum": checksum,
        }
    )


def _check_disk(store: Path, size: int) -> None:
    free = shutil.disk_usage(store).free
    if free < size + _SPARE:
        raise InputError(
            Problem(
                str(store),
                f"the hidden states need {size / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free",
                "free some space, set LEGORAY_HOME to a larger disk, or lower the model's length",
            )
        )


def _news(recipe: StateRecipe, splits: list[int], encoded: Encoded, size: int) -> str:
    after = ", ".join(str(split) for split in splits)
    return (
        f"{recipe.model}: computing hidden states after layer {after} of "
        f"{len(encoded.lengths):,} texts ({len(encoded.ids):,} tokens, {size / 1e6:,.0f} MB)"
    )


def spoken(name: str, say: Say) -> Callable[[float], None]:
    """Speaks now and then, so that a long pass is seen to move."""
    told = time.monotonic()

    def progress(share: float) -> None:
        nonlocal told
        if time.monotonic() - told > _SECONDS_BETWEEN_NEWS:
            told = time.monotonic()
            say(f"{name}: {share:.0%} of the hidden states are computed")

    return progress
