"""Bad rows: refused with file and line, or left out and counted. Never repaired, never silent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from legoray.data.lines import BLOCK, LINE, PLACE, PROBLEM, line_number
from legoray.errors import InputError, Problem

SHOWN = 10
Policy = Literal["fail", "skip"]


class BadRows:
    """What becomes of bad rows, and how many there were per file."""

    def __init__(self, policy: Policy, say: Callable[[str], None]) -> None:
        self.policy = policy
        self.say = say
        self.counts: dict[str, int] = {}

    def good(self, table: pa.Table, path: Path) -> pa.Table:
        """The rows without a problem, without the columns of `PLACE`.

        Raises:
            InputError: the policy is `fail` and there is a bad row; the first ten are named.
        """
        fine = pc.is_null(table[PROBLEM])
        bad = table.filter(pc.invert(fine))
        if len(bad):
            problems = self.problems(bad, path)
            if self.policy == "fail":
                raise InputError(*problems, _how_many(len(bad), path))
            self._count(len(bad), path, problems[0])
            table = table.filter(fine)
        return table.drop_columns(list(PLACE))

    def add(self, counts: Mapping[str, int]) -> None:
        """Count what else was left out, by reason, where that is no reason to refuse a file."""
        for name, count in counts.items():
            self.counts[name] = self.counts.get(name, 0) + count

    def drain(self) -> dict[str, int]:
        """The counts since the last call, for `manifest.dropped`."""
        counts, self.counts = self.counts, {}
        return counts

    def problems(self, bad: pa.Table, path: Path) -> list[Problem]:
        """The first rows of `bad` as problems with file and line."""
        rows = bad.slice(0, SHOWN).select(PLACE).to_pylist()
        return [Problem(_place(path, row[BLOCK], row[LINE]), row[PROBLEM]) for row in rows]

    def _count(self, count: int, path: Path, first: Problem) -> None:
        key = f"bad_rows/{path.parent.name}/{path.name}"
        if key not in self.counts:
            self.say(f"leaving out bad rows of {path}; the first: {first}")
        self.counts[key] = self.counts.get(key, 0) + count


def _place(path: Path, block: int, line: int) -> str:
    """`file:line`; Parquet has rows in place of lines, counted from 1."""
    if path.suffix == ".parquet":
        return f"{path}: row {line + 1}"
    return f"{path}:{line_number(path, block, line)}"


def _how_many(count: int, path: Path) -> Problem:
    rows = "1 bad row" if count == 1 else f"at least {count} bad rows"
    return Problem(
        str(path), f"{rows}", "correct the file, or set `on_bad_row: skip` to leave them out"
    )


def repeated(keys: pa.Array | pa.ChunkedArray) -> pa.Array:
    """True for every row whose key stood in an earlier row."""
    codes = pc.dictionary_encode(keys.combine_chunks()).indices
    codes = pc.fill_null(codes, -1).to_numpy(zero_copy_only=False)
    first = np.zeros(len(codes), bool)
    first[np.unique(codes, return_index=True)[1]] = True
    return pa.array(~first & (codes >= 0))
