"""What may befall a raw file, whatever its format: used by the contract of all processors."""

from __future__ import annotations

import ast
import csv
import gzip
import io
import json
import math
import random
import re
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

NOT_TEXT = b"\xff\xfe"  # no UTF-8; two letters in Latin-1
FEW = 6  # fields of one file that are looked at, where many are written in the same way
SEPARATORS = (b"::", b"\t", b"|", b'";"', b",")


@dataclass(frozen=True)
class Damage:
    """One thing done to a file: what it is, the bytes that the file then holds, and where."""

    name: str
    content: bytes
    line: int | None = None  # from 1, where one line alone is damaged


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _zipped(path: Path) -> None:
    path.rename(path.with_name(f"{path.name}.zip"))


def _a_zip(path: Path) -> None:
    data = path.read_bytes()
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(path.name, data)


# What may stand at a file's place instead of it, and a word that the message then has.
GONE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (Path.unlink, ""),
    "0 bytes": (lambda path: path.write_bytes(b""), "empty"),
    "a folder": (_folder, "folder"),
    "still zipped": (_zipped, "zip"),
    "a zip of its name": (_a_zip, ""),
}


class Lines:
    """A file of lines, plain or in gzip."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.zipped = path.suffix == ".gz"
        data = path.read_bytes()
        self.lines = (gzip.decompress(data) if self.zipped else data).splitlines(keepends=True)
        self.header = not any(48 <= byte <= 57 for byte in self.lines[0])
        body = self.lines[1:] if self.header else self.lines
        self.json = _parsed(body[0].strip()) is not None
        self.separator = self._separator(body)
        self.csv = self.separator == b"," and all(map(self._is_csv, body))
        self.middle = self._middle()

    def _separator(self, body: list[bytes]) -> bytes:
        """What stands in nearly all lines."""
        often = [s for s in SEPARATORS if sum(s in line for line in body) > 0.8 * len(body)]
        return often[0] if often else b"\0"

    def _middle(self) -> int:
        """An ordinary line in the middle: as many fields as most have, no quotes if possible."""
        counts = [len(self.fields(line)) for line in self.lines]
        usual = Counter(counts).most_common(1)[0][0]
        places = range(int(self.header), len(self.lines))
        ordinary = [place for place in places if self.json or counts[place] == usual]
        plain = [p for p in ordinary if self.json or self.csv or b'"' not in self.lines[p]]
        return min(plain or ordinary, key=lambda place: abs(place - len(self.lines) // 2))

    def with_lines(self, lines: list[bytes]) -> bytes:
        data = b"".join(lines)
        return gzip.compress(data, mtime=0) if self.zipped else data

    def with_line(self, line: bytes, *, beside: bool = False) -> bytes:
        """The middle line replaced; or this one put before it."""
        after = self.lines[self.middle + (not beside) :]
        return self.with_lines([*self.lines[: self.middle], line, *after])

    def fields(self, line: bytes) -> list[bytes]:
        if self.csv:
            return [field.encode() for field in next(csv.reader([line.decode()]))]
        return line.rstrip(b"\r\n").split(self.separator)

    def joined(self, fields: list[bytes]) -> bytes:
        if self.csv:
            return _as_csv([field.decode() for field in fields])
        return self.separator.join(fields) + b"\n"

    def _is_csv(self, line: bytes) -> bool:
        """Whether quotes stand where a writer of CSV puts them."""
        text = line.decode(errors="replace").rstrip("\r\n")
        return _as_csv(next(csv.reader([text]), [])).decode().rstrip("\r\n") == text


def _as_csv(fields: list[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(fields)
    return text.getvalue().encode()


def _parsed(line: bytes) -> dict[str, Any] | None:
    """An object as JSON or as a Python literal."""
    for read in (json.loads, lambda text: ast.literal_eval(text.decode())):
        try:
            value = read(line)
        except (ValueError, SyntaxError):
            continue
        return value if isinstance(value, dict) else None
    return None


def _told(row: dict[str, Any], like: bytes) -> bytes:
    """A row written as the line was that it comes from."""
    text = json.dumps(row) if like.startswith(b'{"') else repr(row).replace("nan", "NaN")
    return text.encode() + b"\n"


def bad_lines(path: Path) -> Iterator[Damage]:
    """Lines that are none, in the middle of the file."""
    if path.suffix == ".parquet":
        return
    file = Lines(path)
    number = file.middle + 1
    yield Damage("a line of rubbish", file.with_line(b"\x01 { no row ]\n", beside=True), number)
    if file.json:
        cut = file.lines[file.middle][: len(file.lines[file.middle]) // 2] + b"\n"
        yield Damage("half a line", file.with_line(cut, beside=True), number)


def wrong_encoding(path: Path) -> Iterator[Damage]:
    """Bytes that are no UTF-8 in the longest piece of text of a line."""
    if path.suffix == ".parquet":
        return
    file = Lines(path)
    line = file.lines[file.middle]
    longest = max(re.findall(rb'[^,;:|"\t\r\n]+', line), key=len)
    place = line.index(longest) + len(longest) // 2
    damaged = line[:place] + NOT_TEXT + line[place:]
    yield Damage("bytes that are not text", file.with_line(damaged), file.middle + 1)


def truncated(path: Path) -> Iterator[Damage]:
    """The first half of a packed file, and something else under its name."""
    data = path.read_bytes()
    if path.suffix in (".gz", ".parquet"):
        yield Damage("its first half", data[: len(data) // 2])
        yield Damage("another format", b"<html>no such file</html>\n" * 9)


def without_columns(path: Path) -> Iterator[Damage]:
    """A file whose columns have other names, one at a time; or one too few where none has one."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        for name in (table.column_names[place] for place in _some(table.num_columns)):
            renamed = [f"other {n}" if n == name else n for n in table.column_names]
            yield Damage(f"no column {name}", _parquet(table.rename_columns(renamed)))
        return
    file = Lines(path)
    if file.json:
        rows = [_parsed(line) or {} for line in file.lines]
        names = list(dict.fromkeys(name for row in rows for name in row))
        for name in (names[place] for place in _some(len(names))):
            others = [{f"other {n}" if n == name else n: v for n, v in r.items()} for r in rows]
            lines = [_told(row, file.lines[0]) for row in others]
            yield Damage(f"no key {name}", file.with_lines(lines))
    elif file.header:
        names = file.fields(file.lines[0])
        for place in _some(len(names)):
            name = names[place].strip(b'"')
            other = [*names[:place], names[place].replace(name, b"x" + name), *names[place + 1 :]]
            lines = [file.joined(other), *file.lines[1:]]
            yield Damage(f"no column {name.decode()}", file.with_lines(lines))
    elif file.separator != b"\0":
        fields = [file.fields(line) for line in file.lines]
        # The last one may hold separators; a line without any is the head of a block.
        fewer = min(len(row) for row in fields if len(row) > 1) - 1
        lines = [file.joined(row[:fewer]) for row in fields]
        yield Damage("without its last column", file.with_lines(lines))


def doubled(path: Path) -> Iterator[Damage]:
    """A row that stands twice."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        yield Damage("a row twice", _parquet(pa.concat_tables([table, table.slice(1, 1)])))
        return
    file = Lines(path)
    yield Damage("a line twice", file.with_line(file.lines[file.middle], beside=True))


def not_numbers(path: Path) -> Iterator[Damage]:
    """NaN in each field of a row."""
    if path.suffix == ".parquet":
        yield from _null_cells(path)
        return
    file = Lines(path)
    line = file.lines[file.middle]
    row = _parsed(line) if file.json else None
    if row is not None:
        plain = [name for name, value in row.items() if not isinstance(value, list | dict)]
        for name in (plain[place] for place in _some(len(plain))):
            nan = _told({**row, name: math.nan}, line)
            yield Damage(f"NaN as {name}", file.with_line(nan), file.middle + 1)
        return
    fields = file.fields(line)
    for place in _some(len(fields)):
        other = [*fields[:place], _nan(fields[place]), *fields[place + 1 :]]
        content = file.with_line(file.joined(other))
        yield Damage(f"NaN in field {place + 1}", content, file.middle + 1)


def _some(fields: int) -> list[int]:
    """The first fields, the last, and some between."""
    if fields <= FEW:
        return list(range(fields))
    return sorted({0, 1, 2, fields - 1, *range(2, fields, -(-fields // (FEW - 3)))})


def _nan(field: bytes) -> bytes:
    """NaN, with the quote that a field at the end of its line keeps."""
    start = b'"' if field.startswith(b'"') else b""
    return start + b"NaN" + (b'"' if field.endswith(b'"') else b"")


def _null_cells(path: Path) -> Iterator[Damage]:
    table = pq.read_table(path)
    for place in _some(table.num_columns):
        column = table.column(place)
        values = column.to_pylist()
        values[len(values) // 2] = math.nan if pa.types.is_floating(column.type) else None
        changed = table.set_column(place, table.field(place), pa.array(values, column.type))
        yield Damage(f"NaN or null as {table.column_names[place]}", _parquet(changed))


def in_another_order(path: Path, seed: int) -> Damage:
    """The rows shuffled; a header stays the first."""
    draw = random.Random(seed)
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        order = draw.sample(range(len(table)), len(table))
        return Damage("rows in another order", _parquet(table.take(order)))
    file = Lines(path)
    first = file.lines[: int(file.header)]
    rest = file.lines[int(file.header) :]
    if not rest[-1].endswith(b"\n"):
        rest[-1] += b"\n"
    draw.shuffle(rest)
    return Damage("lines in another order", file.with_lines([*first, *rest]))


def in_blocks(path: Path) -> bool:
    """Whether the order of lines means something: heads of blocks stand among them."""
    if path.suffix == ".parquet":
        return False
    return any(line.strip().endswith(b":") for line in Lines(path).lines)


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def copied(good: Path, folder: Path) -> Path:
    """A fresh copy of raw files."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(good, folder)
    return folder
