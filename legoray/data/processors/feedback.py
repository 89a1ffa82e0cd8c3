"""What all data sets of feedback share: ratings, reviews, plays, purchases; no impressions.

A family says how its files are read (`read_items`, `read_events`, `read_users`). The rest is here:
feedback -> clicks (threshold, first of each pair, k-core) -> histories -> splits -> negatives.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

from legoray.config import Positive, Strict
from legoray.data.clicks import NEVER, ClickProtocol, Clicks
from legoray.data.convert import no_key
from legoray.data.corpus import Int32, Int64
from legoray.data.feedback import (
    Feedback,
    coded,
    count_within,
    dense,
    first_of_each,
    in_order,
    k_core,
    users_in_time,
)
from legoray.data.processors.base import Processor, Run, as_array
from legoray.data.protocol import NegativeRule
from legoray.data.splitrule import Split, SplitRule, check_split
from legoray.data.stages import Facts
from legoray.data.tables import (
    count_rows,
    read_folder,
    take_rows,
    write_histories,
    write_interactions,
    write_item_pieces,
    write_users,
)
from legoray.errors import InputError, Problem

Attributes = dict[str, pa.Array]


class FeedbackOptions(Strict):
    """Options of every processor of feedback."""

    like: float | None = Field(None, description="a value from here on is a click; any if null")
    split: Split = Field(
        SplitRule(name="temporal"),
        description="temporal, {temporal: 0.8/0.1/0.1}, leave-last-out or leave-random-out",
    )
    candidates: Literal["sampled", "all"] = Field(
        "sampled", description="valid and test: against sampled negatives, or all items"
    )
    negatives: Positive = Field(20, description="sampled negatives per click")
    negatives_by: Literal["uniform", "popularity"] = "uniform"
    seed: int = Field(1, ge=0, description="of the negatives, and of leave-random-out")
    min_history: int = Field(1, ge=0, description="clicks with a shorter history are left out")
    k_core: int = Field(0, ge=0, description="users and items keep at least so many clicks")
    unrated: Literal["drop", "keep"] = Field(
        "drop", description="items that the files describe and nobody gave feedback to"
    )


class FeedbackProcessor(Processor):
    """A family of feedback. Subclasses say how files are read, and what a click is."""

    event: str = "rating"  # what one row of feedback is
    threshold: str = "a rating of at least {like:g}"  # what a click is, where asked
    times: Literal["known", "order", "none"] = "known"  # or rows in order, or nothing
    often: bool = False  # whether users meet an item so often that repeats should go early
    options: Any

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        timeless = ("leave-random-out",)
        ordered = ("leave-last-out", "leave-random-out")
        every = ("temporal", *ordered)
        known = {"known": every, "order": ordered, "none": timeless}[self.times]
        check_split(options.split, known)

    @abstractmethod
    def read_items(self, run: Run) -> tuple[pa.Array, Attributes]:
        """The keys of all items `[N]`, each once, and their attributes as strings without nulls.

        Raises:
            InputError: files cannot be read, or rows are bad and not skipped.
        """

    @abstractmethod
    def read_events(self, run: Run) -> Iterable[pa.Table]:
        """The feedback in pieces, in order of the files: `user` and `item` (strings), and where
        the files have them `time` (int64, seconds since 1970, null where unknown) and `value`
        (a number). Bad rows are gone (`run.bad_rows`).

        Raises:
            InputError: files cannot be read, or rows are bad and not skipped.
        """

    def read_users(self, run: Run, keys: pa.Array) -> Attributes:
        """The attributes of users `[U]` by their keys; empty strings where there are none."""
        return {}

    def process(self, run: Run) -> None:
        run.stages.run("read/items", ["scratch/items"], partial(self._items, run))
        run.stages.run("read/events", ["scratch/events"], partial(self._events, run))
        outputs = ["items", "users", "histories", "scratch/clicks"]
        run.stages.run("clicks", outputs, partial(self._clicks, run))
        run.each_split(partial(self._interactions, run))

    def _items(self, run: Run, folder: Path) -> Facts:
        keys, attributes = self.read_items(run)
        if not len(keys):
            raise InputError(Problem(str(_first(run)), "holds no items"))
        table = pa.table({"key": keys, **attributes})
        pq.write_table(table, folder / "scratch/items/part-00000.parquet")
        return Facts(counts={"raw/items": len(keys)}, dropped=run.bad_rows.drain())

    def _events(self, run: Run, folder: Path) -> Facts:
        keys = as_array(read_folder(run.stages.work / "scratch/items", ["key"])["key"])
        read = 0

        def pieces() -> Iterator[pa.Table]:
            nonlocal read
            for piece in self.read_events(run):
                named = piece.filter(pc.invert(no_key(piece["user"])))
                nameless = len(piece) - len(named)
                run.bad_rows.add({f"{self.event}s_without_a_user": nameless} if nameless else {})
                read += len(named)
                yield named

        events, users, unknown = coded(pieces(), keys, first=self.often)
        if not len(events):
            message = f"there is no {self.event} of an item that the files describe"
            raise InputError(Problem(str(_first(run)), message))
        events, users = users_in_time(events, users)
        table = pa.table({name: getattr(events, name) for name in _COLUMNS})
        pq.write_table(table, folder / "scratch/events/all")
        pq.write_table(pa.table({"key": users}), folder / "scratch/events/users")
        counts = {"raw/events": read, "raw/users": len(users)}
        dropped = {f"{self.event}s_of_unknown_items": unknown} if unknown else {}
        return Facts(counts=counts, dropped=dropped | run.bad_rows.drain())

    def _clicks(self, run: Run, folder: Path) -> Facts:
        """Rules -> who clicked what; the numbers of items and users; items, users, histories."""
        scratch = run.stages.work / "scratch"
        described = count_rows(scratch / "items")
        events, dropped = self._without_unknown_times(run, _read(scratch / "events/all"))
        ordered = self.options.split.name != "leave-random-out"
        events = in_order(events, shuffled=None if ordered else self.options.seed)
        since = _since(events, described)
        distinct = first_of_each(events)
        again = self._read_of_known_items(run) - sum(dropped.values()) - len(distinct)
        dropped[f"{self.event}s_given_again"] = again
        clicked = self._liked(distinct, dropped)
        clicks = distinct.take(clicked)
        items, item_number = dense(self._kept_items(clicks, distinct, described), len(since))
        users, user_number = dense(clicks.user, int(events.user.max()) + 1)
        del events
        kept = (user_number[distinct.user] >= 0) & (item_number[distinct.item] >= 0)
        had_user = user_number[distinct.user[kept]]
        found = Clicks(
            user=user_number[clicks.user],
            item=item_number[clicks.item] + np.int32(1),
            time=clicks.time,
            users=len(users),
            items=len(items),
            had_user=had_user,
            had_item=item_number[distinct.item[kept]] + np.int32(1),
            had_place=count_within(clicked[kept], had_user),
            since=since[items],
        )
        found.write(folder / "scratch/clicks")
        keys = pq.read_table(scratch / "events/users")["key"].take(users)
        facts = self._tables(run, folder, found, items, as_array(keys))
        counted = {name: count for name, count in dropped.items() if count}
        return facts.model_copy(update={"dropped": counted | run.bad_rows.drain()})

    def _read_of_known_items(self, run: Run) -> int:
        """How many events there were of items that are described."""
        facts = run.stages.facts["read/events"]
        unknown = facts.dropped.get(f"{self.event}s_of_unknown_items", 0)
        return facts.counts["raw/events"] - unknown

    def _liked(self, distinct: Feedback, dropped: dict[str, int]) -> NDArray[np.bool_]:
        """Which feedback is a click."""
        clicked = np.ones(len(distinct), bool)
        if self.options.like is not None:
            clicked = distinct.value >= np.float32(self.options.like)
            if not clicked.any():
                message = f"no {self.event} is as high as {self.options.like:g}"
                raise InputError(Problem("options.like", message))
        core = self.options.k_core
        if core > 1:
            before = int(clicked.sum())
            clicks = distinct.take(clicked)
            clicked[clicked] = k_core(clicks.user, clicks.item, core)
            dropped[f"clicks_outside_the_{core}-core"] = before - int(clicked.sum())
            if not clicked.any():
                message = f"is {core}, but no clicks are left"
                raise InputError(Problem("options.k_core", message, "take a lower one"))
        return clicked

    def _kept_items(self, clicks: Feedback, distinct: Feedback, described: int) -> Any:
        """The places of the items that are kept, in any order."""
        if self.options.unrated == "keep":
            return np.arange(described, dtype=np.int32)
        return clicks.item if self.options.k_core > 1 else distinct.item

    def _without_unknown_times(self, run: Run, events: Feedback) -> tuple[Feedback, dict[str, int]]:
        """Events whose place among others is known, where the split asks for one."""
        if self.options.split.name == "leave-random-out" or self.times != "known":
            unknown = np.full(len(events), -1, np.int64)
            return replace(events, time=unknown), {}
        known = events.time >= 0
        if not known.any():
            message = f"no {self.event} has a time, which `split: {self.options.split.name}` needs"
            raise InputError(Problem(str(_first(run)), message, "or set split: leave-random-out"))
        left_out = {f"{self.event}s_without_a_time": int((~known).sum())}
        return (events if known.all() else events.take(known)), left_out

    def _tables(
        self, run: Run, folder: Path, clicks: Clicks, items: Int32, users: pa.Array
    ) -> Facts:
        kept = take_rows(run.stages.work / "scratch/items", items)
        numbers = np.arange(clicks.users, dtype=np.int32)
        parts = [
            write_item_pieces(folder, run.engine, kept),
            write_users(folder, run.engine, users, self.read_users(run, users)),
            write_histories(folder, run.engine, numbers, clicks.offsets, clicks.item),
        ]
        merged: dict[str, Any] = {
            field: {k: v for part in parts for k, v in getattr(part, field).items()}
            for field in ("counts", "hashes")
        }
        return Facts(
            **merged,
            attributes=parts[0].attributes,
            user_attributes=parts[1].user_attributes,
        )

    def _interactions(self, run: Run, split: str, folder: Path) -> Facts:
        return write_split(run, split, folder, self.protocol())

    def protocol(self) -> ClickProtocol:
        """The rules, as the options say them."""
        options = self.options
        click = (
            f"each {self.event.replace('_', ' ')}"
            if options.like is None
            else self.threshold.format_map({"like": options.like})
        )
        core = f", within the {options.k_core}-core" if options.k_core > 1 else ""
        return ClickProtocol(
            split=options.split,
            candidates=options.candidates,
            negatives=NegativeRule(options.negatives, options.negatives_by, options.seed),
            min_history=options.min_history,
            click=f"{click}; of the same user and item the first{core}",
            timed=self.times == "known",
        )


def write_split(run: Run, split: str, folder: Path, protocol: ClickProtocol) -> Facts:
    """The interactions of a split of the clicks in `scratch/clicks`.

    Raises:
        InputError: there are none.
    """
    clicks = Clicks.read(run.stages.work / "scratch/clicks")
    dropped: dict[str, int] = {}
    pieces = protocol.interactions(clicks, split, dropped)
    facts = write_interactions(folder, run.engine, split, pieces)
    told: dict[str, Any] = {
        "dropped": dropped,
        "protocol": protocol.describe(clicks.items),
        "full_ranking": [split] if protocol.ranks_all(split) else [],
    }
    return facts.model_copy(update=told)


_COLUMNS = ("user", "item", "time", "value")


def _read(path: Path) -> Feedback:
    # Column by column: what Arrow decodes into is given back before the next one.
    return Feedback(**{n: pq.read_table(path, columns=[n])[n].to_numpy() for n in _COLUMNS})


def _since(events: Feedback, items: int) -> Int64:
    """`[items]` when somebody first had each."""
    since = np.full(items, NEVER, np.int64)
    np.minimum.at(since, events.item, events.time)
    return since


def _first(run: Run) -> Path:
    return next(iter(run.sources.values()))
