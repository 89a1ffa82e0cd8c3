"""Reading items from people's files: text lines, JSON lines, JSON, CSV or TSV."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from legoray.errors import InputError, Problem

Item = str | dict[str, Any]


def read_texts(path: str | Path) -> list[Item]:
    """The items of a file, by its ending.

    `.csv` and `.tsv` have a header of attributes; `.jsonl` has a JSON text or mapping in each line;
    `.json` one list of these; anything else is one text per line. Empty lines do not count.

    Raises:
        InputError: no such file, not UTF-8, nothing in it, or a line that cannot be read.
    """
    path = Path(path)
    text = _read(path)
    ending = path.suffix.lower()
    if ending in (".csv", ".tsv"):
        items = _table(text, path, "," if ending == ".csv" else "\t")
    elif ending in (".jsonl", ".ndjson"):
        items = _json_lines(text, path)
    elif ending == ".json":
        items = _json_list(text, path)
    else:
        items = [line.strip() for line in text.splitlines() if line.strip()]
    if not items:
        raise InputError(Problem(str(path), "has no items", "one per line"))
    return items


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(Problem(str(path), "no such file")) from None
    except IsADirectoryError:
        raise InputError(Problem(str(path), "is a folder, a file was expected")) from None
    except UnicodeDecodeError as error:
        raise InputError(Problem(str(path), f"is not UTF-8 text ({error.reason})")) from None
    except OSError as error:
        raise InputError(Problem(str(path), f"cannot be read: {error.strerror}")) from None


def _table(text: str, path: Path, delimiter: str) -> list[Item]:
    reader = csv.DictReader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    items: list[Item] = []
    try:
        for row in reader:
            if None in row or None in row.values():
                found = (
                    len([v for v in row.values() if v is not None]) + len(row.get(None, [""])) - 1
                )
                expected = f"{len(reader.fieldnames or [])} fields as in the header were expected"
                where = f"{path}:{reader.line_num}"
                raise InputError(Problem(where, f"has {found} fields", expected))
            items.append(dict(row))
    except csv.Error as error:
        raise InputError(Problem(f"{path}:{reader.line_num}", f"not valid CSV: {error}")) from None
    return items


def _json_lines(text: str, path: Path) -> list[Item]:
    items: list[Item] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            items.append(_item(json.loads(line), f"{path}:{number}"))
        except ValueError as error:
            raise InputError(Problem(f"{path}:{number}", f"not valid JSON: {error}")) from None
    return items


def _json_list(text: str, path: Path) -> list[Item]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InputError(Problem(str(path), f"not valid JSON: {error}")) from None
    if not isinstance(content, list):
        raise InputError(Problem(str(path), "a list of texts or mappings was expected"))
    return [_item(value, f"{path}: [{index}]") for index, value in enumerate(content)]


def _item(value: Any, where: str) -> Item:
    if isinstance(value, str | dict):
        return value
    expected = "a text, or a mapping of attributes to texts, was expected"
    raise InputError(Problem(where, f"{value!r} is not an item", expected))
