"""One sequence of items per user, as many public data sets come.

Of each user the last item is test, the one before it valid, the earlier ones train: a sliding
window over one stored sequence. There are no impressions, so each item is one, together with
sampled negatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

from legoray.config import FileForm, Positive, Strict
from legoray.data.badrows import repeated
from legoray.data.convert import is_key_list, is_plain, to_key, to_list, to_time
from legoray.data.corpus import Int32, Int64
from legoray.data.files import RawFolder
from legoray.data.lines import mark
from legoray.data.processors.base import Processor, Run, Sources, as_array
from legoray.data.processors.keyed import write_items_of
from legoray.data.processors.own_columns import check_types, lengths_of, replace_column
from legoray.data.processors.own_options import SPLITS, ItemsTable
from legoray.data.protocol import (
    LEAVE_LAST_OUT,
    UNSEEN,
    NegativeRule,
    leave_last_out,
    sample_unseen_negatives,
)
from legoray.data.ragged import flat, keep, list_array, offsets_of, rows_of
from legoray.data.sequences import strictly_before
from legoray.data.stages import Facts
from legoray.data.tables import (
    clicks_with_negatives,
    read_folder,
    write_histories,
    write_interactions,
    write_users,
)
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
        run.stages.run("read", ["scratch/read"], partial(self._read, run))
        run.stages.run("histories", ["users", "histories"], partial(self._histories, run))
        run.each_split(partial(self._interactions, run))

    def _read(self, run: Run, folder: Path) -> Facts:
        """Users in order of the file, and their items as numbers, oldest first."""
        rows = self._rows(run)
        keys = as_array(read_folder(run.stages.work / "items", ["key"])["key"])
        words, offsets = rows["items"].flatten(), offsets_of(lengths_of(rows["items"]))
        index = pc.index_in(words, value_set=keys)
        known = pc.is_valid(index).to_numpy(zero_copy_only=False)
        item = pc.add(index.filter(pa.array(known)), 1).to_numpy(zero_copy_only=False)
        time = rows["times"].flatten().to_numpy(zero_copy_only=False)[known]
        unknown, offsets = len(known) - len(item), keep(offsets, known)
        order = np.lexsort((time, rows_of(offsets)))
        path = run.sources["sequences"]
        if not len(leave_last_out(offsets, min_length=self.options.min_length)["test"]):
            message = f"no user has {self.options.min_length} items of the items file"
            hint = "is the right column named as the item's key?" if unknown else ""
            raise InputError(Problem(str(path), message, hint))
        lists = {
            "items": list_array(offsets, item.astype(np.int32)[order]),
            "times": list_array(offsets, time.astype(np.int64)[order]),
        }
        pq.write_table(pa.table({"key": rows["user"], **lists}), folder / "scratch/read/all")
        short = int((np.diff(offsets) < self.options.min_length).sum())
        dropped = {"unknown_items_in_sequences": unknown, "users_with_too_few_items": short}
        counted = {name: count for name, count in dropped.items() if count}
        return Facts(dropped=counted | run.bad_rows.drain())

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

    def _histories(self, run: Run, folder: Path) -> Facts:
        known = Known.read(run.stages.work)
        numbers = np.arange(len(known.keys), dtype=np.int32)
        facts = write_histories(folder, run.engine, numbers, known.offsets, known.item)
        users = write_users(folder, run.engine, known.keys)
        both = {"counts": facts.counts | users.counts, "hashes": facts.hashes | users.hashes}
        return users.model_copy(update=both)

    def _interactions(self, run: Run, split: str, folder: Path) -> Facts:
        options, known = self.options, Known.read(run.stages.work)
        parts = leave_last_out(known.offsets, min_length=options.min_length)
        end = known.ends()
        chosen = parts[split][end[parts[split]] > 0]
        rule = NegativeRule(options.negatives, options.negatives_by, options.seed)
        count = len(read_folder(run.stages.work / "items", ["item_id"]))
        held = np.concatenate([parts["valid"], parts["test"]])
        seen = np.ones(len(known.item), bool)  # what later splits hold is not known
        for later in SPLITS[SPLITS.index(split) + 1 :]:
            seen[parts[later]] = False
        sampled = sample_unseen_negatives(
            rule,
            SPLITS.index(split),
            known.user[chosen],
            owner=known.user[seen],
            owned=known.item[seen],
            items=count,
            weight=known.clicks(count) - known.clicks(count, held) + 1.0,
        )
        data = clicks_with_negatives(
            id=chosen,
            history=known.user[chosen],
            end=end[chosen],
            time=known.time[chosen],
            item=known.item[chosen],
            sampled=sampled,
        )
        facts = write_interactions(folder, run.engine, split, data)
        dropped = {
            f"negatives_not_found/{split}": len(chosen) * rule.count - len(sampled.item),
            f"items_without_a_history/{split}": len(parts[split]) - len(chosen),
        }
        counted = {name: number for name, number in dropped.items() if number}
        return facts.model_copy(update={"dropped": counted, "protocol": self._protocol(rule)})

    def _protocol(self, rule: NegativeRule) -> dict[str, Any]:
        past = "the user's items before this one"
        if self.options.sequences.times:
            past += ", those of the same second excluded"
        return {
            "split": f"{LEAVE_LAST_OUT}; users of at least {self.options.min_length} items",
            "history": past,
            **rule.protocol(UNSEEN),
        }


@dataclass(frozen=True)
class Known:
    """All sequences one after another, as the stage `read` left them."""

    keys: pa.Array  # [U] of the users
    offsets: Int64  # [U + 1]
    item: Int32  # [T]
    time: Int64  # [T]

    @classmethod
    def read(cls, work: Path) -> Known:
        """What the stage wrote."""
        table = pq.read_table(work / "scratch" / "read" / "all")
        offsets, item = flat(table["items"], np.int32)
        return cls(as_array(table["key"]), offsets, item, flat(table["times"], np.int64)[1])

    @property
    def user(self) -> Int32:
        """`[T]` whose item each is."""
        return rows_of(self.offsets).astype(np.int32)

    def clicks(self, items: int, at: Int64 | None = None) -> NDArray[np.float64]:
        """`[items]` how often users had each item; at some positions alone, where given."""
        chosen = self.item if at is None else self.item[at]
        found: NDArray[np.float64] = np.bincount(chosen, minlength=items + 1)[1:].astype(np.float64)
        return found

    def ends(self) -> Int32:
        """`[T]` how much of the sequence lies before each item; strictly before it in time."""
        place = (np.arange(len(self.item)) - self.offsets[:-1][self.user]).astype(np.int32)
        if (self.time < 0).all():
            return place
        return strictly_before(self.user, self.time, self.user, self.time, len(self.keys))


def _words(column: pa.ChunkedArray, between: str) -> pa.ListArray:
    """Lists of keys without the empty ones that separators at the ends leave."""
    lists = as_array(to_list(column, between))
    words, offsets = lists.flatten(), offsets_of(lengths_of(lists))
    some = pc.fill_null(pc.not_equal(words, ""), False)
    kept = keep(offsets, some.to_numpy(zero_copy_only=False))
    return pa.ListArray.from_arrays(pa.array(kept.astype(np.int32)), words.filter(some))
