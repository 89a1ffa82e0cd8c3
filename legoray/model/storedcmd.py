"""`legoray vectors` and `legoray codes`: a data set's items as files that operators can read."""

from __future__ import annotations

from pathlib import Path

from legoray.config import home
from legoray.data.built import Say
from legoray.data.load import load_items
from legoray.data.prepare import prepare
from legoray.data.recipes import CodeRecipe, VectorSource
from legoray.errors import InputError, Problem
from legoray.model.content.sources import PooledConfig, absolute, exactly_one, model_problems
from legoray.model.content.sources import vectors_of_model as source_of
from legoray.model.stored import open_vectors
from legoray.model.storedcodes import codes_of_vectors


def export_vectors(
    dataset: Path, output: Path, *, model: str, config: PooledConfig, say: Say
) -> None:
    """Write one pooled vector of a language model per item, keyed by item.

    Args:
        dataset: a `datasets/*.yaml`; prepared first where it is not.
        output: a `.safetensors` file that `vector` and `semantic-id` read.
        model: the language model.
        config: how its states become a vector.
        say: told how it goes.

    Raises:
        InputError: the data set, the language model or the file's name are not as they must be.
    """
    from legoray.data.vectors import write_vectors

    _check_suffix(output, ".safetensors")
    _check(model_problems(model, config))
    prepared = prepare(dataset, say=say)
    source = source_of(model, config, tuple(prepared.manifest.text))
    vectors = open_vectors(source, prepared.tables, home(), say)
    note = {"model": source.model, "template": source.template, "pooling": source.pooling}
    note |= {"length": str(source.length), "precision": source.precision}
    note |= {"data": prepared.manifest.name, "fingerprint": prepared.manifest.fingerprint}
    write_vectors(output, _keys(prepared.tables), vectors, note)
    say(f"{len(vectors):,} vectors of width {vectors.shape[1]}: {output}")


def export_codes(
    dataset: Path,
    output: Path,
    *,
    vectors: Path | None,
    model: str | None,
    config: PooledConfig,
    levels: int,
    codes: int,
    seed: int,
    say: Say,
) -> None:
    """Write a few codes per item, keyed by item, by residual k-means of its vectors.

    Args:
        dataset: a `datasets/*.yaml`; prepared first where it is not.
        output: a `.parquet` file that `semantic-id` reads.
        vectors: a file of vectors; exactly one of it and `model` is given.
        model: a language model, whose vectors are computed.
        config: how the model's states become a vector.
        levels: codes per item, from coarse to fine.
        codes: how many different ones there are per level.
        seed: of the k-means.
        say: told how it goes.

    Raises:
        InputError: the data set, the vectors or the file's name are not as they must be.
    """
    from legoray.data.codes import write_codes

    _check_suffix(output, ".parquet")
    _check(exactly_one(vectors=None if vectors is None else str(vectors), model=model))
    _check(model_problems(model, config) if model else [])
    prepared = prepare(dataset, say=say)
    if model:
        source = source_of(model, config, tuple(prepared.manifest.text))
    else:
        source = VectorSource(file=absolute(str(Path(str(vectors)).absolute())))
    recipe = CodeRecipe(levels, codes, vectors=source, seed=seed)
    found, _ = codes_of_vectors(recipe, prepared.tables, home(), say)
    write_codes(output, _keys(prepared.tables), found.numpy())
    used = [len(level.unique()) for level in found.unbind(dim=1)]
    distinct = len(found.unique(dim=0))
    say(f"{len(found):,} items, {distinct:,} different codes (per level {used}): {output}")


def _keys(tables: Path) -> list[str]:
    keys: list[str] = load_items(tables, ["key"])["key"].to_pylist()
    return keys


def _check_suffix(output: Path, suffix: str) -> None:
    if output.suffix != suffix:
        message = f"the output's suffix is '{output.suffix}', expected {suffix}"
        raise InputError(Problem(str(output), message))


def _check(problems: list[str]) -> None:
    if problems:
        raise InputError(*problems)
