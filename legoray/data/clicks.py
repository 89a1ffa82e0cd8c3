"""Clicks without impressions -> the interactions of each split, by one of the known protocols.

Each click becomes an impression of its own: with sampled negatives, or, where a model is measured
against all items, alone.
"""

from __future__ import annotations

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
    sample_unseen_negatives,
    temporal_split,
)
from legoray.data.schema import SPLITS
from legoray.data.sequences import strictly_before, user_offsets
from legoray.data.splitrule import SplitRule, shares_text
from legoray.data.tables import Impressions, clicks_with_negatives

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
        return strictly_before(self.user, self.time, self.user, self.time, self.users)

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

    def interactions(self, clicks: Clicks, split: str) -> tuple[Impressions, dict[str, int]]:
        """The interactions of a split, and what was left out of them, by reason.

        Raises:
            InputError: a temporal split has an empty period.
        """
        end = clicks.ends()
        parts, short = self._parts(clicks, end)
        chosen = parts[split]
        at = np.arange(len(chosen), dtype=np.int64)
        if self.split.name == "temporal":
            before = sum(len(parts[name]) for name in SPLITS[: SPLITS.index(split)])
            numbers = at + before
        else:
            numbers = chosen
        sampled = self._sampled(clicks, parts, split)
        data = clicks_with_negatives(
            id=numbers,
            history=clicks.user[chosen],
            end=end[chosen],
            time=clicks.time[chosen],
            item=clicks.item[chosen],
            sampled=sampled,
        )
        wanted = 0 if self._against_all(split) else len(chosen) * self.negatives.count
        dropped = {f"negatives_not_found/{split}": wanted - len(sampled.item)}
        if self.split.name != "temporal":
            dropped[f"{SHORT}/{split}"] = short[split]
        elif split == "train":
            dropped[SHORT] = sum(short.values())
        if split == "train":
            dropped["users_with_too_few_clicks"] = self._users_left_out(clicks)
        return data, {name: count for name, count in dropped.items() if count > 0}

    def describe(self) -> dict[str, str | int | float | bool]:
        """What is stamped on results."""
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
        return told | ({"candidates": ALL} if self.candidates == "all" else {})

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

    def _against_all(self, split: str) -> bool:
        return self.candidates == "all" and split != "train"

    def _sampled(self, clicks: Clicks, parts: dict[str, NDArray[np.int64]], split: str) -> Sampled:
        chosen, number = parts[split], SPLITS.index(split)
        if self._against_all(split):
            return Sampled(np.zeros(0, np.int32), np.zeros(len(chosen), np.int64))
        if self.split.name == "temporal":
            weight = clicks.counts(parts["train"]) + 1.0
            pool = _rated_pool(clicks, weight, until=clicks.time[chosen].max(initial=-1))
            return pool.sample(self.negatives, number, clicks.user[chosen], clicks.time[chosen])
        held = np.concatenate([parts["valid"], parts["test"]])
        every = clicks.counts(np.arange(len(clicks.item)))
        known = _known_by(clicks, hidden=len(SPLITS) - 1 - number)
        return sample_unseen_negatives(
            self.negatives,
            number,
            clicks.user[chosen],
            owner=clicks.had_user[known],
            owned=clicks.had_item[known],
            items=clicks.items,
            weight=every - clicks.counts(held) + 1.0,
        )


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
