"""The Netflix Prize: ratings of movies with their dates, in blocks headed by the movie's number.

The owners' release has one file per movie, Kaggle's copy four files of many movies. A rating of at
least `like` is a click. probe.txt, a part of the ratings that the owners named for trying models
out, is not held out: it says nothing of what came before what, so use one of the splits by time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from legoray.data.badrows import repeated
from legoray.data.convert import by_distinct, no_key, to_number
from legoray.data.files import RawFolder
from legoray.data.lines import (
    BLOCK,
    PLACE,
    Block,
    Layout,
    blocks_of,
    mark,
    read_lines,
    split_lines,
)
from legoray.data.processors.base import Run, Sources, as_array
from legoray.data.processors.feedback import Attributes, FeedbackOptions, FeedbackProcessor
from legoray.errors import InputError, Problem

TITLES = "movie_titles.csv"
COMBINED = tuple(f"combined_data_{number}.txt" for number in range(1, 5))
APART = "training_set"
TITLE = r"^(?P<id>\d+),(?P<year>\d{4}|NULL),(?P<title>.*)$"
RATING = Layout(("user", "value", "date"), ",", "commas")
ROWS = 1 << 19  # ratings of small files that are handed on together
LOOK_BACK = 1 << 16  # bytes


class NetflixOptions(FeedbackOptions):
    """Options of `processor: netflix`."""

    like: float | None = Field(4.0, ge=1, le=5, description="a rating from here on is a click")


class Netflix(FeedbackProcessor):
    """Attributes: title and year (empty where it is NULL)."""

    Options = NetflixOptions
    default_text = ("title",)
    attributes = ("title", "year")

    def sources(self, raw: RawFolder) -> Sources:
        names = {"titles": raw.file(TITLES)}
        if any((raw.path / name).exists() for name in COMBINED):
            return names | {Path(name).stem: raw.file(name) for name in COMBINED}
        there = {path.name for path in (raw.path / APART).glob("mv_*.txt")}
        if not there:
            return names | {Path(name).stem: raw.file(name) for name in COMBINED}
        apart = sorted(there | _expected(names["titles"]))
        return names | {Path(name).stem: raw.file(f"{APART}/{name}") for name in apart}

    def read_items(self, run: Run) -> tuple[pa.Array, Attributes]:
        path = run.sources["titles"]
        rows = pa.concat_tables([read_lines(block, "latin-1") for block in blocks_of(path)])
        parts = pc.extract_regex(rows["line"], TITLE)
        for name in ("id", "year", "title"):  # a title may hold commas
            rows = rows.append_column(name, pc.struct_field(parts, name))
        message = "is '{value}', expected a number, a year or NULL, and a title: 1,2003,Dinosaur"
        rows = mark(rows, pc.is_null(rows["id"]), message, "line")
        rows = mark(rows, repeated(rows["id"]), "movie '{value}' stands twice", "id")
        rows = run.bad_rows.good(rows, path)
        year = pc.if_else(pc.equal(rows["year"], "NULL"), "", rows["year"])
        return as_array(rows["id"]), {"title": as_array(rows["title"]), "year": as_array(year)}

    def read_events(self, run: Run) -> Iterator[pa.Table]:
        paths = [path for role, path in run.sources.items() if role != "titles"]
        if paths[0].parent.name == APART:
            yield from _together(run, paths)
            return
        for path in paths:
            _check_named(path)
            yield from run.parsed(parse_ratings, blocks_of(path), path)


def parse_ratings(block: Block) -> pa.Table:
    """A block of ratings as `user`, `item`, `value` and `time`.

    A rating's movie stands in the last line before it that ends with a colon: for the block's first
    ones that may be a line of an earlier block.
    """
    lines = read_lines(block)
    is_head = pc.ends_with(lines["line"], ":").to_numpy()
    movie = pc.utf8_rtrim(lines["line"].filter(pa.array(is_head)).combine_chunks(), ":")
    begin = lines[BLOCK][0].as_py() if len(lines) else 0  # of the first whole line
    movies = pa.concat_arrays([pa.array([_movie_before(block.path, begin)], pa.string()), movie])
    item = movies.take(pa.array(np.cumsum(is_head)[~is_head]))
    rows = split_lines(lines.filter(pa.array(~is_head)), RATING)
    rows = rows.append_column("item", item)
    value = by_distinct(rows["value"], to_number)
    time = by_distinct(rows["date"], _date)
    inside = pc.and_(pc.greater_equal(value, 1), pc.less_equal(value, 5))
    rows = mark(rows, pc.is_null(rows["item"]), "stands before the first movie (a line as `1:`)",
                "user")  # fmt: skip
    rows = mark(rows, pc.invert(pc.fill_null(inside, False)),
                "the rating is '{value}', expected 1 to 5", "value")  # fmt: skip
    rows = mark(rows, pc.is_null(time), "the date is '{value}', expected 2005-09-06", "date")
    rows = mark(rows, no_key(rows["user"]), "the user is '{value}', expected a key", "user")
    columns = {"user": rows["user"], "item": rows["item"], "value": value, "time": time}
    return pa.table({**columns, **{name: rows[name] for name in PLACE}})


def _movie_before(path: str, offset: int) -> str | None:
    """The movie to which the lines just before an offset belong; None where there is none.

    Colons stand in no other lines, so the last colon before the offset is the one.
    """
    with Path(path).open("rb") as file:
        end, tail = offset, b""
        while end:
            begin = max(0, end - LOOK_BACK)
            file.seek(begin)
            tail = file.read(end - begin) + tail[:32]  # a number may lie across two pieces
            colon = tail.rfind(b":")
            line = tail.rfind(b"\n", 0, colon) + 1 if colon >= 0 else 0
            if colon >= 0 and (line or not begin):
                return tail[line:colon].decode(errors="replace")
            end = begin
    return None


def _expected(titles: Path) -> set[str]:
    """The names of the movies' files, one for each title."""
    if not titles.is_file():
        return set()
    numbers = re.findall(rb"^(\d{1,7}),", titles.read_bytes(), re.MULTILINE)
    return {f"mv_{int(number):07d}.txt" for number in numbers}


def _date(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Seconds since 1970 of the day's begin; null for what is no date after 1970."""
    time = pc.strptime(column, format="%Y-%m-%d", unit="s", error_is_null=True).cast(pa.int64())
    return pc.if_else(pc.greater_equal(time, 0), time, pa.scalar(None, pa.int64()))


def _check_named(path: Path) -> None:
    """Refuse a file that begins with something else than ratings of movies."""
    with path.open("rb") as file:
        if b":" not in file.read(LOOK_BACK):
            raise InputError(Problem(str(path), "names no movie", "expected a line as `1:` first"))


def _together(run: Run, paths: Iterable[Path]) -> Iterator[pa.Table]:
    """The ratings of many small files, each read by itself, in larger pieces."""
    waiting: list[pa.Table] = []
    for path in paths:
        _check_named(path)
        for block in blocks_of(path):
            waiting.append(run.bad_rows.good(parse_ratings(block), path))
        if sum(map(len, waiting)) >= ROWS:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()
