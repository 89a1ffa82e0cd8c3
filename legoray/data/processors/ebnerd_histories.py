"""EB-NeRD's histories: one for each user and official part, cut off before each impression."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from legoray.data.corpus import Int32, Int64
from legoray.data.engine import shard_name
from legoray.data.impressions import Parts, joined, save_places, sum_of, user_counts
from legoray.data.keyindex import KeyIndex
from legoray.data.lines import mark
from legoray.data.processors.base import Run, as_array, number_keys
from legoray.data.processors.ebnerd_rows import HISTORY_COLUMNS, PROFILE, parse_history
from legoray.data.ragged import flat, offsets_of, rows_of
from legoray.data.rowgroups import read_rows
from legoray.data.sequences import strictly_before
from legoray.data.stages import Facts
from legoray.data.tables import read_folder, write_histories, write_users

BATCH = 1 << 14  # histories at a time, where the file has huge row groups
NAMES = {  # arXiv 2410.03432, table 4; ages are the first year of ten, as they stand
    "gender": {"0": "male", "1": "female"},
    "postcode": {"0": "metropolitan", "1": "rural district", "2": "municipality",
                 "3": "provincial", "4": "big city"},
}  # fmt: skip


def read_histories(run: Run, path: Path, part: str, keys: KeyIndex, folder: Path) -> Facts:
    """Keep a part's histories (`user`, `items`, `times`) table by table in a folder.

    Raises:
        InputError: the file is damaged, or rows are bad and not skipped.
    """
    seen = pa.array([], pa.string())
    total = dict.fromkeys(("read", "without", "unknown"), 0)
    parse = partial(parse_history, keys=keys)
    tables = read_rows(run.engine, path, list(HISTORY_COLUMNS), parse, batch=BATCH)
    for number, rows in enumerate(tables):
        again = pc.is_in(rows["user"], value_set=seen)
        rows = mark(rows, again, "user '{value}' stands twice", "user")
        rows = run.bad_rows.good(rows, path)
        seen = pa.concat_arrays([seen, as_array(rows["user"])])
        total["read"] += len(rows)
        total["without"] += sum_of(rows["without"])
        total["unknown"] += sum_of(rows["unknown"])
        kept = rows.select(["user", "items", "times"])
        pq.write_table(kept, folder / shard_name(number))
    dropped = {
        f"history_items_without_id_or_time/{part}": total["without"],
        f"unknown_news_in_histories/{part}": total["unknown"],
    }
    counted = {name: count for name, count in dropped.items() if count}
    return Facts(counts={f"raw/histories/{part}": total["read"]}, dropped=counted)


def write_user_histories(run: Run, parts: Parts, folder: Path) -> Facts:
    """Users, their histories, and for each impression how much of one lies strictly before it."""
    work = run.stages.work / "scratch"
    columns = ["user", "time", *PROFILE]
    read = [read_folder(work / part, columns) for part in parts.names]
    keys, user = number_keys(pa.concat_tables(read)["user"])
    cuts = offsets_of(np.array([len(rows) for rows in read]))
    placed = _Placed(users=len(keys))
    facts = []
    for part, rows, start, end in zip(parts.names, read, cuts[:-1], cuts[1:], strict=True):
        time = rows["time"].to_numpy()
        facts.append(placed.add(work / "history" / part, part, keys, user[start:end], time))
    lengths = [len(rows) for rows in read]
    history, ends = np.concatenate(placed.history), np.concatenate(placed.ends)
    save_places(folder, parts, lengths, history, ends)
    profile, changed = _profiles(pa.concat_tables(read), user, len(keys))
    items = np.concatenate(placed.items)
    offsets = offsets_of(np.concatenate(placed.lengths))
    written = write_histories(folder, run.engine, np.concatenate(placed.users_of), offsets, items)
    users = write_users(folder, run.engine, keys, profile)
    dropped = Facts(dropped={"changed_user_attributes": changed} if changed else {})
    return joined([written, users, user_counts(run, parts), dropped, *facts])


class _Placed:
    """Histories of all parts as they are numbered, and the impressions that are placed in them."""

    def __init__(self, users: int) -> None:
        self.users = users
        self.count = 0
        self.users_of: list[Int32] = []
        self.lengths: list[NDArray[np.int64]] = []
        self.items: list[Int32] = []
        self.history: list[Int32] = []  # of the impressions
        self.ends: list[Int32] = []

    def add(self, folder: Path, part: str, keys: pa.Array, user: Int32, time: Int64) -> Facts:
        """Number a part's histories, and place its impressions in them.

        Args:
            folder: the part's histories as `read_histories` left them.
            part: its name.
            keys: of all users.
            user: `[I]` whose each impression is.
            time: `[I]` when it was.
        """
        number = np.full(self.users, -1, np.int32)
        end = np.zeros(len(user), np.int32)
        here = np.zeros(self.users, bool)
        here[user] = True
        unused = 0
        for path in sorted(folder.glob("*.parquet")):
            rows = pq.read_table(path)
            whose = pc.fill_null(pc.index_in(rows["user"], value_set=keys), -1).to_numpy()
            wanted = (whose >= 0) & here[whose]
            unused += int((~wanted).sum())
            rows, whose = rows.filter(pa.array(wanted)), whose[wanted]
            number[whose] = self._keep(whose, rows)
            _cut(end, user, time, rows, whose, self.users)
        lacking = np.flatnonzero(here & (number < 0)).astype(np.int32)
        number[lacking] = self._keep(lacking, None)
        self.history.append(number[user])
        self.ends.append(end)
        counts = {f"users_without_a_history/{part}": len(lacking),
                  f"histories_without_impressions/{part}": unused}  # fmt: skip
        return Facts(counts={name: count for name, count in counts.items() if count})

    def _keep(self, whose: Int32, rows: pa.Table | None) -> Int32:
        """The new numbers of some histories, empty ones where there are no rows."""
        offsets, items = np.zeros(len(whose) + 1, np.int64), np.zeros(0, np.int32)
        if rows is not None:
            offsets, items = flat(rows["items"], np.int32)
        self.users_of.append(whose.astype(np.int32))
        self.lengths.append(np.diff(offsets))
        self.items.append(items)
        first, self.count = self.count, self.count + len(whose)
        return np.arange(first, self.count, dtype=np.int32)


def _cut(end: Int32, user: Int32, time: Int64, rows: pa.Table, whose: Int32, users: int) -> None:
    """Set how much of these histories lies strictly before each impression of their users."""
    local = np.full(users, -1, np.int32)
    local[whose] = np.arange(len(whose), dtype=np.int32)
    at = np.flatnonzero(local[user] >= 0)
    offsets, times = flat(rows["times"], np.int64)
    event_user = rows_of(offsets).astype(np.int32)
    end[at] = strictly_before(event_user, times, local[user[at]], time[at], len(whose))


def _profiles(rows: pa.Table, user: Int32, users: int) -> tuple[dict[str, pa.Array], int]:
    """What each user first told, in words; and how many told something else later."""
    columns, changed = {}, 0
    for name in PROFILE:
        told = rows[name].is_valid().to_numpy()
        value = pc.drop_null(rows[name]).to_numpy()
        first_user, first = np.unique(user[told], return_index=True)
        pairs = len(np.unique(np.stack([user[told], value]), axis=1).T) if told.any() else 0
        changed += pairs - len(first_user)
        code = np.full(users, -1, np.int64)
        code[first_user] = value[first]
        text = pa.array(code, mask=code < 0).cast(pa.string())
        for known, word in NAMES.get(name, {}).items():
            text = pc.if_else(pc.equal(text, known), word, text)
        columns[name] = pc.fill_null(text, "")
    return columns, changed
