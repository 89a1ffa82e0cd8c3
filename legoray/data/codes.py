"""A few codes per item, from coarse to fine: residual k-means of vectors, or a Parquet file.

Level 1 is the vector's nearest centroid; level 2 the nearest one to what is left of it after that
centroid is taken away, and so on (residual quantization: TIGER, arXiv 2305.05065, section 3.1, with
k-means in place of a learned quantizer). Codes count from 1; 0 is no code.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from legoray.data.vectors import match_keys, read_columns
from legoray.errors import InputError, Problem

VERSION = 1  # of `fit_centroids`: raise it when the same vectors would get other codes
_MINI_FROM = 20_000  # items; from here on k-means runs on small batches
_BLOCK = 16_384

Floats = NDArray[np.float32]
Codes = NDArray[np.int64]


def fit_centroids(vectors: Floats, levels: int, codes: int, seed: int) -> Floats:
    """The centroids `[levels, K, W]` of residual k-means; K is `codes`, or fewer for few items.

    Args:
        vectors: `[N, W]`.
        levels: how often what is left is quantized again.
        codes: centroids per level.
        seed: decides the result, with the vectors.
    """
    left = np.array(vectors, dtype=np.float32)
    count = min(codes, len(left))
    found = np.empty((levels, count, left.shape[1]), dtype=np.float32)
    for level in range(levels):
        found[level] = _means(left, count, seed + level)
        left -= found[level][_nearest(left, found[level])]
    return found


def assign_codes(vectors: Floats, centroids: Floats) -> Codes:
    """The codes `[N, levels]`, from 1, of vectors `[N, W]`."""
    left = np.array(vectors, dtype=np.float32)
    codes = np.empty((len(left), len(centroids)), dtype=np.int64)
    for level, own in enumerate(centroids):
        nearest = _nearest(left, own)
        codes[:, level] = nearest + 1
        left -= own[nearest]
    return codes


def _means(vectors: Floats, count: int, seed: int) -> Floats:
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    if len(vectors) < _MINI_FROM:
        model: Any = KMeans(count, n_init=1, random_state=seed)
    else:
        model = MiniBatchKMeans(count, n_init=1, batch_size=8192, random_state=seed)
    with warnings.catch_warnings():
        # fewer distinct vectors than centroids: some codes then stay unused
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(vectors)
    means: Floats = model.cluster_centers_.astype(np.float32)
    return means


def _nearest(vectors: Floats, centroids: Floats) -> Codes:
    """The place of each vector's nearest centroid, `[N]`; the first of several."""
    squares = (centroids.astype(np.float64) ** 2).sum(axis=1)
    found = np.empty(len(vectors), dtype=np.int64)
    for start in range(0, len(vectors), _BLOCK):
        block = vectors[start : start + _BLOCK].astype(np.float64)
        found[start : start + _BLOCK] = (squares - 2 * block @ centroids.T).argmin(axis=1)
    return found


def read_codes(path: Path, keys: Sequence[str] | pa.Array, levels: int, codes: int) -> Codes:
    """The codes `[items, levels]` of these items from a Parquet file with `key` and `codes`.

    Raises:
        InputError: the file cannot be read; an item has no codes, or not `levels` of them, or one
            that is not between 1 and `codes`; a key stands twice.
    """
    try:
        table = read_columns(path, ("key", "codes"))
    except FileNotFoundError:
        raise InputError(Problem(str(path), "no such file")) from None
    except (OSError, pa.ArrowException) as error:
        raise InputError(Problem(str(path), f"cannot be read: {error}")) from None
    rows = match_keys(path, table["key"], keys, "codes")
    lists = table["codes"].combine_chunks()
    try:
        depth = pc.unique(pc.list_value_length(lists)).to_pylist()
        flat = lists.flatten().cast(pa.int64())
    except pa.ArrowException:
        message = f"its column 'codes' is {lists.type}, lists of whole numbers were expected"
        raise InputError(Problem(str(path), message)) from None
    if depth != [levels]:
        message = f"its items have {' or '.join(map(str, depth))} codes, the settings say {levels}"
        raise InputError(Problem(str(path), message, "set levels to what the file has"))
    found: Codes = flat.fill_null(0).to_numpy(zero_copy_only=False).reshape(-1, levels)[rows]
    wrong = ((found < 1) | (found > codes)).any(axis=1)
    if wrong.any():
        row = int(np.argmax(wrong))
        key = next(iter(keys[row : row + 1]))
        message = f"item {key} has the codes {found[row].tolist()}, expected 1 to {codes}"
        raise InputError(Problem(str(path), message, f"{int(wrong.sum()):,} items are like it"))
    return found


def write_codes(path: Path, keys: Sequence[str], codes: Codes) -> None:
    """Write a Parquet file that `read_codes` reads, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    lists = pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel()), codes.shape[1])
    table = pa.table({"key": list(keys), "codes": lists.cast(pa.list_(pa.int64()))})
    temporary = path.with_name(f".{path.name}.new-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(Problem(str(path), f"cannot be written: {error.strerror}")) from None
    finally:
        temporary.unlink(missing_ok=True)
