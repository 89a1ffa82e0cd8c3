"""Impression logs: what was shown to a user, what of it was clicked, and what was read before.

MIND, PENS and EB-NeRD differ in how these are written. A family reads each official part of its
files into `scratch/<part>`; the steps from there on are here, for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt
from numpy.typing import NDArray
from pydantic import Field

from legoray.config import Share, Strict
from legoray.data.engine import shard_name
from legoray.data.processors.base import Run, as_array, number_keys
from legoray.data.protocol import temporal_split
from legoray.data.ragged import Int64, flat, hash_rows, keep, list_array, offsets_of
from legoray.data.schema import SPLITS
from legoray.data.splitrule import Split, SplitRule, check_split, shares_text
from legoray.data.stages import Facts
from legoray.data.tables import (
    Impressions,
    read_folder,
    write_histories,
    write_interactions,
    write_users,
)
from legoray.errors import InputError, Problem

UNKNOWN = {  # columns that are summed, not kept -> what they count
    "unknown_history": "unknown_news_in_histories",
    "unknown_candidates": "unknown_news_in_candidates",
}
USERS = "users"  # the file with the keys of a part's users, beside its impressions


class ImpressionOptions(Strict):
    """Options of every processor of impression logs."""

    split: Split = Field(
        SplitRule(name="official"),
        description="official: by the files' parts; or {temporal: 0.8/0.1/0.1} of all impressions",
    )
    valid_share: Share = Field(
        0.1, gt=0, description="of the train impressions, by time, where valid is their tail"
    )


@dataclass(frozen=True)
class Parts:
    """The official parts that are read, and which split each becomes."""

    names: tuple[str, ...]  # train first, the test split last; one between them is valid
    tail: float | None = None  # how much of train is valid instead, the last by time
    shares: tuple[float, ...] | None = None  # of all parts together, by time, whatever their names

    def of(self, split: str) -> tuple[str, ...]:
        """The parts in which a split's impressions lie."""
        if self.shares:
            return self.names
        if split == "test":
            return self.names[-1:]
        return self.names[1:2] if split == "valid" and self.tail is None else self.names[:1]

    def describe(self, history: str) -> dict[str, str | int | float | bool]:
        """What is stamped on results; `history` says what of it is read."""
        return {
            "split": self._split_text(),
            "history": history,
            "negatives": "the impression's candidates without a click",
        }

    def _split_text(self) -> str:
        train, test = self.names[0], self.names[-1]
        if self.shares:
            return (
                f"temporal by the impression's time, {shares_text(self.shares)} of official "
                f"{' and '.join(self.names)}; equal times stay together in the later period"
            )
        valid = f"official {self.names[1]}" if len(self.names) > 1 else ""
        if self.tail is not None:
            valid = f"last {self.tail:g} of {train} by time"
        return f"train: official {train}; valid: {valid}; test: official {test}"


def parts_of(options: ImpressionOptions, names: tuple[str, ...], *, tail: bool) -> Parts:
    """What the options make of a data set's parts.

    Args:
        options: the split, and how long the tail is.
        names: of the parts that are read: see `Parts`.
        tail: whether valid is the tail of train.

    Raises:
        InputError: there is no such split, or it leaves no use for a test part.
    """
    check_split(options.split, ("official", "temporal"))
    if options.split.name == "temporal":
        if "test" in names:
            message = "is given beside `split: temporal`, which makes a test split of the others"
            raise InputError(Problem("options.test", message, "leave one of the two out"))
        return Parts(names, shares=options.split.shares)
    return Parts(names, options.valid_share if tail else None)


def write_part(
    folder: Path,
    part: str,
    tables: Iterable[pa.Table],
    *,
    path: Path,
    labeled: bool,
    counted: Mapping[str, str] = UNKNOWN,
    aside: str = "",
) -> Facts:
    """Keep a part's impressions as they come, table by table, but for those with no candidates.

    Args:
        folder: the stage's; the impressions come to lie in its `scratch/<part>`.
        part: its name.
        tables: `impression`, `user` (string), `time`, `items` and `labels` (lists), the columns of
            `counted`, and what else the family needs.
        path: the file, for messages.
        labeled: whether it is known what was clicked.
        counted: columns that are summed, not kept -> what of it stands in `dropped`.
        aside: the one of them (true or false) whose rows are left out.

    Raises:
        InputError: no impression is left.
    """
    target = folder / "scratch" / part
    total = dict.fromkeys((*counted, "read", "kept"), 0)
    users: list[pa.Array] = []
    for number, rows in enumerate(tables):
        some = pc.greater(pc.list_value_length(rows["items"]), 0)
        if aside:
            some = pc.and_not(some, rows[aside])
        total["read"] += len(rows)
        total["kept"] += sum_of(some)
        for name in counted:
            total[name] += sum_of(rows[name])
        users = [pa.concat_arrays([*users, as_array(rows["user"])]).unique()]
        kept = rows.filter(some).drop_columns(list(counted))
        pq.write_table(kept, target / shard_name(number))
    if not total["kept"]:
        raise InputError(_nothing_known(path, total.get("unknown_candidates", 0)))
    pq.write_table(pa.table({"key": users[0]}), target / USERS)
    counts = {f"raw/impressions/{part}": total["read"], f"raw/users/{part}": len(users[0])}
    dropped = {f"{reason}/{part}": total[name] for name, reason in counted.items()}
    without = total["read"] - total["kept"] - total.get(aside, 0)
    dropped[f"impressions_without_candidates/{part}"] = without
    some_dropped = {name: count for name, count in dropped.items() if count}
    return Facts(counts=counts, dropped=some_dropped, labeled={part: labeled})


def write_given_histories(run: Run, parts: Parts, folder: Path) -> Facts:
    """One history for each distinct (user, history) that stands with the impressions of all parts.

    The impressions of a part have a column `history`. Each impression's number of history and its
    end come to lie in `scratch/places`.
    """
    read = [read_folder(run.stages.work / "scratch" / p, ["user", "history"]) for p in parts.names]
    rows = pa.concat_tables(read)
    keys, user = number_keys(rows["user"])
    offsets, items = flat(rows["history"], np.int32)
    length = np.diff(offsets)
    # Two different histories of one user, of equal length, with equal 64-bit hashes: never met.
    content = np.stack([user.astype(np.uint64), length.astype(np.uint64),
                        hash_rows(offsets, items)])  # fmt: skip
    _, first, number = np.unique(content, axis=1, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    save_places(folder, parts, [len(t) for t in read], rank[number.ravel()], length)
    chosen = rows.take(pa.array(first[order]))
    offsets, items = flat(chosen["history"], np.int32)
    facts = write_histories(folder, run.engine, user[first[order]], offsets, items)
    return joined([facts, write_users(folder, run.engine, keys), user_counts(run, parts)])


def save_places(
    folder: Path, parts: Parts, lengths: list[int], history: NDArray[Any], end: NDArray[Any]
) -> None:
    """Keep the history of each impression of all parts, and how much of it lies before.

    Args:
        folder: the stage's.
        parts: of the files.
        lengths: how many impressions each part has.
        history: `[I]` numbers of the histories, part after part.
        end: `[I]` how many of their items lie before the impression.
    """
    offsets = offsets_of(np.array(lengths))
    places = np.stack([history, end]).astype(np.int32)
    for part, start, stop in zip(parts.names, offsets[:-1], offsets[1:], strict=True):
        np.save(folder / "scratch" / "places" / f"{part}.npy", places[:, start:stop])


def user_counts(run: Run, parts: Parts) -> Facts:
    """How many users the files name in all parts together."""
    work = run.stages.work / "scratch"
    keys = pa.concat_tables([pq.read_table(work / part / USERS) for part in parts.names])["key"]
    return Facts(counts={"raw/users": pc.count_distinct(keys).as_py()})


def write_split(run: Run, parts: Parts, history: str, split: str, folder: Path) -> Facts:
    """The interactions of a split, out of its official parts."""
    chosen, scratch = parts.of(split), run.stages.work / "scratch"
    rows = pa.concat_tables([read_folder(scratch / part) for part in chosen])
    places = np.concatenate([np.load(scratch / f"places/{part}.npy") for part in chosen], axis=1)
    labeled = all(run.stages.facts[f"read/{part}"].labeled[part] for part in chosen)
    data = _impressions(rows, places, labeled=labeled)
    if parts.shares:
        periods = temporal_split(data.time, list(parts.shares))
        data = data.take(periods[SPLITS.index(split)])
    elif parts.tail is not None and split != "test":
        early, late = temporal_split(data.time, [1 - parts.tail, parts.tail])
        data = data.take(early if split == "train" else late)
    facts = write_interactions(folder, run.engine, split, data)
    return facts.model_copy(update={"protocol": parts.describe(history)})


def numbered(
    offsets: Int64, words: pa.Array, keys: pa.Array
) -> tuple[pa.ListArray, pa.Array, NDArray[np.bool_]]:
    """Lists of item ids, how many unknown words each list had, and which words were known."""
    index = pc.index_in(words, value_set=keys)
    known = pc.is_valid(index).to_numpy(zero_copy_only=False)
    kept = keep(offsets, known)
    items = index.filter(pa.array(known)).to_numpy(zero_copy_only=False).astype(np.int32) + 1
    unknown = (np.diff(offsets) - np.diff(kept)).astype(np.int32)
    return list_array(kept, items.astype(np.int32)), pa.array(unknown), known


def split_words(column: pa.ChunkedArray, separator: str = " ") -> tuple[Int64, pa.Array]:
    """Offsets and words of separated lists; nulls and repeated separators hold no words."""
    parts = pc.split_pattern(pc.fill_null(column, "").combine_chunks(), pattern=separator)
    offsets = parts.offsets.to_numpy().astype(np.int64)
    some = pc.not_equal(parts.values, "")
    return keep(offsets, some.to_numpy(zero_copy_only=False)), parts.values.filter(some)


def untitled(titles: pa.Array) -> dict[str, int]:
    """How many items have no main text, for `dropped`: they are kept with an empty one."""
    count = sum_of(pc.equal(titles, ""))
    return {"items_without_a_title": count} if count else {}


def joined(parts: list[Facts]) -> Facts:
    """The facts of several tables of one stage."""
    fields = ("counts", "dropped", "hashes")
    merged: dict[str, Any] = {
        field: {k: v for one in parts for k, v in getattr(one, field).items()} for field in fields
    }
    return Facts(**merged, user_attributes=[n for one in parts for n in one.user_attributes])


def _impressions(rows: pa.Table, places: NDArray[np.int32], *, labeled: bool) -> Impressions:
    offsets, items = flat(rows["items"], np.int32)
    _, labels = flat(rows["labels"], np.int8)
    return Impressions(
        id=_ids(rows["impression"]),
        history=places[0],
        end=places[1],
        time=rows["time"].to_numpy(),
        offsets=offsets,
        item=items,
        label=labels,
        labeled=labeled,
    )


def _ids(column: pa.ChunkedArray) -> Int64:
    """Impression ids as they stand where they are distinct integers; else rows are numbered."""
    numbered_rows = np.arange(1, len(column) + 1, dtype=np.int64)
    if not pt.is_integer(column.type):
        integers = pc.all(pc.match_substring_regex(column, r"^\d{1,18}$")).as_py()
        if not integers or column.null_count:
            return numbered_rows
    ids: Int64 = column.cast(pa.int64()).to_numpy()
    return ids if len(np.unique(ids)) == len(ids) else numbered_rows


def sum_of(column: Any) -> int:
    """The sum of a column of numbers or of yes and no."""
    return int(pc.sum(column).as_py() or 0)


def _nothing_known(path: Path, unknown: int) -> Problem:
    return Problem(
        str(path),
        f"no impression is left: {unknown} candidates name news that the news file lacks",
        "do the two files belong together? MIND-small and MIND-large, for example, have other ids",
    )
