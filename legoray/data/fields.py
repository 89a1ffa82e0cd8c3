"""Categorical fields beside the vectors: of the item, of the user, of the moment.

A field is named by where it comes from: `item.category`, `user.gender`, `time.hour`,
`time.weekday`. Its values are numbered from 1; 0 stands for none, and for one never seen.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from legoray.data.corpus import Split
from legoray.data.load import load_items, load_users, read_manifest
from legoray.errors import DamagedError, InputError, Problem, unknown

Int64 = NDArray[np.int64]

FILE = "fields.json"
MOMENTS = {"time.hour": (3600, 24), "time.weekday": (86400, 7)}  # seconds of one, how many
_THURSDAY = 3  # the first day of 1970


@dataclass(frozen=True)
class FieldTables:
    """The codes of all items and users for some fields, in the order of `names`."""

    names: tuple[str, ...]
    codes: dict[str, Int64]  # of item fields [items + 1], of user fields [users]
    values: dict[str, list[str]]  # value n - 1 is code n

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many codes each field has, 0 included."""
        return tuple(
            MOMENTS[name][1] + 1 if name in MOMENTS else len(self.values[name]) + 1
            for name in self.names
        )

    def gather(self, split: Split, impression: Int64, items: Int64) -> Int64:
        """`[B, K, F]` codes of `items [B, K]` (0: padding) in the impressions `[B]`."""
        found = np.zeros((*items.shape, len(self.names)), dtype=np.int64)
        for place, name in enumerate(self.names):
            if name.startswith("item."):
                found[:, :, place] = self.codes[name][items]
            elif name.startswith("user."):
                found[:, :, place] = self.codes[name][split.user[impression]][:, None]
            else:
                found[:, :, place] = moment(name, split.time[impression])[:, None]
        return found

    def of_items(self, rows: Sequence[dict[str, Any]]) -> Int64:
        """`[N + 1, F]` codes of new items by their attributes; other fields are not known."""
        found = np.zeros((len(rows) + 1, len(self.names)), dtype=np.int64)
        for place, name in enumerate(self.names):
            if name.startswith("item."):
                known = {value: code for code, value in enumerate(self.values[name], 1)}
                column = name.partition(".")[2]
                found[1:, place] = [known.get(_text(row.get(column)), 0) for row in rows]
        return found

    def save(self, folder: Path) -> None:
        """Write the names and values, without the codes."""
        content = {"names": self.names, "values": self.values}
        (folder / FILE).write_text(json.dumps(content), encoding="utf-8")


def saved_fields(folder: Path) -> FieldTables:
    """What `FieldTables.save` wrote; without codes, good for new items alone.

    Raises:
        DamagedError: the file is missing or broken.
    """
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        names = tuple(content["names"])
        values = {name: list(content["values"][name]) for name in names if name not in MOMENTS}
        return FieldTables(names, {}, values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(Problem(str(folder / FILE), f"is damaged: {error}")) from None


def _text(value: Any) -> str:
    """A value as the tables would hold it."""
    return "" if value is None else str(value)


def moment(name: str, time: Int64) -> Int64:
    """The codes of times in seconds since 1970 (UTC), 0 where they are unknown (negative)."""
    seconds, count = MOMENTS[name]
    shift = _THURSDAY if name == "time.weekday" else 0
    return np.where(time < 0, 0, (time // seconds + shift) % count + 1)


def check_fields(names: Sequence[str], tables: Path) -> None:
    """Refuse fields that a prepared data set does not have, naming the nearest that it has.

    Raises:
        InputError: all unknown fields at once.
    """
    manifest = read_manifest(tables)
    known = [f"item.{name}" for name in manifest.attributes]
    known += [f"user.{name}" for name in manifest.user_attributes] + list(MOMENTS)
    problems = [unknown("field", name, known, str(tables)) for name in names if name not in known]
    twice = dict.fromkeys(name for name in names if names.count(name) > 1)
    problems += [Problem("fields", f"'{name}' stands twice") for name in twice]
    if problems:
        raise InputError(*problems)


def open_fields(names: Sequence[str], tables: Path) -> FieldTables:
    """The codes of some fields of a prepared data set.

    Raises:
        InputError: an unknown field, damaged tables.
    """
    check_fields(names, tables)
    codes: dict[str, Int64] = {}
    values: dict[str, list[str]] = {}
    for name in names:
        source, _, column = name.partition(".")
        if source == "item":
            numbers, values[name] = coded(load_items(tables, [column])[column])
            codes[name] = np.concatenate([[0], numbers])
        elif source == "user":
            codes[name], values[name] = coded(load_users(tables, [column])[column])
    return FieldTables(tuple(names), codes, values)


def coded(column: Any) -> tuple[Int64, list[str]]:
    """A column of strings as codes from 1 by the values' order, 0 where empty, and the values."""
    array = pc.fill_null(column.combine_chunks(), "")
    values = sorted(value for value in pc.unique(array).to_pylist() if value)
    place = pc.index_in(array, value_set=pa_strings(values))
    return pc.add(pc.fill_null(place, -1), 1).to_numpy(zero_copy_only=False).astype(
        np.int64
    ), values


def pa_strings(values: Sequence[str]) -> Any:
    """Strings as an Arrow array, even where there are none."""
    import pyarrow as pa

    return pa.array(values, pa.string())
