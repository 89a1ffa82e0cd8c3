"""Prepared tables -> arrays. Nothing here loops over rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from legoray.data.corpus import Corpus, Split
from legoray.data.ragged import flat, rows_of
from legoray.data.schema import (
    HISTORIES,
    INTERACTIONS,
    MARKS,
    SCHEMA_VERSION,
    SLICES,
    SPLITS,
    WRITTEN,
    Manifest,
)
from legoray.errors import DamagedError, InputError, Problem, unknown
from legoray.records import read_json
from legoray.storage.address import is_address, place, portable
from legoray.storage.folders import fetch

if TYPE_CHECKING:
    import ray

ReadFiles = Callable[[list[Path], list[str]], Iterable[pa.Table]]

RAY_BYTES = 256 << 20  # tables of this size are read by Ray Data in `load_corpus_ray`
_AGAIN = "run `legoray prepare` on the data set"


def read_manifest(tables: Path) -> Manifest:
    """The manifest of prepared tables.

    Raises:
        InputError: there is none, it is damaged, or another version of LegoRay wrote it.
    """
    path = tables / "manifest.json"
    if not path.exists():
        raise InputError(Problem(str(tables), "is not a prepared data set", _AGAIN))
    manifest = read_json(path, Manifest)
    if manifest.schema_version != SCHEMA_VERSION:
        raise InputError(
            Problem(
                str(path),
                f"has schema version {manifest.schema_version}, expected {SCHEMA_VERSION}",
                _AGAIN,
            )
        )
    return manifest


def load_items(
    tables: Path, columns: list[str] | None = None, manifest: Manifest | None = None
) -> pa.Table:
    """The items, sorted by item_id: row i is item i + 1.

    Args:
        tables: folder of prepared tables.
        columns: which; attributes written later among them. All but those where not given.
        manifest: of the tables as it was read before; their own where not given. Whoever names
            something by a manifest's fingerprints must read by the same one.

    Raises:
        InputError: a column does not exist, a file is missing or damaged, or a written attribute
            lacks the texts of some items.
    """
    manifest = manifest or read_manifest(tables)
    known = ["item_id", "key", *manifest.attributes]
    for name in columns or []:
        if name not in known:
            raise InputError(unknown("item attribute", name, known, str(tables)))
    wanted = known if columns is None else columns
    raw = [name for name in wanted if name not in manifest.written]
    files = _files(tables, manifest, "items")
    table = pa.concat_tables(read_files(files, list(dict.fromkeys(["item_id", *raw]))))
    expected = np.arange(1, manifest.counts["items"] + 1)
    if not np.array_equal(table["item_id"].to_numpy(), expected):
        raise DamagedError(_damaged(tables / "items", "its rows are not items 1 to N"))
    if columns is None:
        return table.select(raw)
    return _with_written(table, tables, manifest, columns, expected).select(columns)


def load_users(tables: Path, columns: list[str]) -> pa.Table:
    """Some columns of the users, sorted by user: row i is user i.

    Raises:
        InputError: a column does not exist, or a file is missing or damaged.
    """
    manifest = read_manifest(tables)
    known = ["key", *manifest.user_attributes]
    for name in columns:
        if name not in known:
            raise InputError(unknown("user attribute", name, known, str(tables)))
    raw = [name for name in columns if name not in manifest.written]
    table = pa.concat_tables(read_files(_files(tables, manifest, "users"), ["user", *raw]))
    expected = np.arange(manifest.counts["users"])
    if not np.array_equal(table["user"].to_numpy(), expected):
        raise DamagedError(_damaged(tables / "users", "its rows are not users 0 to U - 1"))
    return _with_written(table, tables, manifest, columns, expected).select(columns)


def _with_written(
    table: pa.Table, tables: Path, manifest: Manifest, names: list[str], numbers: NDArray[Any]
) -> pa.Table:
    """The table with those of some attributes that were written later."""
    for name in dict.fromkeys(n for n in names if n in manifest.written):
        known = manifest.written[name]
        read = pa.concat_tables(read_files([tables / file for file in known.files], WRITTEN.names))
        if not np.array_equal(read["number"].to_numpy(), numbers):
            raise DamagedError(_damaged(tables / known.files[0], "rows are missing"))
        if read["text"].null_count and known.missing == "fail":
            keys = pa.concat_tables(read_files(_files(tables, manifest, known.of), ["key"]))["key"]
            lacking = keys.filter(pc.is_null(read["text"]))
            raise InputError(missing_texts(name, known.of, lacking, len(keys), str(tables)))
        table = table.append_column(name, pc.fill_null(read["text"], ""))
    return table


def missing_texts(name: str, of: str, keys: Any, total: int, where: str) -> Problem:
    """The problem of a written attribute that lacks texts.

    Args:
        name: of the attribute.
        of: items or users.
        keys: of those without a text.
        total: how many there are with and without.
        where: the place to name.
    """
    some = ", ".join(keys[:3].to_pylist())
    message = f"the attribute '{name}' has no text for {len(keys):,} of {total:,} {of}, such as"
    hint = f"write the others, or say `missing: empty` of '{name}' below `attributes` in the YAML"
    return Problem(where, f"{message} {some}", hint)


def load_corpus(tables: Path) -> Corpus:
    """Histories and splits as flat arrays.

    Raises:
        InputError: the tables are missing or damaged.
    """
    return _corpus(tables, read_files)


def load_corpus_ray(tables: Path) -> ray.ObjectRef[Corpus]:
    """The corpus in Ray's object store: workers `ray.get` it without copying.

    A remote task makes the arrays, so that the driver never holds them; where the tables are big it
    reads the shards in parallel by Ray Data.
    """
    from legoray.rayinit import ensure_ray

    ensure_ray()
    import ray

    check_files(tables, read_manifest(tables))
    task = ray.remote(num_cpus=0)(_load_in_task)
    reference: ray.ObjectRef[Corpus] = task.remote(portable(tables))
    return reference


def _load_in_task(tables: str) -> Corpus:
    folder = place(tables)
    fetch(folder)
    size = sum((folder / name).stat().st_size for name in read_manifest(folder).files)
    alone = size < RAY_BYTES or is_address(tables)  # no other node has fetched them
    return _corpus(folder, read_files if alone else _read_by_ray)


def read_files(paths: list[Path], columns: list[str]) -> Iterator[pa.Table]:
    """Each Parquet file as a table when it is asked for, in this process.

    Raises:
        InputError: a file is missing or damaged.
    """
    return (_read_file(path, columns) for path in paths)


def _read_by_ray(paths: list[Path], columns: list[str]) -> Iterator[pa.Table]:
    """The same by Ray Data: one block per file, in order, some of them ahead of their use."""
    from legoray.data.engine import ray_data, stream

    rows = [{"path": str(path)} for path in paths]
    data = ray_data().from_items(rows, override_num_blocks=len(rows))
    tables = data.map_batches(
        _read_batch, batch_size=1, batch_format="pyarrow", fn_kwargs={"columns": columns}
    )
    return stream(tables)


def _read_batch(batch: pa.Table, columns: list[str]) -> pa.Table:
    return _read_file(Path(batch["path"][0].as_py()), columns)


def _corpus(tables: Path, read: ReadFiles) -> Corpus:
    manifest = read_manifest(tables)
    histories = pa.concat_tables(read(_files(tables, manifest, "histories"), HISTORIES.names))
    offsets, items = flat(histories["items"], np.int32)
    if len(histories) != manifest.counts["histories"]:
        raise DamagedError(_damaged(tables / "histories", "rows are missing"))
    users = histories["user"].to_numpy()
    names = [name for name in SPLITS if name in manifest.labeled]
    splits = {name: _split(tables, name, manifest, read, users) for name in names}
    return Corpus(
        name=manifest.name,
        fingerprint=manifest.fingerprint,
        item_count=manifest.counts["items"] + 1,
        history_items=items,
        history_offsets=offsets,
        splits=splits,
        group=manifest.group,
        protocol=dict(manifest.protocol),
    )


def _split(
    tables: Path, name: str, manifest: Manifest, read: ReadFiles, users: np.ndarray
) -> Split:
    folder = f"interactions/{name}"
    files = _files(tables, manifest, folder)
    rows = _Rows(manifest.counts[f"rows/{name}"], tables / folder)
    for table in read(files, INTERACTIONS.names):
        rows.add({field: table[field].to_numpy() for field in INTERACTIONS.names})
    first = rows.whole()
    offsets = np.append(first.pop("start"), len(rows.item))
    item, label = _clicks_first(rows.item, rows.label, offsets)
    clicks = np.add.reduceat(label, offsets[:-1], dtype=np.int32) if len(label) else label
    full_ranking = name in manifest.full_ranking
    if full_ranking and not label.all():
        raise DamagedError(_damaged(tables / folder, "it has rows that are no clicks"))
    return Split(
        impression=first["impression_id"],
        history=first["history_id"],
        history_end=first["history_end"],
        user=users[first["history_id"]],
        time=first["time"],
        offsets=offsets,
        clicks=clicks.astype(np.int32, copy=False),
        item=item,
        label=label,
        labeled=manifest.labeled[name],
        full_ranking=full_ranking,
        slices=_slices(tables, name, manifest, read, first["impression_id"]),
    )


class _Rows:
    """The rows of a split as they come, table by table; of an impression's columns one value."""

    def __init__(self, total: int, folder: Path) -> None:
        self.item = np.empty(total, np.int32)
        self.label = np.empty(total, np.int8)
        self._folder = folder
        self._read = 0
        self._first: dict[str, list[np.ndarray]] = {name: [] for name in _OF_IMPRESSIONS}
        self._last: int | None = None

    def add(self, column: dict[str, np.ndarray]) -> None:
        """The next rows."""
        identity = column["impression_id"]
        if not len(identity):
            return
        end = self._read + len(identity)
        if end > len(self.item):
            raise DamagedError(_damaged(self._folder, "it has too many rows"))
        self.item[self._read : end] = column["item_id"]
        self.label[self._read : end] = column["label"]
        new = np.append(identity[0] != self._last, identity[1:] != identity[:-1])
        at = np.flatnonzero(new)
        for name, values in self._first.items():
            values.append(at + self._read if name == "start" else column[name][at])
        self._read, self._last = end, int(identity[-1])

    def whole(self) -> dict[str, np.ndarray]:
        """What the impressions have, `start` among it: where each one's rows begin."""
        if self._read != len(self.item):
            raise DamagedError(_damaged(self._folder, "rows are missing"))
        return {
            name: np.concatenate([np.zeros(0, _OF_IMPRESSIONS[name]), *values])
            for name, values in self._first.items()
        }


_OF_IMPRESSIONS = {
    "start": np.int64,
    "impression_id": np.int64,
    "history_id": np.int32,
    "history_end": np.int32,
    "time": np.int64,
}


def _slices(
    tables: Path, split: str, manifest: Manifest, read: ReadFiles, impressions: np.ndarray
) -> dict[str, NDArray[np.bool_]]:
    """Slice -> which impressions of the split belong to it; none where the tables have no slices.

    A slice without an impression takes no place in memory.
    """
    folder = f"slices/{split}"
    files = _files(tables, manifest, folder)
    if not files:
        return {}
    marks = pa.concat_tables(read(files, MARKS.names))
    if not np.array_equal(marks["impression_id"].to_numpy(), impressions):
        raise DamagedError(_damaged(tables / folder, "its rows are not the split's impressions"))
    columns = {name: marks[name].to_numpy() for name in SLICES}
    return {name: marked for name, marked in columns.items() if marked.any()}


def _clicks_first(item: Any, label: Any, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows with clicks first in each impression; tables that LegoRay wrote have them so already."""
    rising = label[1:] > label[:-1]
    rising[offsets[1:-1] - 1] = False
    if not rising.any():
        return item, label
    order = np.lexsort((-label, rows_of(offsets)))
    return item[order], label[order]


def table_files(tables: Path, table: str) -> list[str]:
    """The Parquet files of a table as they lie there, relative to the folder of all tables."""
    return [str(path.relative_to(tables)) for path in sorted((tables / table).rglob("*.parquet"))]


def _files(tables: Path, manifest: Manifest, folder: str) -> list[Path]:
    return [tables / name for name in sorted(manifest.files) if name.startswith(f"{folder}/")]


def _read_file(path: Path, columns: list[str]) -> pa.Table:
    try:
        # One thread of decoding per file: whoever wants more reads several files at once.
        return pq.ParquetFile(path).read(columns=columns)
    except FileNotFoundError:
        raise DamagedError(_damaged(path, "is missing")) from None
    except (pa.ArrowException, OSError) as error:
        raise DamagedError(_damaged(path, str(error).splitlines()[0])) from None


def check_files(tables: Path, manifest: Manifest) -> None:
    """Whether every Parquet file is there with its last bytes, which are written last.

    Raises:
        InputError: one is not.
    """
    later = [name for table in manifest.written.values() for name in table.files]
    broken = [name for name in (*manifest.files, *later) if not _intact(tables / name)]
    if broken:
        raise DamagedError(*[_damaged(tables / name, "is missing or cut short") for name in broken])


def _intact(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(-4, 2)
            return file.read() == b"PAR1"
    except OSError:
        return False


def _damaged(path: Path, why: str) -> Problem:
    return Problem(
        str(path),
        f"prepared table is damaged: {why}",
        f"delete the prepared folder and {_AGAIN} again",
    )
