"""MIND's news: those of all parts, each once, without holding their texts.

Blocks are kept on disk as they are parsed; which rows are used is decided by the ids alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from legoray.data.badrows import repeated
from legoray.data.engine import shard_name
from legoray.data.lines import (
    BLOCK,
    LINE,
    PLACE,
    Block,
    Layout,
    blocks_of,
    line_number,
    mark,
    read_fields,
)
from legoray.data.processors.base import Run, as_array
from legoray.data.tables import read_folder

NEWS = Layout(
    ("id", "category", "subcategory", "title", "abstract", "url", "title entities",
     "abstract entities"), "\t", "tabs",
)  # fmt: skip
ATTRIBUTES = ("title", "abstract", "category", "subcategory")
_KNOWN = "id stands in an earlier part"


def merged_news(
    run: Run, files: Mapping[str, Path], scratch: Path, counts: dict[str, int]
) -> Iterator[pa.Table]:
    """`id` and `ATTRIBUTES` of all news, some at a time; of an id the first row counts.

    Args:
        run: for its engine and its bad rows.
        files: part -> its news.tsv.
        scratch: an empty folder.
        counts: takes how many news each part has; they are whole after the last table.

    Raises:
        InputError: there are bad rows that may not be left out.
    """
    earlier = pa.array([], pa.string())
    for part, path in files.items():
        blocks = _keep(run, path, scratch / part)
        column = read_folder(scratch / part, ["id"])["id"]
        ids, doubled = as_array(column), repeated(column)
        known = pc.is_in(ids, value_set=earlier)
        earlier = pa.concat_arrays([earlier, ids.drop_null()]).unique()
        counts[f"raw/items/{part}"], start = 0, 0
        for block in blocks:
            rows = pq.read_table(block)
            rows = rows.append_column(_KNOWN, known.slice(start, len(rows)))
            again = doubled.slice(start, len(rows))
            start += len(rows)
            rows = mark(rows, again, "news id '{value}' stands twice", "id")
            rows = run.bad_rows.good(rows, path)
            counts[f"raw/items/{part}"] += len(rows)
            yield rows.filter(pc.invert(rows[_KNOWN])).drop_columns([_KNOWN])


def place_of(files: Mapping[str, Path], key: str) -> str:
    """Where a news of this id stands: file and line."""
    for path in files.values():
        for block in blocks_of(path):
            rows = read_fields(block, NEWS)
            at = pc.index(rows["id"], key).as_py()
            if at >= 0:
                line = line_number(path, rows[BLOCK][at].as_py(), rows[LINE][at].as_py())
                return f"{path}:{line}"
    return key


def _keep(run: Run, path: Path, folder: Path) -> list[Path]:
    """Parse a file's blocks into files of a folder."""
    folder.mkdir()
    kept = []
    for number, rows in enumerate(run.engine.map(_parse_news, blocks_of(path))):
        kept.append(folder / shard_name(number))
        pq.write_table(rows, kept[-1])
    return kept


def _parse_news(block: Block) -> pa.Table:
    rows = read_fields(block, NEWS)
    rows = mark(rows, pc.equal(rows["id"], ""), "the news id is empty", "id")
    return rows.select(["id", *ATTRIBUTES, *PLACE])
