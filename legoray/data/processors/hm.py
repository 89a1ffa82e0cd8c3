"""H&M Personalized Fashion Recommendations: two years of purchases, day by day.

A purchase is a click. Only its day is known, so that one basket is never in its own history.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from legoray.data.badrows import repeated
from legoray.data.convert import WHOLE, by_distinct, no_key, to_number
from legoray.data.files import RawFolder
from legoray.data.lines import PLACE, Block, Layout, blocks_of, mark, read_fields
from legoray.data.processors.ages import age_groups
from legoray.data.processors.base import Run, Sources, as_array, user_columns
from legoray.data.processors.feedback import Attributes, FeedbackOptions, FeedbackProcessor
from legoray.data.tabular import header_layout, read_table

FILES = {
    "articles": "articles.csv",
    "customers": "customers.csv",
    "transactions": "transactions_train.csv",
}
ARTICLES = {
    "title": "prod_name",
    "description": "detail_desc",
    "type": "product_type_name",
    "group": "product_group_name",
    "appearance": "graphical_appearance_name",
    "colour": "colour_group_name",
    "department": "department_name",
    "index": "index_name",
    "section": "section_name",
    "garment": "garment_group_name",
}
CUSTOMERS = {"age": "age", "club": "club_member_status", "news": "fashion_news_frequency"}
TRANSACTIONS = {"t_dat": "day", "customer_id": "user", "article_id": "item"}
DIGITS = 10  # of an article's id; copies made with a spreadsheet lack the zeros in front


class HMOptions(FeedbackOptions):
    """Options of `processor: hm`."""

    unrated: Literal["drop", "keep"] = Field("keep", description="articles that nobody bought")


class HM(FeedbackProcessor):
    """Attributes of articles: title, description, colour and other names; of customers: age group,
    club membership, how often they get fashion news. Their postal codes are left out."""

    Options = HMOptions
    event = "purchase"
    threshold = "a purchase"
    default_text = ("title", "description")
    attributes = tuple(ARTICLES)

    def sources(self, raw: RawFolder) -> Sources:
        return {role: raw.file(name) for role, name in FILES.items()}

    def read_items(self, run: Run) -> tuple[pa.Array, Attributes]:
        path = run.sources["articles"]
        rows = read_table(path, {"id": "article_id", **ARTICLES})
        rows = rows.set_column(0, "id", article_ids(rows["id"]))
        rows = mark(rows, pc.invert(pc.match_substring_regex(rows["id"], WHOLE)),
                    "the article id is '{value}', expected a whole number", "id")  # fmt: skip
        rows = mark(rows, repeated(rows["id"]), "article id '{value}' stands twice", "id")
        rows = run.bad_rows.good(rows, path)
        return as_array(rows["id"]), {name: as_array(rows[name]) for name in ARTICLES}

    def read_events(self, run: Run) -> Iterator[pa.Table]:
        path = run.sources["transactions"]
        layout = header_layout(path, TRANSACTIONS, ",", "commas")
        return run.parsed(partial(parse_purchases, layout=layout), blocks_of(path), path)

    def read_users(self, run: Run, keys: pa.Array) -> Attributes:
        path = run.sources["customers"]
        rows = run.bad_rows.good(read_customers(path), path)
        columns, others = user_columns(keys, rows, list(CUSTOMERS))
        run.bad_rows.add({"customers_without_a_purchase": others} if others else {})
        return columns


def article_ids(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Ids as the owners write them, with zeros in front."""
    return pc.utf8_lpad(column, width=DIGITS, padding="0")


def parse_purchases(block: Block, layout: Layout) -> pa.Table:
    """A block of transactions as `user`, `item` and `time`, the first second of the day."""
    rows = read_fields(block, layout)
    if block.start == 0:
        rows = rows.slice(1)
    time = by_distinct(rows["day"], _days)
    known = pc.fill_null(pc.greater_equal(time, 0), False)
    rows = mark(rows, pc.invert(known), "the day is '{value}', expected one like 2018-09-20", "day")
    rows = mark(rows, no_key(rows["user"]), "the customer is empty", "user")
    rows = mark(rows, no_key(rows["item"]), "the article is empty", "item")
    columns = {"user": rows["user"], "item": article_ids(rows["item"]), "time": time}
    return pa.table({**columns, **{name: rows[name] for name in PLACE}})


def _days(column: pa.ChunkedArray) -> pa.ChunkedArray:
    parsed = pc.strptime(column, format="%Y-%m-%d", unit="s", error_is_null=True)
    return parsed.cast(pa.int64())


def read_customers(path: Path) -> pa.Table:
    """`user` and `CUSTOMERS`, the age as a group; empty where the file tells nothing."""
    rows = read_table(path, {"user": "customer_id", **CUSTOMERS})
    rows = mark(rows, no_key(rows["user"]), "the customer is empty", "user")
    rows = mark(rows, repeated(rows["user"]), "customer '{value}' stands twice", "user")
    age = to_number(rows["age"])
    untold = pc.equal(rows["age"], "")
    wrong = pc.invert(pc.or_(untold, pc.fill_null(pc.greater(age, 0), False)))
    rows = mark(rows, wrong, "the age is '{value}', expected years or nothing", "age")
    columns = {
        "age": pc.if_else(untold, "", age_groups(age)),
        "club": pc.utf8_lower(rows["club"]),
        "news": pc.utf8_lower(rows["news"]),  # the files have both NONE and None
    }
    return pa.table({"user": rows["user"], **columns, **{name: rows[name] for name in PLACE}})
