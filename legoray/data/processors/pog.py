"""POG (Alibaba iFashion): what users clicked before they clicked an outfit, and the outfits.

Each line of user_data.txt is one click on an outfit, with the items that the user had clicked
before, the same ones in many lines. What is recommended is `of: items` (the clicked items) or
`of: outfits`, whose text is that of their items. No time is told: lines and lists are in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from legoray.data.badrows import repeated
from legoray.data.convert import no_key
from legoray.data.corpus import Int64
from legoray.data.files import RawFolder
from legoray.data.lines import PLACE, PROBLEM, Block, Layout, blocks_of, mark, read_fields
from legoray.data.processors.base import Run, Sources, as_array
from legoray.data.processors.feedback import Attributes, FeedbackOptions, FeedbackProcessor
from legoray.data.ragged import keep, offsets_of, rows_of
from legoray.data.splitrule import Split, SplitRule

ITEMS = Layout(("id", "category", "picture", "title"), ",", "the first commas", rest=True)
OUTFITS = Layout(("id", "items"), ",", "commas")
USERS = Layout(("user", "items", "outfit"), ",", "commas")
BETWEEN = ";"


class POGOptions(FeedbackOptions):
    """Options of `processor: pog`."""

    of: Literal["items", "outfits"] = Field("items", description="what is recommended")
    split: Split = Field(
        SplitRule(name="leave-last-out"), description="leave-last-out or leave-random-out"
    )


class POG(FeedbackProcessor):
    """Attributes: the title, in Chinese, and the category's id; an outfit's are its items'."""

    Options = POGOptions
    event = "click"
    threshold = "a click"
    times = "order"
    attributes = ("title", "category")
    default_text = ("title",)

    def __init__(self, options: POGOptions) -> None:
        super().__init__(options)
        self.often = options.of == "items"  # two of three clicks stand in an earlier line too

    def sources(self, raw: RawFolder) -> Sources:
        names = {"items": "item_data.txt", "users": "user_data.txt"}
        if self.options.of == "outfits":
            names["outfits"] = "outfit_data.txt"
        return {role: raw.file(name) for role, name in names.items()}

    def read_items(self, run: Run) -> tuple[pa.Array, Attributes]:
        items = self._rows_of(run, "items", ITEMS, "item")
        columns = {name: as_array(items[name]) for name in ("title", "category")}
        if self.options.of == "items":
            return as_array(items["id"]), columns
        outfits = self._rows_of(run, "outfits", OUTFITS, "outfit")
        words, offsets = _words(outfits["items"])
        place = pc.index_in(words, value_set=as_array(items["id"]))
        known = place.is_valid().to_numpy(zero_copy_only=False)
        lacking = len(known) - int(known.sum())
        run.bad_rows.add({"unknown_items_in_outfits": lacking} if lacking else {})
        begin = pa.array(keep(offsets, known))
        joined = {name: _joined(c.take(place.drop_null()), begin) for name, c in columns.items()}
        return as_array(outfits["id"]), joined

    def _rows_of(self, run: Run, role: str, layout: Layout, what: str) -> pa.Table:
        """The rows of a file whose ids stand once."""
        path = run.sources[role]
        rows = pa.concat_tables([read_fields(block, layout) for block in blocks_of(path)])
        rows = mark(rows, pc.equal(rows["id"], ""), f"the {what}'s id is empty", "id")
        rows = mark(rows, repeated(rows["id"]), f"{what} '{{value}}' stands twice", "id")
        return run.bad_rows.good(rows, path).combine_chunks()

    def read_events(self, run: Run) -> Iterator[pa.Table]:
        path, outfits = run.sources["users"], self.options.of == "outfits"
        for rows in run.parsed(partial(parse_users, outfits=outfits), blocks_of(path), path):
            yield rows if outfits else _told(run, rows)


def parse_users(block: Block, *, outfits: bool) -> pa.Table:
    """A block of user_data.txt as `user` and `item`: the outfit, or each item clicked before it.

    A bad line is one row, without items.
    """
    rows = read_fields(block, USERS)
    rows = mark(rows, no_key(rows["user"]), "the user is empty", "user")
    rows = mark(rows, pc.equal(rows["outfit"], ""), "the outfit is empty", "outfit")
    if outfits:
        columns = {"user": rows["user"], "item": rows["outfit"]}
        return pa.table({**columns, **{name: rows[name] for name in PLACE}})
    words, offsets = _words(pc.if_else(pc.is_null(rows[PROBLEM]), rows["items"], ""))
    line = pa.array(rows_of(offsets))
    columns = {"user": rows["user"].take(line), "item": words}
    return pa.table({**columns, **{name: rows[name].take(line) for name in PLACE}})


def _told(run: Run, rows: pa.Table) -> pa.Table:
    """The clicks that name an item: some lines tell none, or end with a semicolon."""
    clicks = rows.filter(pc.not_equal(rows["item"], ""))
    lacking = len(rows) - len(clicks)
    run.bad_rows.add({"clicks_without_an_item": lacking} if lacking else {})
    return clicks


def _words(column: pa.ChunkedArray) -> tuple[pa.Array, Int64]:
    """Keys between semicolons, all one after another, and where each row's begin."""
    lists = pc.split_pattern(as_array(column), pattern=BETWEEN)
    return lists.flatten(), offsets_of(pc.list_value_length(lists).to_numpy(zero_copy_only=False))


def _joined(texts: pa.Array, begin: pa.Array) -> pa.Array:
    """All texts of each list as one."""
    lists = pa.LargeListArray.from_arrays(begin, texts.cast(pa.large_string()))
    separator = pa.scalar(", ", pa.large_string())
    return pc.binary_join(lists, separator).cast(pa.string())
