"""Impression logs: what was shown to a user, what of it was clicked, and what was read before.

MIND, PENS and EB-NeRD differ in how these are written. A family reads each official part of its
files into `scratch/<part>`; the steps from there on are here, for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
from legoray.data.keyindex import KeyIndex
from legoray.data.numberfile import NumberFile, gather
from legoray.data.processors.base import Run, as_array, number_keys
from legoray.data.protocol import temporal_split
from legoray.data.ragged import (
    Int64,
    distinct,
    expand,
    flat,
    hash_rows,
    keep,
    list_array,
    offsets_of,
)
from legoray.data.schema import SPLITS
from legoray.data.shards import cuts
from legoray.data.splitrule import Split, SplitRule, check_split, shares_text
from legoray.data.stages import Facts
from legoray.data.tables import (
    Histories,
    Impressions,
    read_folder,
    write_history_pieces,
    write_interactions,
    write_users,
)
from legoray.errors import InputError, Problem

UNKNOWN = {  # columns that are summed, not kept -> what they count
    "unknown_history": "unknown_news_in_histories",
    "unknown_candidates": "unknown_news_in_candidates",
}
COUNT = "candidates"  # how many an impression has
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
        pq.write_table(_candidates_aside(target, kept), target / shard_name(number))
    if not total["kept"]:
        raise InputError(_nothing_known(path, total.get("unknown_candidates", 0)))
    pq.write_table(pa.table({"key": users[0]}), target / USERS)
    counts = {f"raw/impressions/{part}": total["read"], f"raw/users/{part}": len(users[0])}
    dropped = {f"{reason}/{part}": total[name] for name, reason in counted.items()}
    without = total["read"] - total["kept"] - total.get(aside, 0)
    dropped[f"impressions_without_candidates/{part}"] = without
    some_dropped = {name: count for name, count in dropped.items() if count}
    return Facts(counts=counts, dropped=some_dropped, labeled={part: labeled})


def _candidates_aside(target: Path, rows: pa.Table) -> pa.Table:
    """The impressions with the number of their candidates, which go to flat files of their own."""
    offsets, items = flat(rows["items"], np.int32)
    items_of, labels_of = _candidates(target)
    items_of.append(items)
    labels_of.append(flat(rows["labels"], np.int8)[1])
    count = pa.array(np.diff(offsets).astype(np.int32))
    return rows.drop_columns(["items", "labels"]).append_column(COUNT, count)


def _candidates(part: Path) -> tuple[NumberFile, NumberFile]:
    """Items and labels of all candidates of a part, impression after impression."""
    return NumberFile(part / "items", np.int32), NumberFile(part / "labels", np.int8)


def write_given_histories(run: Run, parts: Parts, folder: Path) -> Facts:
    """One history for each distinct (user, history) that stands with the impressions of all parts.

    The impressions of a part have a column `history`. Each impression's number of history and its
    end come to lie in `scratch/places`. Of the histories, a shard is in memory at a time.
    """
    scratch = run.stages.work / "scratch"
    users = [read_folder(scratch / part, ["user"])["user"] for part in parts.names]
    keys, user = number_keys(pa.chunked_array([c for one in users for c in one.chunks]))
    shards = [path for part in parts.names for path in sorted((scratch / part).glob("*.parquet"))]
    prints = [_prints(flat(_history(path), np.int32)) for path in shards]
    length = np.concatenate([one[0] for one in prints])
    first, number = _distinct(user, length, np.concatenate([one[1] for one in prints]))
    save_places(folder, parts, [len(column) for column in users], number, length)
    begin = offsets_of(np.array([len(one[0]) for one in prints]))
    pieces = (
        _chosen(path, first[(first >= start) & (first < end)] - start, user[start:end])
        for path, start, end in zip(shards, begin[:-1], begin[1:], strict=True)
    )
    facts = write_history_pieces(folder, run.engine, pieces)
    return joined([facts, write_users(folder, run.engine, keys), user_counts(run, parts)])


def _history(path: Path) -> pa.ChunkedArray:
    return pq.read_table(path, columns=["history"])["history"]


def _prints(lists: tuple[Int64, NDArray[Any]]) -> tuple[Int64, NDArray[np.uint64]]:
    """Length and hash of each list."""
    return np.diff(lists[0]), hash_rows(*lists)


def _chosen(path: Path, which: Int64, user: NDArray[np.int32]) -> Histories:
    """Some histories of a shard."""
    offsets, items = flat(_history(path).take(pa.array(which)), np.int32)
    return Histories(user[which], offsets, items)


def _distinct(
    user: NDArray[np.int32], length: Int64, content: NDArray[np.uint64]
) -> tuple[Int64, Int64]:
    """Where each distinct history stands first, and each impression's number among these.

    Two different histories of one user, of equal length, with equal 64-bit hashes: never met.
    """
    order = np.lexsort((content, length, user))  # stable: equal ones stay as they stood
    new = np.zeros(len(order), bool)
    new[:1] = True
    for values in (user, length, content):
        new[1:] |= values[order[1:]] != values[order[:-1]]
    first = order[new]
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    number = np.empty(len(order), np.int64)
    number[order] = rank[np.cumsum(new) - 1]
    return np.sort(first), number


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
    """The interactions of a split, out of its official parts, some impressions at a time."""
    chosen, scratch = parts.of(split), run.stages.work / "scratch"
    columns = ["impression", "time", COUNT]
    rows = pa.concat_tables([read_folder(scratch / part, columns) for part in chosen])
    ids, kept_ids = _ids(rows["impression"])
    log = _Log(
        id=ids,
        time=rows["time"].to_numpy(),
        places=np.concatenate([np.load(scratch / f"places/{part}.npy") for part in chosen], axis=1),
        offsets=offsets_of(rows[COUNT].to_numpy()),
        files=[_candidates(scratch / part) for part in chosen],
        labeled=all(run.stages.facts[f"read/{part}"].labeled[part] for part in chosen),
    )
    which = np.arange(len(rows))
    if parts.shares:
        which = temporal_split(log.time, list(parts.shares))[SPLITS.index(split)]
    elif parts.tail is not None and split != "test":
        early, late = temporal_split(log.time, [1 - parts.tail, parts.tail])
        which = early if split == "train" else late
    facts = write_interactions(folder, run.engine, split, log.pieces(which))
    given = len(which) if rows["impression"].null_count < len(rows) else 0
    anew = {f"impression_ids_numbered_anew/{split}": given} if given and not kept_ids else {}
    return facts.model_copy(update={"dropped": anew, "protocol": parts.describe(history)})


@dataclass(frozen=True)
class _Log:
    """The impressions of some parts, with their candidates on disk."""

    id: Int64  # [I]
    time: Int64  # [I]
    places: NDArray[np.int32]  # [2, I] history and its end
    offsets: Int64  # [I + 1] of the candidates
    files: list[tuple[NumberFile, NumberFile]]  # items and labels, part after part
    labeled: bool

    def pieces(self, which: Int64) -> Iterator[Impressions]:
        """Some of them in order of their ids, in pieces."""
        which = which[np.argsort(self.id[which], kind="stable")]
        length = np.diff(self.offsets)
        for start, end in cuts(length[which]):
            yield self._taken(which[start:end], length[which[start:end]])

    def _taken(self, which: Int64, length: Int64) -> Impressions:
        at = expand(self.offsets[which], length)
        return Impressions(
            id=self.id[which],
            history=self.places[0][which],
            end=self.places[1][which],
            time=self.time[which],
            offsets=offsets_of(length),
            item=gather([items for items, _ in self.files], at),
            label=gather([labels for _, labels in self.files], at),
            labeled=self.labeled,
        )


def numbered(
    offsets: Int64, words: pa.Array, keys: KeyIndex
) -> tuple[pa.ListArray, pa.Array, NDArray[np.bool_]]:
    """Lists of item ids, how many unknown words each list had, and which words were known."""
    index = keys.find(words)
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


def joined(parts: list[Facts]) -> Facts:
    """The facts of several tables of one stage."""
    fields = ("counts", "dropped", "hashes")
    merged: dict[str, Any] = {
        field: {k: v for one in parts for k, v in getattr(one, field).items()} for field in fields
    }
    return Facts(**merged, user_attributes=[n for one in parts for n in one.user_attributes])


def _ids(column: pa.ChunkedArray) -> tuple[Int64, bool]:
    """Impression ids as they stand where they are distinct integers; else rows are numbered."""
    rows = np.arange(1, len(column) + 1, dtype=np.int64)
    if not pt.is_integer(column.type):
        integers = pc.all(pc.match_substring_regex(column, r"^\d{1,18}$")).as_py()
        if not integers or column.null_count:
            return rows, False
    ids: Int64 = column.cast(pa.int64()).to_numpy()
    return (ids, True) if len(distinct(ids)) == len(ids) else (rows, False)


def sum_of(column: Any) -> int:
    """The sum of a column of numbers or of yes and no."""
    return int(pc.sum(column).as_py() or 0)


def _nothing_known(path: Path, unknown: int) -> Problem:
    return Problem(
        str(path),
        f"no impression is left: {unknown} candidates name news that the news file lacks",
        "do the two files belong together? MIND-small and MIND-large, for example, have other ids",
    )
