"""Feedback of the user's own: a table of items, one of events (ratings, plays, purchases).

For clicks without impressions; where it is known what was shown, `processor: own` reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from legoray.config import FileForm, OrWord
from legoray.data.convert import is_plain, to_key, to_number, to_time
from legoray.data.files import RawFolder
from legoray.data.lines import mark
from legoray.data.processors.base import Run, Sources, user_columns
from legoray.data.processors.feedback import Attributes, FeedbackOptions, FeedbackProcessor
from legoray.data.processors.keyed import read_attributes
from legoray.data.processors.own_columns import check_types
from legoray.data.processors.own_options import ItemsTable, Short, UsersTable
from legoray.data.tabular import read_table


class ItemsFile(ItemsTable, FileForm):
    """One row per item."""


class UsersFile(UsersTable, FileForm):
    """One row per user."""


class EventsFile(FileForm):
    """One row per event."""

    file: str
    user: str = "user"
    item: str = "item"
    time: str | None = Field("time", description="null: rows are in order, or nothing is known")
    value: str | None = Field(None, description="a rating or a count, for `like`")


class OwnFeedbackOptions(FeedbackOptions):
    """Options of `processor: feedback`. A table may be a file's name alone."""

    items: Annotated[ItemsFile, Short, OrWord()]
    events: Annotated[EventsFile, Short, OrWord()]
    users: Annotated[UsersFile | None, Short, OrWord()] = None


class OwnFeedback(FeedbackProcessor):
    """Attributes: the columns of the items' and users' tables."""

    Options = OwnFeedbackOptions
    event = "event"
    threshold = "an event with a value of at least {like:g}"

    def __init__(self, options: OwnFeedbackOptions) -> None:
        self.times = "known" if options.events.time else "order"
        super().__init__(options)

    def sources(self, raw: RawFolder) -> Sources:
        options = self.options
        tables = {"events": options.events, "items": options.items, "users": options.users}
        return {
            role: raw.file(table.file, text=table.is_text(table.file))
            for role, table in tables.items()
            if table
        }

    def read_items(self, run: Run) -> tuple[pa.Array, Attributes]:
        table = self.options.items
        return read_attributes(run, run.sources["items"], table, ("item_id", "key"), table)

    def read_events(self, run: Run) -> Iterator[pa.Table]:
        path, table = run.sources["events"], self.options.events
        asked = {"user": table.user, "item": table.item, "time": table.time, "value": table.value}
        names = {name: column for name, column in asked.items() if column}
        rows = read_table(path, names, table)
        check_types(rows, path, names, is_plain)
        for name in ("user", "item"):
            key = to_key(rows[name])
            rows = rows.set_column(rows.schema.get_field_index(name), name, key)
            rows = mark(rows, pc.is_null(key), f"the {names[name]} is empty", name)
        for name, convert, expected in (
            ("time", to_time, "seconds since 1970 or ISO 8601"),
            ("value", to_number, "a number"),
        ):
            if name in names:
                found = convert(rows[name])
                told = f"the {names[name]} is '{{value}}', expected {expected}"
                rows = mark(rows, _wrong(found, name), told, name)
                rows = rows.set_column(rows.schema.get_field_index(name), name, found)
        yield run.bad_rows.good(rows, path)

    def read_users(self, run: Run, keys: pa.Array) -> Attributes:
        table = self.options.users
        if table is None:
            return {}
        found, columns = read_attributes(run, run.sources["users"], table, ("user", "key"), table)
        rows = pa.table({"user": found, **columns})
        return user_columns(keys, rows, list(columns))[0]


def _wrong(found: pa.ChunkedArray, name: str) -> pa.Array:
    """Where nothing was found, or a time before 1970."""
    early = pc.less(found, 0) if name == "time" else pa.array(np.zeros(len(found), bool))
    return pc.or_kleene(pc.is_null(found), early)
