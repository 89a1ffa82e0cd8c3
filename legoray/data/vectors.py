"""Files of one vector per item, in every form in which they come; no pickle.

`.npy`           `[items, W]` in the order of the items
`.parquet`       columns `key` and `vector` (a list of numbers), in any order
`.safetensors`   a tensor `vectors [N, W]` and its keys: a JSON list as `keys` in the file's
                 metadata, or beside it in `<name>.keys.json`

Keys are those of the data set's items. Rows of other keys are allowed and left out; an item without
a vector, a key that stands twice and a number that is none are errors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from legoray.errors import InputError, Problem
from legoray.records import SHARED

SUFFIXES = (".npy", ".parquet", ".safetensors")
_SHOWN = 3  # keys in an error
_METADATA = 32 << 20  # bytes of keys that a file's own header may hold


def read_vectors(path: Path, keys: Sequence[str] | pa.Array) -> NDArray[np.float32]:
    """The vectors `[items, W]` of these items, in their order.

    Args:
        path: a file of one of the forms above.
        keys: of the data set's items.

    Raises:
        InputError: the file cannot be read or is of another form; an item has no vector; a key
            stands twice; a number is NaN or infinite.
    """
    items = _strings(keys)
    try:
        found = _READERS[path.suffix](path, items)
    except KeyError:
        raise _wrong(path, "is no file of vectors", f"expected {', '.join(SUFFIXES)}") from None
    except FileNotFoundError:
        raise _wrong(path, "no such file") from None
    except (OSError, ValueError, EOFError, SafetensorError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise _wrong(path, f"cannot be read: {reason}") from None
    finite = np.isfinite(found).all(axis=1)
    if not finite.all():
        bad = items[int(np.argmin(finite))].as_py()
        message = f"the vector of item {bad} has a NaN or infinite number"
        raise _wrong(path, f"{message} ({int((~finite).sum()):,} items have one)")
    return found


def write_vectors(
    path: Path, keys: Sequence[str], vectors: Tensor, note: dict[str, str] | None = None
) -> None:
    """Write a safetensors file that `read_vectors` reads, whole or not at all.

    Args:
        path: where to.
        keys: `[N]` of the items.
        vectors: `[N, W]`.
        note: what else the file's metadata should say.

    Raises:
        InputError: the file cannot be written.
    """
    listed = json.dumps(list(keys), ensure_ascii=False)
    inside = len(listed.encode()) <= _METADATA
    metadata = {**(note or {}), **({"keys": listed} if inside else {})}
    temporary = path.with_name(f".{path.name}.new-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"vectors": vectors.float().contiguous()}, temporary, metadata)
        temporary.chmod(SHARED)
        if not inside:  # only now that there is space for the vectors
            _beside(path).write_text(listed, encoding="utf-8")
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _wrong(path, f"cannot be written: {reason}") from None
    finally:
        temporary.unlink(missing_ok=True)


def match_keys(path: Path, given: Any, keys: Any, what: str) -> NDArray[np.int64]:
    """The row of each item in a file.

    Args:
        path: the file, for errors.
        given: the file's keys.
        keys: of the data set's items.
        what: an item should have, such as `vector`.

    Raises:
        InputError: an item has no row; a key stands twice.
    """
    own, items = _strings(given), _strings(keys)
    counts = pc.value_counts(own)
    twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if len(twice):
        raise _wrong(path, f"{len(twice):,} keys stand twice, such as {_some(twice)}")
    rows = pc.index_in(items, value_set=own)
    if rows.null_count:
        missing = items.filter(rows.is_null())
        strange = len(own) - (len(items) - len(missing))
        raise _wrong(
            path,
            f"{len(missing):,} of {len(items):,} items have no {what}, such as {_some(missing)}",
            f"{strange:,} of its {len(own):,} keys are of no item"
            + (f", such as {_some(_strangers(own, items))}" if strange else ""),
        )
    found: NDArray[np.int64] = rows.to_numpy(zero_copy_only=False).astype(np.int64)
    return found


def _npy(path: Path, items: pa.Array) -> NDArray[np.float32]:
    # copy-on-write: torch wants writable memory, and the file must never change
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except ValueError as error:  # numpy takes everything that it does not know for a pickle
        reason = "it is no array of numbers" if "pickle" in str(error) else str(error)
        raise _wrong(path, f"cannot be read: {reason}") from None
    if len(array.shape) == 2 and len(array) != len(items):
        hint = "its rows are the items in their order; give keys in a Parquet file if they are not"
        raise _wrong(path, f"has {len(array):,} rows, the data set has {len(items):,} items", hint)
    return _numbers(path, array)


def _parquet(path: Path, items: pa.Array) -> NDArray[np.float32]:
    table = read_columns(path, ("key", "vector"))
    rows = match_keys(path, table["key"], items, "vector")
    column = table["vector"].combine_chunks()
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        if not pa.types.is_fixed_size_list(column.type):
            raise _wrong(path, f"its column 'vector' is {column.type}, lists were expected")
        column = column.cast(pa.list_(column.type.value_type))
    widths = pc.unique(pc.list_value_length(column))
    if len(widths) > 1 or widths.null_count:
        raise _wrong(path, f"its vectors have different widths: {_some(widths)}")
    flat = column.flatten().cast(pa.float32()).fill_null(float("nan"))
    array = flat.to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return _numbers(path, array[rows])


def _safetensors(path: Path, items: pa.Array) -> NDArray[np.float32]:
    with safe_open(path, framework="pt") as file:
        if "vectors" not in file.keys():  # noqa: SIM118 - it is no mapping
            held = ", ".join(file.keys()) or "nothing"
            raise _wrong(path, "has no tensor 'vectors'", f"it has: {held}")
        listed = (file.metadata() or {}).get("keys")
        vectors = file.get_tensor("vectors")
    keys = json.loads(listed if listed is not None else _keys_beside(path))
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise _wrong(path, "its keys are no JSON list of strings")
    if vectors.ndim == 2 and len(keys) != len(vectors):
        raise _wrong(path, f"has {len(keys):,} keys and {len(vectors):,} vectors")
    rows = match_keys(path, keys, items, "vector")
    if not vectors.is_floating_point():
        raise _wrong(path, f"its numbers are {vectors.dtype}, floating point was expected")
    if len(rows) == len(vectors) and (rows == np.arange(len(rows))).all():
        return _numbers(path, vectors.float().numpy())
    return _numbers(path, vectors[torch.from_numpy(rows)].float().numpy())


def read_columns(path: Path, names: Sequence[str]) -> pa.Table:
    """Some columns of a Parquet file, none of which may have a null.

    Raises:
        InputError: a column is missing or has a null.
    """
    file = pq.ParquetFile(path)
    lacking = [name for name in names if name not in file.schema_arrow.names]
    if lacking:
        held = ", ".join(file.schema_arrow.names)
        raise _wrong(path, f"has no column '{lacking[0]}'", f"it has: {held}")
    table = file.read(columns=list(names))
    for name in names:
        if table[name].null_count:
            raise _wrong(path, f"{table[name].null_count:,} rows have no '{name}'")
    return table


def _numbers(path: Path, array: NDArray[Any]) -> NDArray[np.float32]:
    if array.ndim != 2 or not array.shape[1]:
        raise _wrong(path, f"has the shape {list(array.shape)}, expected [items, width]")
    if array.dtype.kind != "f":
        raise _wrong(path, f"its numbers are {array.dtype}, floating point was expected")
    return np.asarray(array, dtype=np.float32)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}.keys.json")


def _keys_beside(path: Path) -> str:
    try:
        return _beside(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        hint = f"neither in its metadata as 'keys' nor in {_beside(path).name}"
        raise _wrong(path, "has no keys", hint) from None


def _strings(values: Any) -> pa.Array:
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else pa.array(values)
    return array.cast(pa.string())


def _strangers(own: pa.Array, items: pa.Array) -> pa.Array:
    return own.filter(pc.invert(pc.is_in(own, value_set=items)))


def _some(values: pa.Array) -> str:
    return ", ".join(str(value) for value in values[:_SHOWN].to_pylist())


def _wrong(path: Path, message: str, hint: str = "") -> InputError:
    return InputError(Problem(str(path), message, hint))


_READERS = {".npy": _npy, ".parquet": _parquet, ".safetensors": _safetensors}
