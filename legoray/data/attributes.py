"""Attributes that were written later, beside the tables: each a column of its own.

They come from a file that the data set's YAML attaches, or from `<home>/written/<data set>` where
`legoray augment` leaves them. `<tables>/attributes/<name>-<fingerprint>/` holds one text per item
(or user) in their order, null where nobody wrote one. The fingerprint of the tables themselves
stays as it is: interactions are the same whatever is written about the items.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from legoray.config import WrittenSource
from legoray.data.badrows import BadRows, Policy
from legoray.data.evidence import contradicts
from legoray.data.fingerprint import hash_columns, sha256_file
from legoray.data.load import missing_texts
from legoray.data.processors.keyed import read_keyed
from legoray.data.schema import WRITTEN, Manifest, SourceFile, WrittenTable
from legoray.data.tables import read_folder
from legoray.data.written import Provenance, part_files, read_meta, read_written
from legoray.errors import InputError, Problem
from legoray.records import SHARED, digest

Say = Callable[[str], None]
TAKEN = ("item_id", "key", "user")
LEFT = 3600.0  # seconds for which replaced texts stay, for whoever opens them just now


@dataclass(frozen=True)
class Source:
    """Where some attributes are from."""

    asked: WrittenSource
    where: str  # the place to name: a line of the YAML, or the folder
    files: tuple[Path, ...]  # all that decides the texts
    base: Path  # folder that the manifest names the files relative to
    made: Literal["attached", "generated"]
    wanted: bool = True  # else it is left out, with a word, where it is not as it must be

    @property
    def names(self) -> list[str]:
        """The attributes."""
        return [self.asked.name] if self.asked.name else list(self.asked.named())

    @property
    def hash(self) -> str:
        """Of what the YAML says of them."""
        return digest([self.made, self.asked.model_dump()])


@dataclass(frozen=True)
class Texts:
    """What a source has of one attribute; keys stand once."""

    keys: pa.Array
    texts: pa.Array
    counts: dict[str, int]
    provenance: Provenance


def generated(
    folder: Path, asked: WrittenSource | None, where: str = "", *, wanted: bool = True
) -> Source:
    """The source of an attribute that `legoray augment` wrote.

    Args:
        folder: where it is kept.
        asked: what the YAML says of it.
        where: the line of the YAML.
        wanted: whether anything names it.

    Raises:
        InputError: what is known of it is missing or damaged.
    """
    meta = read_meta(folder)
    missing = asked.missing if asked else "fail"
    asked = WrittenSource(name=meta.attribute, of=meta.of, missing=missing)
    files = (folder / "meta.json", *part_files(folder))
    return Source(asked, where or str(folder), files, folder, "generated", wanted)


def left_out(name: str, error: InputError) -> str:
    """One line on a written attribute that nothing names and that is not as it must be."""
    return f"attribute '{name}' is left out, as nothing reads it now: {error.problems[0]}"


def check_sources(sources: Sequence[Source], raw: Sequence[str]) -> None:
    """Refuse written attributes under names that are taken.

    Args:
        sources: of all written attributes.
        raw: the attributes of the raw data.

    Raises:
        InputError: all of them.
    """
    problems, seen = [], dict.fromkeys((*TAKEN, *raw), "the data's own")
    for source in sources:
        advice = "give it another name: `columns: {column: name}`"
        if source.made == "generated":
            advice = f"rename the one of the data, or remove {source.base} and write it with --as"
        for name in source.names:
            if name in seen:
                message = f"'{name}' cannot be a written attribute: the name is {seen[name]}"
                problems.append(Problem(source.where, message, advice))
            seen[name] = f"that of another one ({source.where})"
    if problems:
        raise InputError(*problems)


def unchanged(sources: Sequence[Source], manifest: Manifest) -> dict[str, WrittenTable] | None:
    """The manifest's written attributes if the sources are as they were, else None."""
    found: dict[str, WrittenTable] = {}
    for source in sources:
        for name in source.names:
            known = manifest.written.get(name)
            if known is None or known.config_hash != source.hash:
                return None
            files = same_files(known.sources, source.files, source.base)
            if files is None:
                return None
            found[name] = known.model_copy(update={"sources": files})
    return found if found.keys() == manifest.written.keys() else None


def same_files(
    known: Sequence[SourceFile], paths: Sequence[Path], base: Path
) -> list[SourceFile] | None:
    """The files as they are now if their content is as it was, else None."""
    before = {source.path: source for source in known}
    now = []
    for path in dict.fromkeys(paths):
        old = before.pop(os.path.relpath(path, base), None)
        state = path.stat()
        if old is None or old.size != state.st_size:
            return None
        if old.mtime_ns != state.st_mtime_ns:
            if sha256_file(path) != old.sha256:
                return None
            old = old.model_copy(update={"mtime_ns": state.st_mtime_ns})
        now.append(old)
    return None if before else now


def source_file(path: Path, base: Path) -> SourceFile:
    """A file as the manifest keeps it."""
    state = path.stat()
    return SourceFile(
        path=os.path.relpath(path, base),
        size=state.st_size,
        mtime_ns=state.st_mtime_ns,
        sha256=sha256_file(path),
    )


def attach(
    sources: Sequence[Source], manifest: Manifest, tables: Path, policy: Policy, say: Say
) -> dict[str, WrittenTable]:
    """Make the tables of all written attributes, but for those that are as they were.

    Args:
        sources: of all of them.
        manifest: of the tables.
        tables: their folder, perhaps not in its place yet.
        policy: what becomes of bad rows.
        say: told what is attached.

    Raises:
        InputError: a source is not as it must be, or items have no text where they must.
    """
    raw = {name for name in manifest.attributes if name not in manifest.written}
    raw |= {name for name in manifest.user_attributes if name not in manifest.written}
    check_sources(sources, sorted(raw))
    keys = {of: read_folder(tables / of, ["key"])["key"] for of in {s.asked.of for s in sources}}
    found: dict[str, WrittenTable] = {}
    for source in sources:
        kept = {n: manifest.written[n] for n in source.names if n in manifest.written}
        same = unchanged([source], manifest.model_copy(update={"written": kept}))
        try:
            if not same:
                _check_of_these(source, tables, manifest)
            found |= same or _attached(source, keys[source.asked.of], tables, policy, say)
        except InputError as error:
            if source.wanted:
                raise
            say(left_out(source.names[0], error))
    _tidy(tables, found)
    return found


def _tidy(tables: Path, found: dict[str, WrittenTable]) -> None:
    """Remove texts that nothing names any more, and that no other process can be reading now."""
    used = {Path(file).parent.name for table in found.values() for file in table.files}
    for folder in (tables / "attributes").glob("*"):
        if folder.name not in used and time.time() - folder.stat().st_mtime > LEFT:
            shutil.rmtree(folder, ignore_errors=True)


def _check_of_these(source: Source, tables: Path, manifest: Manifest) -> None:
    """Refuse texts that were written for another data set of this name.

    Raises:
        InputError: they were.
    """
    if source.made == "attached":
        return
    if contradicts(read_meta(source.base).evidence, tables, manifest):
        raise InputError(of_other_data(source.where, source.base))


def of_other_data(where: str, folder: Path) -> Problem:
    """What is told of texts that were written for another data set of the same name."""
    message = f"'{folder.name}' was written for other data of the name '{folder.parent.name}'"
    return Problem(where, message, f"give one of the two another `name`, or remove {folder}")


def _attached(
    source: Source, keys: pa.ChunkedArray, tables: Path, policy: Policy, say: Say
) -> dict[str, WrittenTable]:
    files = [source_file(path, source.base) for path in source.files]
    own = keys.combine_chunks()
    read = _of_parts(source) if source.made == "generated" else _of_file(source, files, policy, say)
    found = {}
    for name, given in read.items():
        texts, counts = _aligned(name, given, own, source)
        table = WrittenTable(
            of=source.asked.of,
            made=source.made,
            fingerprint=hash_columns({"text": pc.fill_null(texts, "")}),
            missing=source.asked.missing,
            counts=counts,
            provenance=given.provenance,
            config_hash=source.hash,
            sources=files,
            files=[],
        )
        found[name] = table.model_copy(update={"files": [_write(name, texts, table, tables)]})
        say(told(name, table))
    return found


def _aligned(
    name: str, given: Texts, own: pa.Array, source: Source
) -> tuple[pa.Array, dict[str, int]]:
    """The texts in the order of the items' or users' keys, null where there is none; counts.

    Raises:
        InputError: no key is known, or a text is missing where none may.
    """
    known = pc.is_in(given.keys, value_set=own)
    if len(known) and not pc.any(known).as_py():
        message = f"none of its {len(known):,} keys is one of the {source.asked.of}'"
        hint = "is the right column named as `key`?"
        if source.made == "generated":
            hint = of_other_data("", source.base).hint
            message += ": it was written for other data of this name"
        raise InputError(Problem(source.where, message, hint))
    texts = given.texts.take(pc.index_in(own, value_set=given.keys))
    texts = pc.if_else(pc.equal(pc.utf8_trim_whitespace(texts), ""), None, texts)
    if texts.null_count and source.made == "attached" and source.asked.missing == "fail":
        lacking = own.filter(pc.is_null(texts))
        raise InputError(missing_texts(name, source.asked.of, lacking, len(own), source.where))
    counts = {
        "texts": len(texts) - texts.null_count,
        "missing": texts.null_count,
        "unknown_keys": len(known) - (pc.sum(known).as_py() or 0),
    }
    return texts, counts | given.counts


def told(name: str, table: WrittenTable) -> str:
    """One line on a written attribute: how much of it there is."""
    counts = table.counts
    total = counts["texts"] + counts["missing"]
    line = f"attribute '{name}' ({table.made}): {counts['texts']:,} of {total:,} {table.of}"
    more = {k: n for k, n in counts.items() if n and k not in ("texts", "missing", "written")}
    rest = ", ".join(f"{k.replace('_', ' ')}: {n:,}" for k, n in sorted(more.items()))
    line += " have a text" if counts["missing"] else ", all of them, have a text"
    return f"{line}; {rest}" if rest else line


def _of_parts(source: Source) -> dict[str, Texts]:
    """What was generated; what was refused or left empty counts as missing."""
    meta, table = read_meta(source.base), read_written(source.base)
    statuses = pc.value_counts(table["status"]).to_pylist()
    counts = {row["values"]: row["counts"] for row in statuses}
    fine = table.filter(pc.equal(table["status"], "written")).combine_chunks()
    keys, texts = (_array(fine[name]) for name in ("key", "text"))
    return {meta.attribute: Texts(keys, texts, counts, meta.provenance)}


def _of_file(
    source: Source, files: Sequence[SourceFile], policy: Policy, say: Say
) -> dict[str, Texts]:
    """The columns of a file, keyed; bad rows are refused or left out."""
    asked, path = source.asked, source.files[0]
    bad = BadRows(policy, say)
    keys, texts = read_keyed(path, str(asked.key), asked.named(), asked, bad)
    origin = Provenance(file=files[0].path, sha256=files[0].sha256)
    counts = bad.drain()
    return {name: Texts(keys, text, counts, origin) for name, text in texts.items()}


def _array(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece, even where it has no chunk."""
    return pa.concat_arrays([pa.array([], column.type), *column.chunks]).cast(pa.string())


def _write(name: str, texts: pa.Array, table: WrittenTable, tables: Path) -> str:
    """Write the texts of an attribute, whole or not at all; the file, relative to the tables."""
    file = Path("attributes") / f"{name}-{table.fingerprint[:8]}" / "part-00000.parquet"
    path = tables / file
    path.parent.mkdir(parents=True, exist_ok=True)
    first = 1 if table.of == "items" else 0
    numbers = np.arange(first, first + len(texts), dtype=np.int32)
    temporary = path.with_name(f".new-{os.getpid()}-{path.name}")
    try:
        made = pa.table({"number": numbers, "text": texts}, schema=WRITTEN)
        pq.write_table(made, temporary, compression="zstd")
        temporary.chmod(SHARED)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return str(file)
