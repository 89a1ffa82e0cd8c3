"""MovieLens 100K, 1M, 10M and the CSV releases (latest, 20M, 25M, 32M).

A rating of at least `like` is a click; what a user liked before is the history.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from legoray.data.badrows import repeated
from legoray.data.convert import WHOLE, no_key, to_number
from legoray.data.files import RawFolder
from legoray.data.lines import PLACE, Block, Layout, blocks_of, mark, read_fields
from legoray.data.processors.base import Run, Sources, as_array, user_columns
from legoray.data.processors.feedback import Attributes, FeedbackOptions, FeedbackProcessor
from legoray.data.processors.movielens_users import (
    ATTRIBUTES,
    USERS_1M,
    USERS_100K,
    UsersFile,
    read_users,
)
from legoray.data.tabular import header_layout, read_table

RATING = ("user", "movie", "rating", "time")
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip
YEAR = r"^(?P<title>.*?)\s*\((?P<year>\d{4})\)\s*$"


@dataclass(frozen=True)
class Release:
    """The files of one release and how they are written."""

    movies: str
    ratings: str
    layout: Layout
    header: bool = False
    users: UsersFile | None = None


_PLAIN = Layout(RATING, "::", "'::'")
_CSV = Layout(RATING, ",", "commas")
_100K = Release("u.item", "u.data", Layout(RATING, "\t", "tabs"), users=USERS_100K)
_1M = Release("movies.dat", "ratings.dat", _PLAIN, users=USERS_1M)  # 10M has no users' file
_TABLE = Release("movies.csv", "ratings.csv", _CSV, header=True)
RELEASES = {"100k": _100K, "1m": _1M, "10m": _1M, "latest-small": _TABLE, "latest": _TABLE,
            "20m": _TABLE, "25m": _TABLE, "32m": _TABLE}  # fmt: skip
HEADER = {"userId": "user", "movieId": "movie", "rating": "rating", "timestamp": "time"}


class MovieLensOptions(FeedbackOptions):
    """Options of `processor: movielens`."""

    release: Literal["auto", "100k", "1m", "10m", "latest-small", "latest", "20m", "25m", "32m"] = (
        Field("auto", description="which files there are; found out if auto")
    )
    like: float | None = Field(4.0, ge=0.5, le=5, description="a rating from here on is a click")
    unrated: Literal["drop", "keep"] = Field("keep", description="movies that nobody rated")


class MovieLens(FeedbackProcessor):
    """Attributes: title (without its year), genres, year; of users, where told: age and so on."""

    Options = MovieLensOptions
    version = 3
    default_text = ("title", "genres")
    attributes = ("title", "genres", "year")

    def __init__(self, options: MovieLensOptions) -> None:
        super().__init__(options)
        self.release = RELEASES.get(options.release, _TABLE)

    def sources(self, raw: RawFolder) -> Sources:
        if self.options.release == "auto":
            self.release = max((_TABLE, _1M, _100K), key=partial(_files_of, raw.path))
        names = {"ratings": raw.file(self.release.ratings), "movies": raw.file(self.release.movies)}
        users = self.release.users
        if users and (raw.path / users.name).exists():
            names["users"] = raw.file(users.name)
        return names

    def read_items(self, run: Run) -> tuple[pa.Array, Attributes]:
        path = run.sources["movies"]
        read: Callable[[Path], pa.Table] = {"u.item": _movies_100k, "movies.csv": _movies_csv}.get(
            path.name, _movies_dat
        )
        rows = read(path)
        rows = mark(rows, pc.invert(pc.match_substring_regex(rows["id"], WHOLE)),
                    "the movie id is '{value}', expected a whole number", "id")  # fmt: skip
        rows = mark(rows, repeated(rows["id"]), "movie id '{value}' stands twice", "id")
        rows = run.bad_rows.good(rows, path).combine_chunks()
        year = pc.extract_regex(rows["title"], YEAR)
        named = pc.is_valid(year)
        columns = {
            "title": pc.if_else(named, pc.struct_field(year, "title"), rows["title"]),
            "genres": pc.replace_substring(_no_genres(rows["genres"]), "|", ", "),
            "year": pc.fill_null(pc.if_else(named, pc.struct_field(year, "year"), ""), ""),
        }
        return as_array(rows["id"]), {name: as_array(text) for name, text in columns.items()}

    def read_events(self, run: Run) -> Iterator[pa.Table]:
        path = run.sources["ratings"]
        header = self.release.header
        layout = header_layout(path, HEADER, ",", "commas") if header else self.release.layout
        parse = partial(parse_ratings, layout=layout, header=header)
        return run.parsed(parse, blocks_of(path), path)

    def read_users(self, run: Run, keys: pa.Array) -> Attributes:
        if "users" not in run.sources or not self.release.users:
            return {}
        rows = read_users(run, self.release.users, run.sources["users"])
        columns, others = user_columns(keys, rows, ATTRIBUTES)
        run.bad_rows.add({"users_without_a_rating": others} if others else {})
        return columns


def parse_ratings(block: Block, layout: Layout, *, header: bool) -> pa.Table:
    """A block of ratings as `user`, `item`, `value` and `time`."""
    rows = read_fields(block, layout)
    if header and block.start == 0:
        rows = rows.slice(1)
    rating = to_number(rows["rating"])
    time = pc.if_else(pc.match_substring_regex(rows["time"], WHOLE), rows["time"],
                      pa.scalar(None, pa.string())).cast(pa.int64())  # fmt: skip
    inside = pc.and_(pc.greater_equal(rating, 0), pc.less_equal(rating, 5))
    rows = mark(rows, pc.invert(pc.fill_null(inside, False)),
                "the rating is '{value}', expected a number from 0.5 to 5", "rating")  # fmt: skip
    known = pc.fill_null(pc.greater_equal(time, 0), False)
    rows = mark(rows, pc.invert(known), "the time is '{value}', expected whole seconds since 1970",
                "time")  # fmt: skip
    rows = mark(rows, no_key(rows["user"]), "the user is empty", "user")
    columns = {"user": rows["user"], "item": rows["movie"], "value": rating, "time": time}
    return pa.table({**columns, **{name: rows[name] for name in PLACE}})


def _movies_100k(path: Path) -> pa.Table:
    fields = ("id", "title", "date", "video date", "url", *GENRES)
    layout = Layout(fields, "|", "'|'", "latin-1")
    rows = pa.concat_tables([read_fields(block, layout) for block in blocks_of(path)])
    flags = [pc.if_else(pc.equal(rows[g], "1"), f"{g}|", "") for g in GENRES[1:]]
    genres = pc.utf8_rtrim(pc.binary_join_element_wise(*flags, ""), characters="|")
    return rows.select(["id", "title", *PLACE]).append_column("genres", genres)


def _movies_dat(path: Path) -> pa.Table:
    # 10M, which has tags.dat beside it, is UTF-8; 1M is Latin-1.
    encoding = "utf-8" if (path.parent / "tags.dat").exists() else "latin-1"
    layout = Layout(("id", "title", "genres"), "::", "'::'", encoding)
    return pa.concat_tables([read_fields(block, layout) for block in blocks_of(path)])


def _movies_csv(path: Path) -> pa.Table:
    return read_table(path, {"id": "movieId", "title": "title", "genres": "genres"})


def _no_genres(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.equal(column, "(no genres listed)"), "", column)


def _files_of(folder: Path, release: Release) -> int:
    """How many files of a release there are, whatever is left of them."""
    names = (release.movies, release.ratings)
    return sum((folder / n).exists() or (folder / f"{n}.zip").exists() for n in names)
