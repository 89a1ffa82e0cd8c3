"""Steam, version 2 of McAuley's lab: reviews of games in English, 2010 to 2018.

Of the lab's sets this is the one with times: its first version (`australian_users_items`) knows
hours played, but no time of any of them. A review is a click; with `like`, one by somebody who had
played so many hours. Users are known by the name they show, as only some rows have an id: this is
how the published number of users comes about. Reviews have days, not seconds.

The files are Python literals, read by a loop over lines: about 36 thousand reviews per second and
core, so that all of them take four minutes on one and less by Ray on several.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from legoray.data.cleaning import joined, plain_lists, plain_text
from legoray.data.convert import to_time
from legoray.data.files import RawFolder
from legoray.data.jsonlines import check_keys, read_records, records
from legoray.data.lines import mark
from legoray.data.processors.base import Run, Sources
from legoray.data.processors.feedback import Attributes, FeedbackOptions, FeedbackProcessor
from legoray.data.processors.texts import counted_texts, left_out, place_of, without_repeats
from legoray.data.stream import Parse, TextBlock, text_source

ATTRIBUTES = ("title", "genres", "tags", "developer")
GAMES = pa.schema(
    [
        ("id", pa.string()),
        ("app_name", pa.string()),
        ("title", pa.string()),
        ("genres", pa.list_(pa.string())),
        ("tags", pa.list_(pa.string())),
        ("developer", pa.string()),
    ]
)
REVIEWS = pa.schema(
    [
        ("username", pa.string()),
        ("product_id", pa.string()),
        ("date", pa.string()),
        ("hours", pa.float64()),
    ]
)


class SteamOptions(FeedbackOptions):
    """Options of `processor: steam`."""

    like: float | None = Field(None, ge=0, description="hours played from which on it is a click")


class Steam(FeedbackProcessor):
    """Attributes: title, genres, tags, developer."""

    Options = SteamOptions
    event = "review"
    threshold = "a review after at least {like:g} hours of play"
    default_text = ("title", "genres", "tags")
    attributes = ATTRIBUTES

    def sources(self, raw: RawFolder) -> Sources:
        names = {"reviews": "steam_reviews.json.gz", "games": "steam_games.json.gz"}
        return {kind: text_source(raw, name) for kind, name in names.items()}

    def read_items(self, run: Run) -> tuple[pa.Array, Attributes]:
        """The file is known to have two games without an id and one that stands twice."""
        path = run.sources["games"]
        check_keys(path, ["id"], "python")
        rows = pa.concat_tables(run.streamed(_games, path))
        nameless = pc.equal(rows["key"], "")
        left_out(run, "items_without_an_id", nameless)
        rows = without_repeats(run, rows.filter(pc.invert(nameless)))
        return counted_texts(run, rows, ATTRIBUTES)

    def read_events(self, run: Run) -> Iterator[pa.Table]:
        path = run.sources["reviews"]
        read = records(path, REVIEWS, ["username", "product_id", "date"], "python")
        return run.streamed(partial(_reviews, read=read), path)


def _games(block: TextBlock) -> pa.Table:
    """A block of games: `key` (empty where there is none) and the attributes."""
    rows = read_records(block, schema=GAMES, form="python")
    found = {
        "title": plain_text(pc.coalesce(rows["app_name"], rows["title"])),
        "genres": plain_lists(rows["genres"]),
        "tags": plain_lists(rows["tags"]),
        "developer": plain_text(rows["developer"]),
    }
    columns = {"key": pc.fill_null(rows["id"], "")}
    for name, plain in found.items():
        text = joined(plain.text, ", ") if pa.types.is_list(plain.text.type) else plain.text
        columns |= {name: text, f"markup/{name}": plain.marked}
    return pa.table({**columns, **place_of(rows)})


def _reviews(block: TextBlock, *, read: Parse) -> pa.Table:
    """A block of reviews as `user`, `item`, `value` (hours, 0 where not told) and `time`."""
    rows = read(block)
    time = to_time(rows["date"])
    told = "its 'date' is '{value}', expected a day from 1970 on like 2017-12-17"
    rows = mark(rows, pc.less(pc.fill_null(time, -1), 0), told, "date")
    hours = pc.fill_null(rows["hours"], 0.0)
    fine = pc.and_(pc.greater_equal(hours, 0), pc.is_finite(hours))
    rows = mark(rows, pc.invert(fine), "its 'hours' is {value}, expected hours of play", "hours")
    columns = {
        "user": rows["username"],
        "item": rows["product_id"],
        "value": hours,
        "time": time,
    }
    return pa.table({**columns, **place_of(rows)})
