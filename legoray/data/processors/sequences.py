"""One sequence of items per user, as many public data sets come.

Of each user the last item is test, the one before it valid, the earlier ones train: a sliding
window over one stored sequence, which keeps items that stand in it again. There are no impressions,
so each item is one, together with sampled negatives.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from legoray.config import FileForm, Positive, Strict
from legoray.data.badrows import repeated
from legoray.data.clicks import SHORT, ClickProtocol, Clicks
from legoray.data.convert import is_key_list, is_plain, to_key, to_list, to_time
from legoray.data.corpus import Int32, Int64
from legoray.data.files import RawFolder
from legoray.data.lines import mark
from legoray.data.processors.base import Processor, Run, Sources, as_array
from legoray.data.processors.feedback import write_split
from legoray.data.processors.keyed import write_items_of
from legoray.data.processors.own_columns import check_types, lengths_of, replace_column
from legoray.data.processors.own_options import ItemsTable
from legoray.data.protocol import NegativeRule
from legoray.data.ragged import keep, offsets_of, rows_of
from legoray.data.splitrule import SplitRule
from legoray.data.stages import Facts
from legoray.data.tables import read_folder, write_histories, write_users
from legoray.data.tabular import read_table
from legoray.errors import InputError, Problem


class ItemsFile(ItemsTable, FileForm):
    """One row per item."""


class SequencesFile(FileForm):
    """One row per user: all that the user had, oldest first."""

    file: str
    user: str = "user"
    items: str = "items"
    times: str | None = Field(None, description="as many as items: seconds since 1970")
    between: str = Field(" ", min_length=1, description="between items, where they are text")


class SequencesOptions(Strict):
    """Options of `processor: sequences`."""

    items: ItemsFile
    sequences: SequencesFile
    min_length: Annotated[int, Field(ge=3)] = Field(3, description="shorter ones are left out")
    candidates: Literal["sampled", "all"] = Field(
        "sampled", description="valid and test: against sampled negatives, or all items"
    )
    negatives: Positive = Field(20, description="sampled negatives per item")
    negatives_by: Literal["uniform", "popularity"] = "uniform"
    seed: int = Field(1, ge=0, description="of the negatives")


class Sequences(Processor):
    """Leave-last-out over one sequence per user."""

    Options = SequencesOptions
    version = 2

    def sources(self, raw: RawFolder) -> Sources:
        tables = {"items": self.options.items, "sequences": self.options.sequences}
        return {role: raw.file(t.file, text=t.is_text(t.file)) for role, t in tables.items()}

    def process(self, run: Run) -> None:
        items = self.options.items
        run.stages.run("items", ["items"], partial(write_items_of, run, table=items, form=items))
        outputs = ["users", "histories", "scratch/clicks"]
        run.stages.run("clicks", outputs, partial(self._clicks, run))
        run.each_split(partial(self._interactions, run))

    def _clicks(self, run: Run, folder: Path) -> Facts:
        """Users in order of the file, and their items as numbers, oldest first."""
        rows = self._rows(run)
        keys = as_array(read_folder(run.stages.work / "items", ["key"])["key"])
        words, offsets = rows["items"].flatten(), offsets_of(lengths_of(rows["items"]))
        index = pc.index_in(words, value_set=keys)
        known = pc.is_valid(index).to_numpy(zero_copy_only=False)
        item = pc.add(index.filter(pa.array(known)), 1).to_numpy(zero_copy_only=False)
        time = rows["times"].flatten().to_numpy(zero_copy_only=False)[known]
        unknown, offsets = len(known) - len(item), keep(offsets, known)
        clicks = _clicks_of(offsets, item.astype(np.int32), time.astype(np.int64), items=len(keys))
        if (np.diff(offsets) < self.options.min_length).all():
            message = f"no user has {self.options.min_length} items of the items file"
            hint = "is the right column named as the item's key?" if unknown else ""
            raise InputError(Problem(str(run.sources["sequences"]), message, hint))
        clicks.write(folder / "scratch/clicks")
        numbers = np.arange(clicks.users, dtype=np.int32)
        facts = write_histories(folder, run.engine, numbers, clicks.offsets, clicks.item)
        users = write_users(folder, run.engine, rows["user"])
        dropped = {"unknown_items_in_sequences": unknown} if unknown else {}
        read = {"raw/events": len(known), "raw/users": clicks.users}
        return Facts(
            counts=facts.counts | users.counts | read,
            hashes=facts.hashes | users.hashes,
            dropped=dropped | run.bad_rows.drain(),
        )

    def _rows(self, run: Run) -> dict[str, pa.Array]:
        """`user`, and lists of `items` (keys) and `times` (-1 where there are none)."""
        path, table = run.sources["sequences"], self.options.sequences
        names = {"user": table.user, "items": table.items}
        names |= {"times": table.times} if table.times else {}
        rows = read_table(path, names, table)
        check_types(rows, path, {"user": table.user}, is_plain)
        lists = {name: column for name, column in names.items() if name != "user"}
        check_types(rows, path, lists, is_plain, is_key_list)
        user = to_key(rows["user"])
        rows = rows.set_column(0, "user", user)
        rows = mark(rows, pc.is_null(user), f"the {table.user} is empty", "user")
        rows = mark(rows, repeated(user), f"{table.user} '{{value}}' stands twice", "user")
        items = _words(rows["items"], table.between)
        rows = replace_column(rows, "items", items)
        rows = self._timed(rows, items)
        rows = run.bad_rows.good(rows, path)
        return {name: as_array(rows[name]) for name in ("user", "items", "times")}

    def _timed(self, rows: pa.Table, items: pa.ListArray) -> pa.Table:
        """The rows with `times` in seconds, one for each item."""
        table = self.options.sequences
        if not table.times:
            unknown = pa.array(np.full(len(items.flatten()), -1, np.int64))
            lists = pa.ListArray.from_arrays(items.offsets, unknown)
            return replace_column(rows, "times", lists)
        times = _words(rows["times"], table.between)
        other = pc.not_equal(pc.list_value_length(items), pc.list_value_length(times))
        message = f"user '{{value}}' has another number of {table.times} than of {table.items}"
        rows = mark(rows, other, message, "user")
        seconds = to_time(pa.chunked_array([times.flatten()])).combine_chunks()
        wrong = np.zeros(len(rows), bool)
        untold = pc.fill_null(pc.less(seconds, 0), True).to_numpy(zero_copy_only=False)
        wrong[rows_of(offsets_of(lengths_of(times)))[untold]] = True
        message = f"user '{{value}}' has {table.times} that are neither seconds since 1970 nor "
        message += "ISO 8601"
        rows = mark(rows, pa.array(wrong), message, "user")
        filled = pc.fill_null(seconds, -1)
        return replace_column(rows, "times", pa.ListArray.from_arrays(times.offsets, filled))

    def _interactions(self, run: Run, split: str, folder: Path) -> Facts:
        facts = write_split(run, split, folder, self.protocol())
        told = {_told(name): count for name, count in facts.dropped.items()}
        return facts.model_copy(update={"dropped": told})

    def protocol(self) -> ClickProtocol:
        """The rules, as the options say them."""
        options = self.options
        return ClickProtocol(
            split=SplitRule(name="leave-last-out"),
            candidates=self.options.candidates,
            negatives=NegativeRule(options.negatives, options.negatives_by, options.seed),
            min_history=1,
            click="each item of a sequence, those that stand in it again included",
            min_length=options.min_length,
            timed=bool(options.sequences.times),
        )


def _told(reason: str) -> str:
    """What was left out, in the words of sequences."""
    return reason.replace(SHORT, "items_without_a_history").replace("few_clicks", "few_items")


def _clicks_of(offsets: Int64, item: Int32, time: Int64, *, items: int) -> Clicks:
    """Sequences one after another as clicks, by time where there are times."""
    user = rows_of(offsets).astype(np.int32)
    order = np.lexsort((time, user))
    place = np.arange(1, len(item) + 1) - offsets[user]
    return Clicks(
        user=user,
        item=item[order],
        time=time[order],
        users=len(offsets) - 1,
        items=items,
        had_user=user,
        had_item=item[order],
        had_place=place.astype(np.int32),
        since=np.zeros(items, np.int64),  # any item may be a negative
    )


def _words(column: pa.ChunkedArray, between: str) -> pa.ListArray:
    """Lists of keys without the empty ones that separators at the ends leave."""
    lists = as_array(to_list(column, between))
    words, offsets = lists.flatten(), offsets_of(lengths_of(lists))
    some = pc.fill_null(pc.not_equal(words, ""), False)
    kept = keep(offsets, some.to_numpy(zero_copy_only=False))
    return pa.ListArray.from_arrays(pa.array(kept.astype(np.int32)), words.filter(some))
