"""Book-Crossing: ratings from 1 to 10, and 0 where a book was had and not rated; no times.

The owners' BX-*.csv are Latin-1 with `;`, every field quoted, quotes within escaped by a backslash,
texts with entities of HTML. Copies without the prefix BX- are UTF-8 with commas and doubled quotes;
they lack the 19 books that a reader without escapes cannot split.

By default every row is a click; with `like: 7` ratings from 7 on are, and the rest, those without a
rating included, is what the user had and did not like.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from legoray.data.badrows import repeated
from legoray.data.cleaning import plain_text
from legoray.data.convert import by_distinct, no_key, to_number
from legoray.data.files import RawFolder
from legoray.data.lines import PLACE, blocks_of, mark, read_lines
from legoray.data.processors.ages import plausible_groups
from legoray.data.processors.base import Run, Sources, as_array, user_columns
from legoray.data.processors.feedback import Attributes, FeedbackOptions, FeedbackProcessor
from legoray.data.splitrule import Split, SplitRule
from legoray.data.tabular import header_layout, read_table

OWNERS = {"books": "BX-Books.csv", "users": "BX-Users.csv", "ratings": "BX-Book-Ratings.csv"}
COPIES = {"books": "Books.csv", "users": "Users.csv", "ratings": "Ratings.csv"}
BOOK = {
    "ISBN": "isbn", "Book-Title": "title", "Book-Author": "author",
    "Year-Of-Publication": "year", "Publisher": "publisher",
}  # fmt: skip
USER = {"User-ID": "user", "Location": "location", "Age": "age"}
RATING = {"User-ID": "user", "ISBN": "item", "Book-Rating": "value"}
TEXTS = ("title", "author", "publisher")


class BookCrossingOptions(FeedbackOptions):
    """Options of `processor: bookcrossing`."""

    like: float | None = Field(None, ge=1, le=10, description="a rating from here on is a click")
    split: Split = Field(SplitRule(name="leave-random-out"), description="there are no times")


class BookCrossing(FeedbackProcessor):
    """Attributes: title, author, year, publisher; of users age (as a group), location, country."""

    Options = BookCrossingOptions
    times = "none"
    default_text = ("title", "author")
    attributes = ("title", "author", "year", "publisher")

    def sources(self, raw: RawFolder) -> Sources:
        copies = (raw.path / COPIES["ratings"]).exists()
        found = (raw.path / OWNERS["ratings"]).exists()
        names = COPIES if copies and not found else OWNERS
        return {role: raw.file(name) for role, name in names.items()}

    def read_items(self, run: Run) -> tuple[pa.Array, Attributes]:
        path = run.sources["books"]
        rows = _read(path, BOOK)
        rows = mark(rows, pc.equal(rows["isbn"], ""), "the ISBN is empty", "isbn")
        rows = mark(rows, repeated(rows["isbn"]), "the ISBN '{value}' stands twice", "isbn")
        rows = run.bad_rows.good(rows, path)
        columns = {name: plain_text(rows[name]).text for name in TEXTS}
        known = pc.match_substring_regex(rows["year"], r"^[1-9]\d{3}$")  # 0: unknown
        columns["year"] = as_array(pc.if_else(known, rows["year"], ""))
        return as_array(rows["isbn"]), {name: columns[name] for name in self.attributes}

    def read_events(self, run: Run) -> Iterator[pa.Table]:
        path = run.sources["ratings"]
        rows = _read(path, RATING)
        value = by_distinct(rows["value"], to_number)
        inside = pc.and_(pc.greater_equal(value, 0), pc.less_equal(value, 10))
        rows = mark(rows, pc.invert(pc.fill_null(inside, False)),
                    "the rating is '{value}', expected 0 to 10", "value")  # fmt: skip
        rows = mark(rows, no_key(rows["user"]), "the user is '{value}', expected a key", "user")
        rows = rows.set_column(rows.schema.get_field_index("value"), "value", value)
        yield run.bad_rows.good(rows, path)

    def read_users(self, run: Run, keys: pa.Array) -> Attributes:
        path = run.sources["users"]
        rows = _read(path, USER)
        rows = mark(rows, repeated(rows["user"]), "user '{value}' stands twice", "user")
        rows = run.bad_rows.good(rows, path)
        location = plain_text(rows["location"]).text
        country = pc.struct_field(pc.extract_regex(location, r"(?P<last>[^,]*)$"), "last")
        country = pc.utf8_trim_whitespace(country)
        columns = {
            "user": rows["user"],
            "age": plausible_groups(by_distinct(rows["age"], to_number)),
            "location": location,
            "country": pc.if_else(pc.equal(country, "n/a"), "", country),
        }
        return user_columns(keys, pa.table(columns), ("age", "location", "country"))[0]


def _read(path: Path, names: Mapping[str, str]) -> pa.Table:
    """Some columns of either form as strings, and the columns of `PLACE`."""
    if path.name in COPIES.values():
        return read_table(path, {new: old for old, new in names.items()})
    return read_quoted(path, names)


def read_quoted(path: Path, names: Mapping[str, str]) -> pa.Table:
    """A file of the owners' form: `"1";"a \\"quoted\\" text";NULL`.

    A field ends at `";"`, which no text holds, so that a backslash at a text's end does no harm.

    Args:
        path: the file.
        names: name in the header -> name of the result.
    """
    fields = header_layout(path, names, ";", "';'").fields
    line = ";".join(rf'(?:"(?P<f{n}>.*?)"|NULL)' for n in range(len(fields)))
    rows = pa.concat_tables([read_lines(block, "latin-1") for block in blocks_of(path)]).slice(1)
    parts = pc.extract_regex(rows["line"], f"^{line}$")
    message = f"has not {len(fields)} quoted fields with ';' between: '{{value}}'"
    rows = mark(rows, pc.is_null(parts), message, "line")
    wanted = {name: pc.struct_field(parts, f"f{n}") for n, name in enumerate(fields)}
    texts = {
        new: pc.replace_substring_regex(wanted[new], r"\\(.)", r"\1") for new in names.values()
    }
    return pa.table({**texts, **{name: rows[name] for name in PLACE}})
