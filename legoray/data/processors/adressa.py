"""Adressa (Adresseavisen, Trondheim): JSON lines of reading events, one file per day.

Format: Gulla et al., The Adressa Dataset for News Recommendation, WI 2017, and
https://reclab.idi.ntnu.no/dataset/. Articles are described by the events themselves; those of the
home page have no `id`, and are none of the readings. There are no impressions: a reading is
measured against sampled negatives.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, timedelta
from functools import partial
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from legoray.data.files import RawFolder
from legoray.data.jsonlines import records
from legoray.data.lines import PLACE, mark
from legoray.data.processors.base import Run, Sources, as_array
from legoray.data.processors.feedback import Attributes, FeedbackOptions, FeedbackProcessor
from legoray.data.processors.texts import left_out
from legoray.data.stream import Parse, TextBlock
from legoray.errors import Problem

EVENT = pa.schema([
    ("userId", pa.string()), ("time", pa.int64()), ("id", pa.string()), ("title", pa.string()),
    ("category1", pa.string()), ("keywords", pa.string()), ("activeTime", pa.float64()),
])  # fmt: skip
ATTRIBUTES = ("title", "category", "subcategory", "keywords")
SHOWN = 3  # days that are named at once
DAY = re.compile(r"\d{8}(\.json)?(\.gz)?")


class AdressaOptions(FeedbackOptions):
    """Options of `processor: adressa`."""

    like: float | None = Field(
        None, gt=0, description="seconds of reading that make a click; every reading if null"
    )
    gaps: Literal["fail", "allow"] = Field(
        "fail", description="what becomes of days that have no file, between two that have one"
    )


class Adressa(FeedbackProcessor):
    """A reading's value is its `activeTime` in seconds, 0 where it was not measured."""

    Options = AdressaOptions
    attributes = ATTRIBUTES
    default_text = ("title",)
    event = "reading"
    threshold = "a reading of at least {like:g} measured seconds"

    def sources(self, raw: RawFolder) -> Sources:
        days = sorted(path.name for path in raw.path.iterdir() if DAY.fullmatch(path.name))
        if not days:
            inside = [path.name for path in raw.path.iterdir() if path.is_dir()]
            hint = f"do they lie in {inside[0]}?" if len(inside) == 1 else raw.advice
            raw.problems.append(Problem(str(raw.path), "holds no day, a file like 20170101", hint))
        elif self.options.gaps == "fail":
            _note_gaps(raw, days)
        return {day: raw.file(day, text=not day.endswith(".gz")) for day in days}

    def read_items(self, run: Run) -> tuple[pa.Array, Attributes]:
        """The articles that any event names, in order of their ids; of each the first texts."""
        known = pa.table({name: pa.array([], pa.string()) for name in ("key", *ATTRIBUTES)})
        for path in run.sources.values():
            parse = partial(_articles, read=records(path, EVENT, ["userId", "time"]))
            for rows in run.streamed(parse, path):
                known = _first_texts(pa.concat_tables([known, rows]))
        known = known.sort_by("key")
        columns = {name: as_array(known[name]) for name in ATTRIBUTES}
        left_out(run, "items_without_a_title", pc.equal(columns["title"], ""))
        return as_array(known["key"]), columns

    def read_events(self, run: Run) -> Iterator[pa.Table]:
        for path in run.sources.values():
            parse = partial(_readings, read=records(path, EVENT, ["userId", "time"]))
            for rows in run.streamed(parse, path):
                home = pc.is_null(rows["item"])
                left_out(run, "home_page_events", home)
                yield rows.filter(pc.invert(home))


def _note_gaps(raw: RawFolder, days: list[str]) -> None:
    """Note a problem for the first days without a file, between the first day and the last."""
    found = {day[:8] for day in days}
    try:
        dates = [date(int(d[:4]), int(d[4:6]), int(d[6:])) for d in (min(found), max(found))]
    except ValueError:  # such as 20171350: no day of any calendar
        return
    span = (dates[1] - dates[0]).days
    missing = [f"{dates[0] + timedelta(n):%Y%m%d}" for n in range(span + 1)]
    missing = [day for day in missing if day not in found]
    for day in missing[:SHOWN]:
        raw.file(day)
    if missing:
        more = f"days between {min(found)} and {max(found)} that have no file: {len(missing)}"
        hint = "where the owners have none either: options.gaps: allow"
        raw.problems.append(Problem(str(raw.path), more, hint))


def _checked(block: TextBlock, read: Parse) -> pa.Table:
    """A block's events, those with impossible times marked."""
    rows = read(block)
    told = "its 'time' is {value}, expected whole seconds since 1970"
    return mark(rows, pc.less(rows["time"], 0), told, "time")


def _readings(block: TextBlock, *, read: Parse) -> pa.Table:
    """A block of events as `user`, `item` (null for the home page), `value` and `time`."""
    rows = _checked(block, read)
    columns = {
        "user": rows["userId"],
        "item": _or_null(rows["id"]),
        "value": pc.fill_null(rows["activeTime"], 0.0),
        "time": rows["time"],
    }
    return pa.table({**columns, **{name: rows[name] for name in PLACE}})


def _articles(block: TextBlock, *, read: Parse) -> pa.Table:
    """The articles that a block's events name, each once, with the columns of its first event.

    Bad rows are left in, for whoever refuses or counts them.
    """
    rows = _checked(block, read)
    category = pc.split_pattern(pc.fill_null(rows["category1"], ""), pattern="|", max_splits=1)
    rest = pc.list_slice(category, 1, 2)
    columns = {
        "key": _or_null(rows["id"]),
        "title": pc.fill_null(rows["title"], ""),
        "category": pc.list_element(category, 0),
        "subcategory": pc.replace_substring(pc.binary_join(rest, ""), "|", ", "),
        "keywords": pc.replace_substring(pc.fill_null(rows["keywords"], ""), ",", ", "),
    }
    return pa.table({**columns, **{name: rows[name] for name in PLACE}})


def _first_texts(rows: pa.Table) -> pa.Table:
    """One row for each key, with the first text of each attribute that is not empty."""
    rows = rows.filter(pc.is_valid(rows["key"])).combine_chunks()
    coded = as_array(rows["key"]).dictionary_encode()
    code = coded.indices.to_numpy(zero_copy_only=False)
    columns = {"key": coded.dictionary}
    for name in ATTRIBUTES:
        at = np.flatnonzero(pc.not_equal(rows[name], "").to_numpy(zero_copy_only=False))
        which, first = np.unique(code[at], return_index=True)
        place = np.full(len(coded.dictionary), -1, np.int64)
        place[which] = at[first]
        texts = as_array(rows[name]).take(pa.array(place, mask=place < 0))
        columns[name] = pc.fill_null(texts, "")
    return pa.table(columns)


def _or_null(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
