"""Big text files, read in blocks of whole lines and split into fields by whole-array operations.

Blocks are cut by byte ranges alone, so that any worker reads any block without the others. A line
belongs to the block in which it begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

BLOCK_BYTES = 16 << 20

# What a parsed row carries besides its values: where it stood, and what is wrong with it. No file's
# own column should have such a name; `line` and `problem` it may have.
BLOCK, LINE, PROBLEM = PLACE = ("block of the row", "line of the row", "problem of the row")


@dataclass(frozen=True)
class Block:
    """Bytes `start` to `end` of a text file."""

    path: str
    start: int
    end: int


@dataclass(frozen=True)
class Layout:
    """How a line is cut into fields. There is no quoting: a quote is a character as any other."""

    fields: tuple[str, ...]
    separator: str
    separator_name: str
    encoding: str = "utf-8"
    rest: bool = False  # the last field is all that is left of a line, separators too


def blocks_of(path: Path, size: int = BLOCK_BYTES) -> list[Block]:
    """The blocks of a file, in order."""
    total = path.stat().st_size
    return [Block(str(path), at, min(at + size, total)) for at in range(0, total, size)]


def read_block(block: Block) -> tuple[bytes, int]:
    """The whole lines that begin within a block, and the offset of the first in the file."""
    with Path(block.path).open("rb") as file:
        if block.start:
            file.seek(block.start - 1)
            file.readline()
        begin = file.tell()
        data = file.read(block.end - begin) if begin < block.end else b""
        if data and not data.endswith(b"\n"):
            data += file.readline()
    return data, begin


def line_number(path: str | Path, offset: int, line: int) -> int:
    """The number in the file, from 1, of the `line`-th line (from 0) after a byte offset."""
    count, left = 0, offset
    with Path(path).open("rb") as file:
        while left and (piece := file.read(min(left, BLOCK_BYTES))):
            count += piece.count(b"\n")
            left -= len(piece)
    return count + line + 1


def read_lines(block: Block, encoding: str = "utf-8") -> pa.Table:
    """The block's lines as the column `line`, and the columns of `PLACE`. Blank ones are no rows.

    Where a line is not text in this encoding, its `PROBLEM` says so.
    """
    data, begin = read_block(block)
    if begin == 0 and encoding == "utf-8":
        data = data.removeprefix(b"\xef\xbb\xbf")
    return lines_in(data, encoding, begin=begin)


def lines_in(data: bytes, encoding: str = "utf-8", *, begin: int = 0, first: int = 0) -> pa.Table:
    """Whole lines as `read_lines` gives them.

    Args:
        data: the lines.
        encoding: of the text.
        begin: the offset of the first in the file.
        first: how many lines stand between that offset and the first of them.
    """
    lines, undecodable = _lines_of(data, encoding)
    number = np.flatnonzero(pc.not_equal(lines, "").to_numpy(zero_copy_only=False))
    problem = pa.nulls(len(number), pa.string())
    if len(undecodable):
        broken = pa.array(np.isin(number, undecodable))
        problem = pc.if_else(broken, f"is not {encoding.upper()} text", problem)
    columns = {
        "line": lines.take(pa.array(number)),
        BLOCK: pa.array(np.full(len(number), begin, np.int64)),
        LINE: pa.array(number.astype(np.int64) + first),
        PROBLEM: problem,
    }
    return pa.table(columns)


def split_lines(lines: pa.Table, layout: Layout) -> pa.Table:
    """Lines of `read_lines` as one string column per field, and the columns of `PLACE`.

    A row whose `PROBLEM` is not null holds nulls in its fields.
    """
    width = len(layout.fields)
    cuts = width - 1 if layout.rest else None
    line = lines["line"].combine_chunks()
    parts = pc.split_pattern(line, pattern=layout.separator, max_splits=cuts)
    count = pc.list_value_length(parts)
    problem = lines[PROBLEM].combine_chunks()
    fits = pc.equal(count, width)
    if not pc.all(fits).as_py():
        wrong = pc.if_else(fits, pa.scalar(None, pa.string()), _count_message(count, layout))
        problem = pc.coalesce(problem, wrong)
    columns = _columns(parts, pc.is_null(problem).to_numpy(zero_copy_only=False), width)
    place = {BLOCK: lines[BLOCK], LINE: lines[LINE], PROBLEM: problem}
    return pa.table({**dict(zip(layout.fields, columns, strict=True)), **place})


def read_fields(block: Block, layout: Layout) -> pa.Table:
    """The block's lines as one string column per field, and the columns of `PLACE`.

    A row whose `PROBLEM` is not null holds nulls in its fields. Blank lines are no rows.
    """
    return split_lines(read_lines(block, layout.encoding), layout)


def mark(table: pa.Table, bad: pa.Array | pa.ChunkedArray, message: str, column: str) -> pa.Table:
    """Note a problem for the rows where `bad` is true and none was noted before.

    `message` may hold `{value}`, which becomes the row's value in `column`.
    """
    problem = table[PROBLEM]
    new = pc.and_(pc.fill_null(bad, False), pc.is_null(problem))
    if not pc.any(new).as_py():
        return table
    before, _, after = message.partition("{value}")
    value = pc.fill_null(table[column].cast(pa.string()), "")
    text = pc.binary_join_element_wise(before, value, after, "") if after else pa.scalar(message)
    position = table.schema.get_field_index(PROBLEM)
    return table.set_column(position, PROBLEM, pc.if_else(new, text, problem))


def _lines_of(data: bytes, encoding: str) -> tuple[pa.Array, NDArray[np.int64]]:
    """All lines as strings, and the numbers of those that are not text in this encoding."""
    data = data.replace(b"\r\n", b"\n")
    undecodable: list[int] = []
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        pieces = enumerate(data.split(b"\n"))
        undecodable = [at for at, piece in pieces if not _decodes(piece, encoding)]
        text = data.decode(encoding, errors="replace")
    lines = pc.split_pattern(pa.array([text], pa.large_string()), pattern="\n").values
    return lines.cast(pa.string()), np.array(undecodable, np.int64)


def _decodes(piece: bytes, encoding: str) -> bool:
    try:
        piece.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _count_message(count: pa.Array, layout: Layout) -> pa.Array:
    expected = f"expected {len(layout.fields)} separated by {layout.separator_name}: " + ", ".join(
        layout.fields
    )
    noun = pc.if_else(pc.equal(count, 1), " field, ", " fields, ")
    return pc.binary_join_element_wise("has ", count.cast(pa.string()), noun, expected, "")


def _columns(parts: pa.ListArray, good: NDArray[np.bool_], width: int) -> list[pa.Array]:
    """Field j of every good row; null where a row is bad."""
    start = parts.offsets.to_numpy()[:-1].astype(np.int64)
    return [
        parts.values.take(pa.array(np.where(good, start + j, 0), mask=~good)) for j in range(width)
    ]
