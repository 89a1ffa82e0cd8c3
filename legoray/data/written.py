"""Attributes that were written later: a language model's summaries, or texts from elsewhere.

    <home>/written/<data set>/<attribute>/meta.json        WrittenMeta: where the texts are from
    <home>/written/<data set>/<attribute>/parts/*.parquet  key, source, text, status

`key` is an item's or user's key in the raw files, `source` a digest of all that decides the text
(the filled-in prompt, the model, its settings), `status` one of `STATUSES`: a `too_long` question
was more than the model reads. Parts are written whole
or not at all and never changed; where a key stands in several, the last one holds. `prepare` makes
of them a table beside the items (`legoray.data.attributes`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock
from pydantic import Field

from legoray.config import Attribute, Strict
from legoray.data.fingerprint import hash_columns
from legoray.errors import DamagedError, InputError, Problem
from legoray.records import SHARED, digest, read_json, write_json

STATUSES = ("written", "refused", "empty", "too_long")
COLUMNS = pa.schema([(name, pa.string()) for name in ("key", "source", "text", "status")])
_META, _PARTS = "meta.json", "parts"


class Provenance(Strict):
    """Where the texts of an attribute are from. What does not apply is empty."""

    model: str = ""  # catalogue name, folder, hub id or the endpoint's model
    revision: str = ""
    weights: str = ""  # checksum
    prompt: str = ""  # name
    prompt_text: str = ""  # system and user text, with attribute names in braces
    prompt_sha256: str = ""
    seed: int | None = None
    settings: dict[str, Any] = Field(default_factory=dict)  # of generation: plain data
    file: str = ""  # of attached texts
    sha256: str = ""


class WrittenMeta(Strict):
    """`meta.json`: what an attribute is, and how it was made."""

    attribute: Attribute
    of: Literal["items", "users"] = "items"
    made: Literal["generated", "attached"] = "generated"
    provenance: Provenance = Provenance()
    counts: dict[str, int] = Field(default_factory=dict)  # texts by status, cut, ...
    # of which data: key -> attribute -> digest (`legoray.data.evidence`); empty in older ones
    evidence: dict[str, dict[str, str]] = Field(default_factory=dict)


def written_folder(home: Path, dataset: str, attribute: str) -> Path:
    """The folder of one attribute; it need not be there."""
    return home / "written" / dataset / attribute


def list_written(home: Path, dataset: str) -> list[str]:
    """The names of the attributes that were written for a data set, in order."""
    return sorted(path.parent.name for path in (home / "written" / dataset).glob(f"*/{_META}"))


def read_meta(folder: Path) -> WrittenMeta:
    """What `write_meta` wrote.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        return read_json(folder / _META, WrittenMeta)
    except InputError as error:
        hint = f"put it back, or move {folder} away: nothing else says what wrote these texts"
        raise InputError(*[Problem(p.where, p.message, hint) for p in error.problems]) from None


def write_meta(folder: Path, meta: WrittenMeta) -> None:
    """Write `meta.json`; what stood there is replaced.

    Raises:
        InputError: the attribute's name is not its folder's, or the folder cannot be written.
    """
    if meta.attribute != folder.name:
        raise InputError(Problem(str(folder), f"is not the folder of '{meta.attribute}'"))
    write_json(folder / _META, meta)


def write_part(folder: Path, table: pa.Table) -> Path:
    """Add texts, whole or not at all; the same keys from the same sources are not written twice.

    Args:
        folder: of the attribute.
        table: the columns of `COLUMNS`, in any order, without nulls; a key stands once.

    Returns:
        The part's file.

    Raises:
        InputError: the table is not like that, or the folder cannot be written.
    """
    table = _checked(folder, table)
    named = digest([table["key"].to_pylist(), table["source"].to_pylist()], 24)
    parts = folder / _PARTS
    try:
        parts.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            known = part_files(folder)
            same = [path for path in known if path.stem.partition("-")[2] == named]
            if same and not _overwritten(table["key"], known[known.index(same[-1]) + 1 :]):
                return same[-1]
            last = int(known[-1].stem.partition("-")[0]) if known else -1
            path = parts / f"{last + 1:06d}-{named}.parquet"
            _write(path, table)
            return path
    except OSError as error:
        raise InputError(Problem(str(parts), f"cannot be written: {error.strerror}")) from None


def _overwritten(keys: pa.ChunkedArray, later: list[Path]) -> bool:
    """Whether a later part has one of these keys."""
    own = keys.combine_chunks()
    columns = (pq.ParquetFile(path).read(columns=["key"])["key"] for path in later)
    return any(pc.any(pc.is_in(column, value_set=own)).as_py() for column in columns)


def _write(path: Path, table: pa.Table) -> None:
    temporary = path.with_name(f".new-{os.getpid()}-{path.name}")
    try:
        pq.write_table(table, temporary, compression="zstd")
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(SHARED)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def part_files(folder: Path) -> list[Path]:
    """The parts of an attribute, oldest first."""
    return sorted((folder / _PARTS).glob("[0-9]*.parquet"))


def read_written(folder: Path) -> pa.Table:
    """All texts of an attribute, sorted by key: the last part that has a key holds.

    Raises:
        DamagedError: parts cannot be read; all of them are named.
    """
    tables, problems = [], []
    for path in part_files(folder):
        try:
            tables.append(pq.ParquetFile(path).read(columns=COLUMNS.names).cast(COLUMNS))
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            problems.append(_damaged(path, (str(error).splitlines() or [""])[0]))
    if problems:
        raise DamagedError(*problems)
    return _last(pa.concat_tables([COLUMNS.empty_table(), *tables]))


def fingerprint_of(table: pa.Table) -> str:
    """SHA-256 of the texts that were written, by key; refused and empty ones do not count."""
    fine = table.filter(pc.equal(table["status"], "written")).sort_by("key")
    return hash_columns({name: fine[name] for name in ("key", "text")})


def _last(table: pa.Table) -> pa.Table:
    """The last row of each key, sorted by key."""
    backwards = table.take(pa.array(np.arange(len(table))[::-1].copy()))
    codes = pc.dictionary_encode(backwards["key"].combine_chunks()).indices
    _, first = np.unique(codes.to_numpy(zero_copy_only=False), return_index=True)
    return backwards.take(pa.array(first)).sort_by("key").combine_chunks()


def _checked(folder: Path, table: pa.Table) -> pa.Table:
    """The table with its columns in order.

    Raises:
        InputError: a column is missing or has a null, a key stands twice, a status is unknown.
    """
    where = str(folder)
    lacking = [name for name in COLUMNS.names if name not in table.column_names]
    if lacking:
        raise InputError(Problem(where, f"the texts have no column '{lacking[0]}'"))
    table = table.select(COLUMNS.names).cast(COLUMNS)
    nulls = [name for name in COLUMNS.names if table[name].null_count]
    if nulls:
        raise InputError(Problem(where, f"a text has no {nulls[0]}"))
    if len(pc.unique(table["key"])) < len(table):
        raise InputError(Problem(where, "a key stands twice in one part"))
    strange = set(pc.unique(table["status"]).to_pylist()) - set(STATUSES)
    if strange:
        known = ", ".join(STATUSES)
        raise InputError(Problem(where, f"'{min(strange)}' is no status", f"known: {known}"))
    return table


def _damaged(path: Path, why: str) -> Problem:
    hint = "delete the file and write its texts again"
    return Problem(str(path), f"part of a written attribute is damaged: {why}", hint)
