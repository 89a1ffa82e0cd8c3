"""`legoray attributes`: what may be read of a data set's items and users, and where it is from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from legoray.data.load import load_items, load_users, read_files
from legoray.data.prepare import prepare
from legoray.data.schema import Manifest, WrittenTable

SHOWN = 60  # characters of an example
HEADS = ("attribute", "of", "have a text", "from", "example")


def print_attributes(dataset: Path, console: Console, say: Callable[[str], None]) -> None:
    """Prepare a data set and list its attributes; those that are read by default are starred.

    Raises:
        InputError: as `prepare`.
    """
    prepared = prepare(dataset, say=say)
    manifest = prepared.manifest
    table = Table(*HEADS, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows_of(prepared.tables, manifest):
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    read = ", ".join(manifest.text)
    say(f"* read by default (`text: [{read}]` in {dataset}); any of the items' may stand there")


def rows_of(tables: Path, manifest: Manifest) -> Iterator[tuple[str, ...]]:
    """One row per attribute, as `HEADS`."""
    of = {"items": manifest.attributes, "users": manifest.user_attributes}
    for kind, names in of.items():
        for name in names:
            known = manifest.written.get(name)
            texts = _texts(tables, name, kind, known)
            some = texts.filter(pc.fill_null(pc.not_equal(texts, ""), False))
            share = f"{len(some):,} of {len(texts):,} ({_percent(len(some), len(texts))})"
            star = "*" if kind == "items" and name in manifest.text else ""
            example = some[0].as_py() if len(some) else ""
            yield name + star, kind, share, origin(known), _cut(example)


def origin(table: WrittenTable | None) -> str:
    """Where the texts of an attribute are from."""
    if table is None:
        return "the data"
    known = table.provenance
    if table.made == "attached":
        return f"{known.file} (sha256 {known.sha256[:8]})"
    parts = [f"{known.model}@{known.revision[:12]}" if known.revision else known.model]
    parts += [f"prompt {known.prompt} {known.prompt_sha256[:8]}".rstrip()] if known.prompt else []
    parts += [f"seed {known.seed}"] if known.seed is not None else []
    return ", ".join(part for part in parts if part) or "generated"


def _texts(tables: Path, name: str, of: str, known: WrittenTable | None) -> Any:
    """A column as it stands; null where nobody wrote a text."""
    if known is not None:
        files = [tables / file for file in known.files]
        return pa.concat_tables(read_files(files, ["text"]))["text"]
    return (load_items if of == "items" else load_users)(tables, [name])[name]


def _percent(part: int, total: int) -> str:
    """Rounded down, so that 100% means all."""
    return f"{100 * part // max(total, 1)}%"


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 3].rstrip() + "..."
