"""Goodreads (UCSD Book Graph): the whole of it, or one genre.

An interaction is a book on a user's shelf, with a rating of 1 to 5, or 0 where there is none. A
rating of at least `like` is a click; with `like: null` every book on a shelf is one, with `read:
true` every book that was read.

Times are those of the site's pages. When a book was read (`read_at`) users say themselves, if at
all: there are years like 0201 and 2208. What lies before 1970 or after 2099 is no time.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from legoray.config import Positive
from legoray.data.cleaning import joined, plain_text
from legoray.data.files import RawFolder
from legoray.data.jsonlines import records
from legoray.data.lines import mark
from legoray.data.processors.base import Run, Sources
from legoray.data.processors.feedback import Attributes, FeedbackOptions, FeedbackProcessor
from legoray.data.processors.texts import counted_texts, left_out, place_of, shortened
from legoray.data.stream import Parse, TextBlock, optional_source, text_source

ATTRIBUTES = ("title", "authors", "description", "year", "language")
BOOKS = pa.schema(
    [
        ("book_id", pa.string()),
        ("title", pa.string()),
        ("description", pa.string()),
        ("publication_year", pa.string()),
        ("language_code", pa.string()),
        ("authors", pa.list_(pa.struct([("author_id", pa.string())]))),
    ]
)
AUTHORS = pa.schema([("author_id", pa.string()), ("name", pa.string())])
TIMES = {"added": "date_added", "updated": "date_updated", "read": "read_at"}
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
WHEN = (
    r"^[A-Z][a-z]{2} (?P<month>[A-Z][a-z]{2}) (?P<day>\d{2}) (?P<clock>\d{2}:\d{2}:\d{2}) "
    r"(?P<sign>[+-])(?P<hours>\d{2})(?P<minutes>\d{2}) (?P<year>-?\d{1,6})$"
)


class GoodreadsOptions(FeedbackOptions):
    """Options of `processor: goodreads`."""

    genre: (
        Literal[
            "children",
            "comics_graphic",
            "fantasy_paranormal",
            "history_biography",
            "mystery_thriller_crime",
            "poetry",
            "romance",
            "young_adult",
        ]
        | None
    ) = Field(None, description="whose files there are; those of all books if null")
    like: float | None = Field(4.0, ge=1, le=5, description="a rating from here on is a click")
    read: bool = Field(False, description="only books that the user has read")
    time: Literal["added", "updated", "read"] = Field(
        "added", description="when the book was put on the shelf, last changed there, or read"
    )
    longest: Positive = Field(1000, description="characters that are kept of a text")


class Goodreads(FeedbackProcessor):
    """Attributes: title, authors (where their file is there), description, year, language."""

    Options = GoodreadsOptions
    event = "interaction"
    default_text = ("title", "authors")
    attributes = ATTRIBUTES

    def sources(self, raw: RawFolder) -> Sources:
        genre = f"_{self.options.genre}" if self.options.genre else ""
        names = [f"goodreads_interactions{genre}.json.gz"]
        if not genre:
            names = ["goodreads_interactions_dedup.json.gz", *names]
        found = {
            "interactions": text_source(raw, *names),
            "books": text_source(raw, f"goodreads_books{genre}.json.gz"),
        }
        authors = optional_source(raw, "goodreads_book_authors.json.gz")
        return found | ({"authors": authors} if authors else {})

    def read_items(self, run: Run) -> tuple[pa.Array, Attributes]:
        path = run.sources["books"]
        parse: Parse = partial(_books, read=records(path, BOOKS, ["book_id"]))
        parse = shortened(parse, ("title", "description"), self.options.longest)
        rows = run.whole(parse, path, "book_id")
        rows = rows.append_column("authors", self._authors(run, rows["author_ids"]))
        rows = rows.drop_columns(["author_ids"]).rename_columns({"book_id": "key"})
        return counted_texts(run, rows, ATTRIBUTES)

    def _authors(self, run: Run, ids: pa.ChunkedArray) -> pa.Array:
        """The names of each book's authors, in their order."""
        path = run.sources.get("authors")
        if path is None:
            return pa.array([""] * len(ids))
        people = run.whole(records(path, AUTHORS, ["author_id"]), path, "author_id")
        lists = ids.combine_chunks()
        place = pc.index_in(lists.values, value_set=people["author_id"].combine_chunks())
        names = pc.fill_null(plain_text(people["name"]).text.take(place), "")
        left_out(run, "authors_without_a_name", pc.equal(names, ""))
        return joined(pa.ListArray.from_arrays(lists.offsets, names), ", ")

    def read_events(self, run: Run) -> Iterator[pa.Table]:
        path, when = run.sources["interactions"], TIMES[self.options.time]
        fields: list[Any] = [("user_id", pa.string()), ("book_id", pa.string())]
        fields += [("is_read", pa.bool_()), ("rating", pa.float64()), (when, pa.string())]
        read = records(path, pa.schema(fields), ["user_id", "book_id", "is_read", "rating"])
        for table in run.streamed(partial(_interactions, read=read, when=when), path):
            rows = table
            if self.options.read:
                left_out(run, "interactions_without_reading", pc.invert(rows["is_read"]))
                rows = rows.filter(rows["is_read"])
            yield rows.drop_columns(["is_read"])


def seconds_of(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """`Wed Jan 04 00:00:00 -0800 2012` as seconds since 1970; null where it is no such time."""
    parts = pc.extract_regex(column, WHEN)
    part = {name: pc.struct_field(parts, name) for name in ("day", "clock", "year")}
    month = pc.index_in(pc.struct_field(parts, "month"), value_set=pa.array(MONTHS))
    number = pc.utf8_lpad(pc.add(month, 1).cast(pa.string()), 2, "0")
    year = pc.if_else(pc.equal(pc.utf8_length(part["year"]), 4), part["year"], None)
    text = pc.binary_join_element_wise(year, number, part["day"], part["clock"], " ")
    local = pc.strptime(text, format="%Y %m %d %H:%M:%S", unit="s", error_is_null=True)
    hours, minutes = (
        pc.struct_field(parts, name).cast(pa.int64()) for name in ("hours", "minutes")
    )
    ahead = pc.add(pc.multiply(hours, 3600), pc.multiply(minutes, 60))
    sign = pc.if_else(pc.equal(pc.struct_field(parts, "sign"), "-"), -1, 1)
    seconds = pc.subtract(local.cast(pa.int64()), pc.multiply(ahead, sign))
    real = pc.equal(pc.day(local), part["day"].cast(pa.int64()))  # February the 30th is none
    known = pc.and_(pc.greater_equal(seconds, 0), pc.less(seconds, 4_102_444_800))
    known = pc.and_(known, real)
    return pc.if_else(known, seconds, pa.scalar(None, pa.int64()))


def _books(block: TextBlock, *, read: Parse) -> pa.Table:
    rows = read(block)
    title, description = plain_text(rows["title"]), plain_text(rows["description"])
    lists = rows["authors"].combine_chunks()
    lists = pc.if_else(pc.is_null(lists), pa.scalar([], lists.type), lists)
    ids = pa.ListArray.from_arrays(lists.offsets, pc.struct_field(lists.values, "author_id"))
    columns = {
        "book_id": rows["book_id"],
        "title": title.text,
        "description": description.text,
        "year": pc.fill_null(rows["publication_year"], ""),
        "language": pc.fill_null(rows["language_code"], ""),
        "author_ids": ids,
        "markup/title": title.marked,
        "markup/description": description.marked,
    }
    return pa.table({**columns, **place_of(rows)})


def _interactions(block: TextBlock, *, read: Parse, when: str) -> pa.Table:
    """A block of interactions as `user`, `item`, `value` and `time`, and whether it was read."""
    rows = read(block)
    inside = pc.and_(pc.greater_equal(rows["rating"], 0), pc.less_equal(rows["rating"], 5))
    told = "its 'rating' is {value}, expected 1 to 5, or 0 for none"
    rows = mark(rows, pc.invert(inside), told, "rating")
    text = pc.fill_null(rows[when], "")
    strange = pc.and_(pc.not_equal(text, ""), pc.invert(pc.match_substring_regex(text, WHEN)))
    told = f"its '{when}' is '{{value}}', expected a time like Wed Jan 04 00:00:00 -0800 2012"
    rows = mark(rows, strange, told, when)
    columns = {
        "user": rows["user_id"],
        "item": rows["book_id"],
        "value": rows["rating"],
        "time": seconds_of(text),
        "is_read": rows["is_read"],
    }
    return pa.table({**columns, **place_of(rows)})
