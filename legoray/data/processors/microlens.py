"""MicroLens 50K, 100K and 1M: who commented on which short video, and the videos' titles.

A comment is a click. The titles' files differ: 50K is CSV with a header; 100K (in English) and 1M
(in Chinese) have none, and what follows a line's first comma is the title, with quotes that need
not come in pairs.
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
from legoray.data.convert import WHOLE, no_key
from legoray.data.files import RawFolder
from legoray.data.lines import PLACE, Block, Layout, blocks_of, mark, read_fields
from legoray.data.processors.base import Run, Sources, as_array
from legoray.data.processors.feedback import Attributes, FeedbackOptions, FeedbackProcessor
from legoray.data.tabular import header_layout, read_table

PAIRS = {"user": "user", "item": "item", "timestamp": "time"}
TITLES = {
    "50k": "MicroLens-50k_titles.csv",
    "100k": "MicroLens-100k_title_en.csv",
    "1m": "MicroLens-1M_title.csv",
}
PLAIN = Layout(("id", "title"), ",", "the first comma", rest=True)
MILLISECONDS = 1000


class MicroLensOptions(FeedbackOptions):
    """Options of `processor: microlens`."""

    release: Literal["auto", "50k", "100k", "1m"] = Field(
        "auto", description="which files there are; found out if auto"
    )


class MicroLens(FeedbackProcessor):
    """The only attribute of a video is its title, with its tags (#...) as the author wrote them."""

    Options = MicroLensOptions
    event = "comment"
    threshold = "a comment"
    attributes = ("title",)

    def sources(self, raw: RawFolder) -> Sources:
        release = self.options.release
        if release == "auto":
            release = max(TITLES, key=lambda name: _files_of(raw.path, name))
        return {"titles": raw.file(TITLES[release]), "pairs": raw.file(_pairs(release))}

    def read_items(self, run: Run) -> tuple[pa.Array, Attributes]:
        path = run.sources["titles"]
        rows = read_titles(path)
        rows = mark(rows, pc.invert(pc.match_substring_regex(rows["id"], WHOLE)),
                    "the video's id is '{value}', expected a whole number", "id")  # fmt: skip
        rows = mark(rows, repeated(rows["id"]), "video '{value}' stands twice", "id")
        rows = run.bad_rows.good(rows, path).combine_chunks()
        return as_array(rows["id"]), {"title": as_array(pc.utf8_trim_whitespace(rows["title"]))}

    def read_events(self, run: Run) -> Iterator[pa.Table]:
        path = run.sources["pairs"]
        layout = header_layout(path, PAIRS, ",", "commas")
        return run.parsed(partial(parse_pairs, layout=layout), blocks_of(path), path)


def parse_pairs(block: Block, layout: Layout) -> pa.Table:
    """A block of pairs as `user`, `item` and `time` in seconds; the files have milliseconds."""
    rows = read_fields(block, layout)
    if block.start == 0:
        rows = rows.slice(1)
    whole = pc.match_substring_regex(rows["time"], WHOLE)
    time = pc.if_else(whole, rows["time"], pa.scalar(None, pa.string())).cast(pa.int64())
    known = pc.fill_null(pc.greater_equal(time, 0), False)
    told = "the time is '{value}', expected whole milliseconds since 1970"
    rows = mark(rows, pc.invert(known), told, "time")
    rows = mark(rows, no_key(rows["user"]), "the user is empty", "user")
    rows = mark(rows, no_key(rows["item"]), "the video is empty", "item")
    seconds = pc.divide(time, MILLISECONDS)
    columns = {"user": rows["user"], "item": rows["item"], "time": seconds}
    return pa.table({**columns, **{name: rows[name] for name in PLACE}})


def read_titles(path: Path) -> pa.Table:
    """`id` and `title`, and the columns of `PLACE`."""
    if path.name == TITLES["50k"]:
        return read_table(path, {"id": "item", "title": "title"})
    return pa.concat_tables([read_fields(block, PLAIN) for block in blocks_of(path)])


def _pairs(release: str) -> str:
    return TITLES[release].split("_")[0] + "_pairs.csv"


def _files_of(folder: Path, release: str) -> int:
    """How many files of a release there are, whatever is left of them."""
    names = (TITLES[release], _pairs(release))
    return sum((folder / n).exists() or (folder / f"{n}.zip").exists() for n in names)
