"""goodbooks-10k: ratings of the ten thousand most rated books of Goodreads, with readers' tags.

The ratings have no times; their owner says that the file is sorted by time, so a user's ratings
stand in their order (`leave-last-out`), and nothing is known of who rated before whom.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from legoray.data.badrows import repeated
from legoray.data.convert import WHOLE, by_distinct, no_key, to_key, to_number, to_text
from legoray.data.files import RawFolder
from legoray.data.lines import PLACE, Block, Layout, blocks_of, mark, read_fields
from legoray.data.processors.base import Run, Sources, as_array
from legoray.data.processors.feedback import Attributes, FeedbackOptions, FeedbackProcessor
from legoray.data.processors.tags import joined
from legoray.data.splitrule import Split, SplitRule
from legoray.data.tabular import header_layout, read_table

BOOKS = {
    "key": "book_id", "goodreads": "goodreads_book_id", "isbn": "isbn", "authors": "authors",
    "title": "title", "year": "original_publication_year", "language": "language_code",
}  # fmt: skip
RATING = {"user_id": "user", "book_id": "item", "rating": "value"}


class GoodbooksOptions(FeedbackOptions):
    """Options of `processor: goodbooks`."""

    like: float | None = Field(4.0, ge=1, le=5, description="a rating from here on is a click")
    split: Split = Field(SplitRule(name="leave-last-out"), description="or leave-random-out")
    most_tags: int = Field(20, ge=0, description="of a book, most given first; 0 for none")


class Goodbooks(FeedbackProcessor):
    """Attributes: title, authors, year, language, isbn (ten places) and tags."""

    Options = GoodbooksOptions
    times = "order"
    default_text = ("title", "authors")
    attributes: tuple[str, ...] = ("title", "authors", "year", "language", "isbn", "tags")

    def __init__(self, options: GoodbooksOptions) -> None:
        super().__init__(options)
        if not options.most_tags:
            self.attributes = self.attributes[:-1]

    def sources(self, raw: RawFolder) -> Sources:
        names = ("books", "ratings", *(("tags", "book_tags") if self.options.most_tags else ()))
        return {name: raw.file(f"{name}.csv") for name in names}

    def read_items(self, run: Run) -> tuple[pa.Array, Attributes]:
        path = run.sources["books"]
        rows = read_table(path, BOOKS)
        rows = mark(rows, pc.is_null(to_key(rows["key"])), "the book_id is empty", "key")
        rows = mark(rows, repeated(rows["key"]), "book_id '{value}' stands twice", "key")
        rows = run.bad_rows.good(rows, path)
        year = pc.replace_substring_regex(rows["year"], r"\.0$", "")
        columns = {name: to_text(rows[name]) for name in ("title", "authors", "language")}
        # isbn13 is left out: written as 9.78043902348e+12, it has lost its last digits.
        isbn = pc.if_else(pc.equal(rows["isbn"], ""), "", pc.utf8_lpad(rows["isbn"], 10, "0"))
        columns |= {"year": year, "isbn": isbn}
        if self.options.most_tags:
            columns["tags"] = self._tags(run, rows["goodreads"])
        attributes = {name: as_array(columns[name]) for name in self.attributes}
        return as_array(rows["key"]), attributes

    def _tags(self, run: Run, goodreads: pa.ChunkedArray) -> pa.Array:
        """Each book's tags; files name books by their numbers at Goodreads."""
        path = run.sources["tags"]
        names = read_table(path, {"tag": "tag_id", "name": "tag_name"})
        names = mark(names, repeated(names["tag"]), "tag_id '{value}' stands twice", "tag")
        names = run.bad_rows.good(names, path)
        path = run.sources["book_tags"]
        given = read_table(path, {"item": "goodreads_book_id", "tag": "tag_id", "count": "count"})
        whole = pc.match_substring_regex(given["count"], WHOLE)
        given = mark(given, pc.invert(whole), "the count is '{value}', expected a whole number",
                     "count")  # fmt: skip
        given = run.bad_rows.good(given, path)
        given = given.set_column(2, "count", given["count"].cast(pa.int64()))
        again = repeated(pc.binary_join_element_wise(given["item"], given["tag"], " "))
        given = given.filter(pc.invert(again))
        tags, unknown = joined(given, names, goodreads)
        twice = pc.sum(again).as_py() or 0
        run.bad_rows.add(unknown | ({"tags_given_again": twice} if twice else {}))
        return tags.top(len(goodreads), self.options.most_tags)

    def read_events(self, run: Run) -> Iterator[pa.Table]:
        path = run.sources["ratings"]
        layout = header_layout(path, RATING, ",", "commas")
        return run.parsed(partial(parse_ratings, layout=layout), blocks_of(path), path)


def parse_ratings(block: Block, layout: Layout) -> pa.Table:
    """A block of ratings as `user`, `item` and `value`."""
    rows = read_fields(block, layout)
    rows = rows.slice(1) if block.start == 0 else rows
    value = by_distinct(rows["value"], to_number)
    inside = pc.and_(pc.greater_equal(value, 1), pc.less_equal(value, 5))
    rows = mark(rows, pc.invert(pc.fill_null(inside, False)),
                "the rating is '{value}', expected 1 to 5", "value")  # fmt: skip
    rows = mark(rows, no_key(rows["user"]), "the user is '{value}', expected a key", "user")
    columns = {"user": rows["user"], "item": rows["item"], "value": value}
    return pa.table({**columns, **{name: rows[name] for name in PLACE}})
