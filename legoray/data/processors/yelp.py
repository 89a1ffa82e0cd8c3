"""Yelp's open data set: reviews of businesses.

A review of at least `like` stars is a click. Of users only the year in which they joined is taken:
all else that their file tells (averages, counts, elite years) was counted when the data were
published, and would tell of reviews that are still to come.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from legoray.data.cleaning import plain_text
from legoray.data.convert import to_time
from legoray.data.files import RawFolder
from legoray.data.jsonlines import records
from legoray.data.lines import mark
from legoray.data.processors.base import Run, Sources, user_columns
from legoray.data.processors.feedback import Attributes, FeedbackOptions, FeedbackProcessor
from legoray.data.processors.texts import counted_texts, place_of
from legoray.data.stream import Parse, TextBlock, optional_source, text_source

ATTRIBUTES = ("name", "categories", "city", "state")
BUSINESS = pa.schema([(name, pa.string()) for name in ("business_id", *ATTRIBUTES)])
REVIEW = pa.schema(
    [
        ("user_id", pa.string()),
        ("business_id", pa.string()),
        ("stars", pa.float64()),
        ("date", pa.string()),
    ]
)
USER = pa.schema([("user_id", pa.string()), ("yelping_since", pa.string())])


class YelpOptions(FeedbackOptions):
    """Options of `processor: yelp`."""

    like: float | None = Field(4.0, ge=1, le=5, description="a rating from here on is a click")


class Yelp(FeedbackProcessor):
    """Attributes: name, categories, city, state; of users, where their file is there: since."""

    Options = YelpOptions
    event = "review"
    default_text = ("name", "categories")
    attributes = ATTRIBUTES

    def sources(self, raw: RawFolder) -> Sources:
        names = {kind: f"yelp_academic_dataset_{kind}.json" for kind in ("review", "business")}
        found = {kind: text_source(raw, name) for kind, name in names.items()}
        users = optional_source(raw, "yelp_academic_dataset_user.json")
        return found | ({"user": users} if users else {})

    def read_items(self, run: Run) -> tuple[pa.Array, Attributes]:
        path = run.sources["business"]
        read = records(path, BUSINESS, ["business_id"])
        rows = run.whole(partial(_businesses, read=read), path, "business_id")
        rows = rows.rename_columns({"business_id": "key"})
        return counted_texts(run, rows, ATTRIBUTES)

    def read_events(self, run: Run) -> Iterator[pa.Table]:
        path = run.sources["review"]
        read = records(path, REVIEW, REVIEW.names)
        return run.streamed(partial(_reviews, read=read), path)

    def read_users(self, run: Run, keys: pa.Array) -> Attributes:
        if "user" not in run.sources:
            return {}
        path = run.sources["user"]
        read = records(path, USER, USER.names)
        rows = run.whole(partial(_users, read=read), path, "user")
        return user_columns(keys, rows, ["since"])[0]  # who reviewed nothing is no user


def _businesses(block: TextBlock, *, read: Parse) -> pa.Table:
    rows = read(block)
    columns = {"business_id": rows["business_id"]}
    for name in ATTRIBUTES:
        plain = plain_text(rows[name])
        columns |= {name: plain.text, f"markup/{name}": plain.marked}
    return pa.table({**columns, **place_of(rows)})


def _reviews(block: TextBlock, *, read: Parse) -> pa.Table:
    """A block of reviews as `user`, `item`, `value` and `time`."""
    rows = read(block)
    inside = pc.and_(pc.greater_equal(rows["stars"], 1), pc.less_equal(rows["stars"], 5))
    told = "its 'stars' is {value}, expected a number from 1 to 5"
    rows = mark(rows, pc.invert(inside), told, "stars")
    time = to_time(rows["date"])
    told = "its 'date' is '{value}', expected a time from 1970 on like 2018-07-07 22:09:11"
    rows = mark(rows, pc.less(pc.fill_null(time, -1), 0), told, "date")
    columns = {
        "user": rows["user_id"],
        "item": rows["business_id"],
        "value": rows["stars"],
        "time": time,
    }
    return pa.table({**columns, **place_of(rows)})


def _users(block: TextBlock, *, read: Parse) -> pa.Table:
    """A block of users as `user` and the year `since` which they are such."""
    rows = read(block)
    known = pc.is_valid(to_time(rows["yelping_since"]))
    told = "its 'yelping_since' is '{value}', expected a time like 2007-01-25 16:47:26"
    rows = mark(rows, pc.invert(known), told, "yelping_since")
    since = pc.utf8_slice_codeunits(pc.utf8_trim_whitespace(rows["yelping_since"]), 0, 4)
    return pa.table({"user": rows["user_id"], "since": since, **place_of(rows)})
