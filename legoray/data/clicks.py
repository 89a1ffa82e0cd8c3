"""Clicks without impressions -> the interactions of each split, by one of the known protocols.

Each click becomes an impression of its own: with sampled negatives, or, where a model is measured
against all items, alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from legoray.data.corpus import Int32, Int64
from legoray.data.protocol import (
    LEAVE_LAST_OUT,
    RATED,
    UNSEEN,
    NegativeRule,
    Pool,
    Sampled,
    leave_last_out,
    temporal_split,
    unseen_pool,
)
from legoray.data.schema import SPLITS
from legoray.data.sequences import places_of_times, user_offsets
from legoray.data.splitrule import SplitRule, shares_text
from legoray.data.tables import Impressions, clicks_with_negatives
from legoray.errors import InputError, Problem

NEVER = np.iinfo(np.int64).max
ALL = (
    "valid and test: the click against all items, but for those of the user's history; train: "
    "sampled"
)
SHORT = "clicks_with_too_short_a_history"
LEAVE_RANDOM_OUT = (
    "leave-random-out: nothing is known of the order; of each user one item drawn at random is "
    "test, another one valid"
)


@dataclass(frozen=True)
class Clicks:
    """All clicks by user and time, and what else users had. A user may click an item again."""

    user: Int32  # [T] sorted
    item: Int32  # [T] from 1
    time: Int64  # [T] rising within a user; -1 where no time is known
    users: int
    items: int
    had_user: Int32  # [E] whose items those of `had_item` are, clicks among them
    had_item: Int32  # [E]
    had_place: Int32  # [E] how many of the user's clicks there had been by then, this one included
    since: Int64  # [items] when somebody first had it; the greatest number where nobody did

    def write(self, folder: Path) -> None:
        """Keep them in a folder."""
        for name, fields in _FILES.items():
            table = pa.table({field: getattr(self, field) for field in fields})
            pq.write_table(table, folder / name)
        pq.write_table(pa.table({"users": [self.users]}), folder / "users")

    @classmethod
    def read(cls, folder: Path) -> Clicks:
        """What was written."""
        columns: dict[str, Any] = {}
        for name, fields in _FILES.items():
            table = pq.read_table(folder / name)
            columns |= {field: table[field].to_numpy() for field in fields}
        users = pq.read_table(folder / "users")["users"][0].as_py()
        return cls(**columns, users=users, items=len(columns["since"]))

    @property
    def offsets(self) -> Int64:
        """`[U + 1]` where each user's clicks begin."""
        return user_offsets(self.user, self.users)

    def ends(self) -> Int32:
        """`[T]` how many of the user's clicks lie before each; strictly before it in time."""
        if (self.time < 0).all():
            return (np.arange(len(self.item)) - self.offsets[:-1][self.user]).astype(np.int32)
        return places_of_times(self.user, self.time)

    def counts(self, at: NDArray[np.int64]) -> NDArray[np.float64]:
        """`[items]` how often each was clicked at some positions."""
        found = np.bincount(self.item[at], minlength=self.items + 1)[1:]
        return found.astype(np.float64)


_FILES = {
    "clicks": ("user", "item", "time"),
    "had": ("had_user", "had_item", "had_place"),
    "since": ("since",),
}


@dataclass(frozen=True)
class ClickProtocol:
    """What decides which clicks are measured, and against what."""

    split: SplitRule
    candidates: Literal["sampled", "all"]
    negatives: NegativeRule
    min_history: int
    click: str  # what counts as one, in words
    min_length: int = 3  # of a user's clicks, where one is left out
    timed: bool = True  # else clicks are in order, and nothing is known of when they were

    def interactions(
        self, clicks: Clicks, split: str, dropped: dict[str, int]
    ) -> Iterator[Impressions]:
        """The interactions of a split, in pieces that follow one another.

        Args:
            clicks: all of them.
            split: which.
            dropped: takes what was left out, by reason; it is whole after the last piece.

        Raises:
            InputError: a temporal split has an empty period, or the split has no clicks.
        """
        end = clicks.ends()
        parts, short = self._parts(clicks, end)
        chosen = parts[split]
        if not len(chosen):
            hint = "set a lower min_history or k_core, or another split"
            raise InputError(Problem("options.split", f"leaves no clicks for {split}", hint))
        before = sum(len(parts[name]) for name in SPLITS[: SPLITS.index(split)])
        wanted = 0 if self.ranks_all(split) else len(chosen) * self.negatives.count
        start = 0
        for sampled in self._sampled(clicks, parts, split):
            which = chosen[start : start + len(sampled.count)]
            numbers = which
            if self.split.name == "temporal":
                numbers = np.arange(start, start + len(which), dtype=np.int64) + before
            yield clicks_with_negatives(
                id=numbers,
                history=clicks.user[which],
                end=end[which],
                time=clicks.time[which],
                item=clicks.item[which],
                sampled=sampled,
            )
            start += len(which)
            wanted -= len(sampled.item)
        found = {f"negatives_not_found/{split}": wanted}
        if self.split.name != "temporal":
            found[f"{SHORT}/{split}"] = short[split]
        elif split == "train":
            found[SHORT] = sum(short.values())
        if split == "train":
            found["users_with_too_few_clicks"] = self._users_left_out(clicks)
        dropped |= {name: count for name, count in found.items() if count > 0}

    def describe(self, items: int) -> dict[str, str | int | float | bool]:
        """What is stamped on results; `items` is how many there are."""
        past = (
            "the user's clicks strictly before the interaction, those of the same second excluded"
        )
        if not self.timed:
            past = "the user's clicks before this one"
        if self.split.name == "leave-random-out":
            past = "the user's clicks drawn before this one"
        pool = RATED if self.split.name == "temporal" else UNSEEN
        told: dict[str, str | int | float | bool] = {
            "split": self._split_text(),
            "click": self.click,
            "history": f"{past}; at least {self.min_history}",
            **self.negatives.protocol(pool),
        }
        if self.candidates == "all":
            told |= {"candidates": ALL, "candidate_items": items}
        return told

    def _split_text(self) -> str:
        if self.split.name == "temporal":
            shares = shares_text(self.split.shares)
            return (
                f"temporal by the click's time, {shares} of all clicks; equal times stay together "
                "in the later period"
            )
        rule = LEAVE_LAST_OUT if self.split.name == "leave-last-out" else LEAVE_RANDOM_OUT
        return f"{rule}; users of at least {self.min_length} items"

    def _parts(
        self, clicks: Clicks, end: Int32
    ) -> tuple[dict[str, NDArray[np.int64]], dict[str, int]]:
        """Positions of each split's clicks, and how many have too short a history.

        Where splits are periods, what has too short a history is in none of them: it is counted as
        train's.
        """
        long = end >= self.min_history
        if self.split.name == "temporal":
            order = np.flatnonzero(long)
            order = order[np.argsort(clicks.time[order], kind="stable")]
            periods = temporal_split(clicks.time[order], list(self.split.shares))
            parts = {name: order[part] for name, part in zip(SPLITS, periods, strict=True)}
            return parts, {"train": int((~long).sum())}
        found = leave_last_out(clicks.offsets, min_length=self.min_length)
        short = {name: int((~long[part]).sum()) for name, part in found.items()}
        return {name: part[long[part]] for name, part in found.items()}, short

    def _users_left_out(self, clicks: Clicks) -> int:
        """How many users have too few clicks to leave any out."""
        few = np.diff(clicks.offsets) < self.min_length
        return 0 if self.split.name == "temporal" else int(few.sum())

    def ranks_all(self, split: str) -> bool:
        """Whether the clicks of a split stand alone, to be ranked against all items."""
        return self.candidates == "all" and split != "train"

    def _sampled(
        self, clicks: Clicks, parts: dict[str, NDArray[np.int64]], split: str
    ) -> Iterator[Sampled]:
        chosen, number = parts[split], SPLITS.index(split)
        if self.ranks_all(split):
            return iter([Sampled(np.zeros(0, np.int32), np.zeros(len(chosen), np.int64))])
        user, time = clicks.user[chosen], clicks.time[chosen]
        if self.split.name == "temporal":
            weight = clicks.counts(parts["train"]) + 1.0
            pool = _rated_pool(clicks, weight, until=time.max(initial=-1))
            return pool.samples(self.negatives, number, user, time)
        held = np.concatenate([parts["valid"], parts["test"]])
        every = clicks.counts(np.arange(len(clicks.item)))
        known = _known_by(clicks, hidden=len(SPLITS) - 1 - number)
        pool = unseen_pool(
            owner=clicks.had_user[known],
            owned=clicks.had_item[known],
            items=clicks.items,
            weight=every - clicks.counts(held) + 1.0,
        )
        return pool.samples(self.negatives, number, user, np.zeros_like(time))


def _known_by(clicks: Clicks, hidden: int) -> NDArray[np.bool_]:
    """`[E]` what users had before the last `hidden` of their clicks."""
    count = np.bincount(clicks.user, minlength=clicks.users)
    known: NDArray[np.bool_] = clicks.had_place <= count[clicks.had_user] - hidden
    return known


def _rated_pool(clicks: Clicks, weight: NDArray[np.float64], until: int) -> Pool:
    """Items by the time somebody first had them, but for those that the user liked `until` then."""
    liked = clicks.time <= until
    item = np.flatnonzero(clicks.since < NEVER).astype(np.int32)
    order = item[np.argsort(clicks.since[item], kind="stable")]
    stride = clicks.items + 1
    return Pool(
        item=order + 1,
        since=clicks.since[order],
        liked=np.sort(clicks.user[liked].astype(np.int64) * stride + clicks.item[liked]),
        stride=stride,
        weight=weight[order],
    )
