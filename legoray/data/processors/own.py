"""Own data: tables (items; histories or timed events; interactions; users) in common formats.

CSV, TSV, JSON lines and Parquet, told apart by the file's ending. Column names are options.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from legoray.data.badrows import repeated
from legoray.data.convert import is_key_list, is_plain, to_key, to_list
from legoray.data.files import RawFolder
from legoray.data.lines import mark
from legoray.data.processors.base import (
    Processor,
    Run,
    Sources,
    as_array,
    number_keys,
    user_columns,
)
from legoray.data.processors.keyed import read_attributes, write_items_of
from legoray.data.processors.own_columns import (
    changes,
    check_types,
    distinct,
    impressions_of,
    keyed,
    labelled,
    lengths_of,
    numbered,
    replace_column,
    timed,
)
from legoray.data.processors.own_options import (
    SPLITS,
    OwnOptions,
    check_tables,
)
from legoray.data.protocol import temporal_split
from legoray.data.ragged import flat, keep, list_array, offsets_of
from legoray.data.sequences import by_user_and_time, strictly_before, user_offsets
from legoray.data.splitrule import SHARES, shares_text
from legoray.data.stages import Facts
from legoray.data.tables import (
    read_folder,
    write_histories,
    write_interactions,
    write_users,
)
from legoray.data.tabular import column_names, read_table
from legoray.errors import InputError, Problem


class Own(Processor):
    """Three tables of the user's own, and a fourth one of users where there is any."""

    Options = OwnOptions
    version = 3

    def __init__(self, options: OwnOptions) -> None:
        super().__init__(options)
        self.shares = list(options.split.shares if options.split else SHARES)
        check_tables(options)

    def sources(self, raw: RawFolder) -> Sources:
        names = {"items": self.options.items.file}
        for role in ("histories", "events", "users"):
            if getattr(self.options, role):
                names[role] = getattr(self.options, role).file
        inter = self.options.interactions
        per_split = {f"interactions/{s}": getattr(inter, s) for s in SPLITS if getattr(inter, s)}
        names |= per_split or {"interactions": inter.file}
        return {
            role: raw.file(name, text=not name.endswith(".parquet")) for role, name in names.items()
        }

    def process(self, run: Run) -> None:
        run.stages.run("items", ["items"], partial(write_items_of, run, table=self.options.items))
        run.stages.run("read", ["scratch/read"], partial(self._read, run))
        run.stages.run("histories", ["users", "histories"], partial(self._histories, run))
        run.each_split(partial(self._interactions, run))

    def _read(self, run: Run, folder: Path) -> Facts:
        """Keys to numbers: users by first appearance, in the history's file first."""
        out = folder / "scratch" / "read"
        keys = as_array(read_folder(run.stages.work / "items", ["key"])["key"])
        read = self._given if self.options.histories else self._events
        past, dropped = read(run, keys)
        seen, more = self._seen(run, keys)
        names, user = number_keys(pa.chunked_array([*past["user"].chunks, *seen["user"].chunks]))
        past = past.set_column(0, "user", pa.array(user[: len(past)]))
        seen = seen.set_column(0, "user", pa.array(user[len(past) :]))
        pq.write_table(past, out / "past")
        pq.write_table(seen, out / "seen")
        pq.write_table(pa.table({"key": names}), out / "users")
        counted = {name: count for name, count in (dropped | more).items() if count}
        return Facts(dropped=counted | run.bad_rows.drain())

    def _given(self, run: Run, keys: pa.Array) -> tuple[pa.Table, dict[str, int]]:
        path, table = run.sources["histories"], self.options.histories
        rows = read_table(path, {"user": table.user, "items": table.items})
        check_types(rows, path, {"user": table.user}, is_plain)
        check_types(rows, path, {"items": table.items}, is_plain, is_key_list)
        user = to_key(rows["user"])
        rows = rows.set_column(0, "user", user)
        rows = mark(rows, pc.is_null(user), f"the {table.user} is empty", "user")
        rows = mark(rows, repeated(user), "user '{value}' stands twice", "user")
        rows = run.bad_rows.good(rows, path)
        lists = as_array(to_list(rows["items"], table.separator))
        words, offsets = lists.flatten(), offsets_of(lengths_of(lists))
        some = pc.fill_null(pc.not_equal(words, ""), False)
        index = pc.index_in(words, value_set=keys)
        known = pc.is_valid(index).to_numpy(zero_copy_only=False)
        items = index.filter(pa.array(known)).to_numpy(zero_copy_only=False).astype(np.int32) + 1
        unknown = int(pc.sum(some).as_py() or 0) - len(items)
        lists = list_array(keep(offsets, known), items.astype(np.int32))
        result = pa.table({"user": rows["user"], "items": lists})
        return result, {"unknown_items_in_histories": unknown}

    def _events(self, run: Run, keys: pa.Array) -> tuple[pa.Table, dict[str, int]]:
        path, table = run.sources["events"], self.options.events
        rows = read_table(path, {"user": table.user, "item": table.item, "time": table.time})
        names = {"user": table.user, "item": table.item, "time": table.time}
        check_types(rows, path, names, is_plain)
        rows = keyed(rows, {"user": table.user, "item": table.item})
        rows = timed(rows, table.time)
        rows = run.bad_rows.good(rows, path)
        rows, unknown = numbered(rows, keys)
        rows, again = distinct(rows, ["user", "item", "time"])
        dropped = {"unknown_items_in_events": unknown, "events_that_stand_twice": again}
        return rows.select(["user", "item", "time"]), dropped

    def _seen(self, run: Run, keys: pa.Array) -> tuple[pa.Table, dict[str, int]]:
        """All interactions, of whatever split."""
        roles = [role for role in run.sources if role.startswith("interactions")]
        tables = [self._seen_in(run, role) for role in roles]
        rows, unknown = numbered(pa.concat_tables(tables, promote_options="default"), keys)
        if not len(rows):
            raise InputError(
                Problem(
                    str(run.sources[roles[0]]),
                    f"no interaction is left: {unknown} name items that the items table lacks",
                    "is the right column named as the item's key?",
                )
            )
        same = [name for name in ("split", "impression", "item") if name in rows.column_names]
        rows, again = distinct(rows, same, first="label")
        dropped = {"unknown_items_in_interactions": unknown, "candidates_that_stand_twice": again}
        return rows, dropped

    def _seen_in(self, run: Run, role: str) -> pa.Table:
        path, table = run.sources[role], self.options.interactions
        _, _, split = role.partition("/")
        labeled = split != "test" or table.label in column_names(path)
        wanted = {"user": table.user, "item": table.item, "impression": table.impression,
                  "time": table.time, "split": table.split,
                  "label": table.label if labeled else None}  # fmt: skip
        names = {new: old for new, old in wanted.items() if old}
        rows = read_table(path, names)
        check_types(rows, path, names, is_plain)
        rows = keyed(
            rows,
            {n: str(o) for n, o in wanted.items() if o and n in ("user", "item", "impression")},
        )
        if table.time:
            rows = timed(rows, table.time)
        rows = (
            labelled(rows, table.label)
            if labeled
            else replace_column(rows, "label", pa.nulls(len(rows), pa.int8()))
        )
        if table.split:
            rows = replace_column(rows, "split", to_key(rows["split"]))
            fine = pc.is_in(rows["split"], value_set=pa.array(SPLITS))
            rows = mark(rows, pc.invert(fine), table.split + " is '{value}', expected train, valid "
                        "or test", "split")  # fmt: skip
        elif split:
            rows = replace_column(rows, "split", pa.array([split] * len(rows), pa.string()))
        rows = self._grouped(rows)
        return run.bad_rows.good(rows, path)

    def _grouped(self, rows: pa.Table) -> pa.Table:
        """`impression` where there was none, and problems where it has two users or times."""
        if "impression" not in rows.column_names:
            both = pc.binary_join_element_wise(rows["user"], rows["time"].cast(pa.string()), "\x1f")
            return rows.append_column("impression", both)
        for name in ("user", "time", "split"):
            if name in rows.column_names:
                rows = mark(rows, changes(rows["impression"], rows[name]),
                            f"impression '{{value}}' has another {name} than in an earlier row",
                            "impression")  # fmt: skip
        return rows

    def _histories(self, run: Run, folder: Path) -> Facts:
        read = run.stages.work / "scratch" / "read"
        past, names = pq.read_table(read / "past"), pq.read_table(read / "users")
        users = len(names)
        user = past["user"].to_numpy()
        if self.options.events:
            time = past["time"].to_numpy()
            order = by_user_and_time(user, time)
            offsets, items = user_offsets(user, users), past["item"].to_numpy()[order]
        else:
            # Users are numbered as they stand in this file; those of the interactions come after.
            offsets, items = flat(past["items"], np.int32)
            offsets = np.append(offsets, np.full(users - len(user), offsets[-1]))
        numbers = np.arange(users, dtype=np.int32)
        facts = write_histories(folder, run.engine, numbers, offsets, items.astype(np.int32))
        columns, unseen = self._users(run, as_array(names["key"]))
        named = write_users(folder, run.engine, as_array(names["key"]), columns)
        dropped = {"unseen_users": unseen} if unseen else {}
        return named.model_copy(
            update={
                "counts": facts.counts | named.counts,
                "hashes": facts.hashes | named.hashes,
                "dropped": dropped | run.bad_rows.drain(),
            }
        )

    def _users(self, run: Run, keys: pa.Array) -> tuple[dict[str, pa.Array], int]:
        """The attributes of the users, and how many rows are of users that are never seen."""
        if self.options.users is None:
            return {}, 0
        path = run.sources["users"]
        named, columns = read_attributes(run, path, self.options.users, ("user", "key"))
        columns, unseen = user_columns(keys, pa.table({"user": named, **columns}), list(columns))
        if unseen == len(named):
            raise InputError(
                Problem(
                    str(path),
                    "names no user that the histories or interactions know",
                    "is the right column named as the user's key?",
                )
            )
        return columns, unseen

    def _interactions(self, run: Run, split: str, folder: Path) -> Facts:
        read = run.stages.work / "scratch" / "read"
        rows = pq.read_table(read / "seen")
        labeled = True
        if "split" in rows.column_names:
            rows = rows.filter(pc.equal(rows["split"], split))
            if not len(rows):
                raise InputError(Problem("options.interactions", f"there are no {split} rows"))
            labeled = rows["label"].null_count < len(rows)
        data = impressions_of(rows, self._ends(read, run), labeled=labeled)
        if "split" not in rows.column_names:
            data = data.take(temporal_split(data.time, self.shares)[SPLITS.index(split)])
        facts = write_interactions(folder, run.engine, split, data)
        return facts.model_copy(update={"protocol": self._protocol()})

    def _ends(self, read: Path, run: Run) -> Any:
        """A function (users, times) -> history_end."""
        past = pq.read_table(read / "past")
        user = past["user"].to_numpy()
        users = pq.read_metadata(read / "users").num_rows
        if self.options.events:
            time = past["time"].to_numpy()
            order = by_user_and_time(user, time)
            return lambda who, when: strictly_before(user[order], time[order], who, when, users)
        lengths = np.zeros(users, np.int32)
        lengths[user] = lengths_of(as_array(past["items"]))
        return lambda who, when: lengths[who]

    def _protocol(self) -> dict[str, Any]:
        table = self.options.interactions
        if table.split or not table.file:
            rule = "as given"
        else:
            shares = shares_text(self.shares)
            rule = f"temporal by the impression's time, {shares} of all impressions; equal times "
            rule += "stay together in the later period"
        past = "all events of the user strictly before the interaction's time"
        return {
            "split": rule,
            "history": past if self.options.events else "as given for each user",
            "negatives": "as given: rows with label 0",
        }
