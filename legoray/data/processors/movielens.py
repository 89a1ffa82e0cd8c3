"""MovieLens 100K, 1M, 10M and the CSV releases (latest, 20M, 25M, 32M).

A rating of at least `like` is a click; what a user liked before is the history. There are no
impressions, so each click is one, together with sampled negatives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from legoray.config import Positive, Strict
from legoray.data.badrows import repeated
from legoray.data.convert import WHOLE, to_number
from legoray.data.files import RawFolder
from legoray.data.lines import PLACE, Block, Layout, blocks_of, mark, read_fields
from legoray.data.processors.base import (
    Processor,
    Run,
    Sources,
    as_array,
    number_keys,
    user_columns,
)
from legoray.data.processors.movielens_users import (
    ATTRIBUTES,
    USERS_1M,
    USERS_100K,
    UsersFile,
    read_users,
)
from legoray.data.protocol import NegativeRule, Pool, temporal_split
from legoray.data.sequences import by_user_and_time, strictly_before, user_offsets
from legoray.data.stages import Facts
from legoray.data.tables import (
    clicks_with_negatives,
    read_folder,
    write_histories,
    write_interactions,
    write_items,
    write_users,
)
from legoray.data.tabular import csv_header, read_table
from legoray.errors import InputError, Problem

SPLITS = ("train", "valid", "test")
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
HEADER = ["userId", "movieId", "rating", "timestamp"]


class MovieLensOptions(Strict):
    """Options of `processor: movielens`."""

    release: Literal["auto", "100k", "1m", "10m", "latest-small", "latest", "20m", "25m", "32m"] = (
        Field("auto", description="which files there are; found out if auto")
    )
    like: float = Field(4.0, ge=0.5, le=5, description="a rating from here on is a click")
    negatives: Positive = Field(20, description="sampled negatives per click")
    negatives_by: Literal["uniform", "popularity"] = "uniform"
    seed: int = Field(1, ge=0, description="of the negatives")
    min_history: int = Field(1, ge=0, description="clicks with a shorter history are left out")
    shares: list[float] = Field(
        default_factory=lambda: [0.8, 0.1, 0.1], min_length=3, max_length=3,
        description="of train, valid, test by time",
    )  # fmt: skip


class MovieLens(Processor):
    """Attributes: title (without its year), genres, year; of users, where told: age and so on."""

    Options = MovieLensOptions
    version = 2
    default_text = ("title", "genres")
    attributes = ("title", "genres", "year")

    def __init__(self, options: MovieLensOptions) -> None:
        super().__init__(options)
        check_shares(options.shares)
        self.release = RELEASES.get(options.release, _TABLE)

    def sources(self, raw: RawFolder) -> Sources:
        if self.options.release == "auto":
            found = [r for r in (_100K, _1M, _TABLE) if (raw.path / r.ratings).exists()]
            self.release = found[0] if found else _TABLE
        movies, ratings = raw.file(self.release.movies), raw.file(self.release.ratings)
        names = {"movies": movies, "ratings": ratings}
        users = self.release.users
        if users and (raw.path / users.name).exists():
            names["users"] = raw.file(users.name)
        return names

    def process(self, run: Run) -> None:
        run.stages.run("items", ["items"], partial(self._items, run))
        run.stages.run("read/ratings", ["scratch/ratings"], partial(self._ratings, run))
        run.stages.run("histories", ["users", "histories"], partial(self._histories, run))
        run.each_split(partial(self._interactions, run))

    def _items(self, run: Run, folder: Path) -> Facts:
        path = run.sources["movies"]
        read: Callable[[Path], pa.Table] = {"u.item": _movies_100k, "movies.csv": _movies_csv}.get(
            path.name, _movies_dat
        )
        rows = read(path)
        rows = mark(rows, pc.invert(pc.match_substring_regex(rows["id"], WHOLE)),
                    "the movie id is '{value}', expected a whole number", "id")  # fmt: skip
        rows = mark(rows, repeated(rows["id"]), "movie id '{value}' stands twice", "id")
        rows = run.bad_rows.good(rows, path).combine_chunks()
        if not len(rows):
            raise InputError(Problem(str(path), "holds no movies"))
        year = pc.extract_regex(rows["title"], YEAR)
        named = pc.is_valid(year)
        title = pc.if_else(named, pc.struct_field(year, "title"), rows["title"])
        columns = {
            "title": title,
            "genres": pc.replace_substring(_no_genres(rows["genres"]), "|", ", "),
            "year": pc.fill_null(pc.if_else(named, pc.struct_field(year, "year"), ""), ""),
        }
        columns = {name: as_array(values) for name, values in columns.items()}
        facts = write_items(folder, run.engine, as_array(rows["id"]), columns)
        return facts.model_copy(update={"dropped": run.bad_rows.drain()})

    def _ratings(self, run: Run, folder: Path) -> Facts:
        """All ratings as numbers, in order of the file; users by first appearance."""
        path = run.sources["ratings"]
        keys = read_folder(run.stages.work / "items", ["key"])["key"].combine_chunks()
        layout = _layout(self.release, path)
        parse = partial(parse_ratings, layout=layout, header=self.release.header, keys=keys)
        rows = run.parse(parse, blocks_of(path), path)
        known = pc.is_valid(rows["item"])
        dropped = (
            {"ratings_of_unknown_movies": len(rows) - pc.sum(known).as_py()} if len(rows) else {}
        )
        rows = rows.filter(known)
        if not len(rows):
            raise InputError(Problem(str(path), "holds no rating of a movie in the movies file"))
        users, user = number_keys(rows["user"])
        item = rows["item"].to_numpy()
        first = np.unique(user.astype(np.int64) * (len(keys) + 1) + item, return_index=True)[1]
        dropped["ratings_given_again"] = len(rows) - len(first)
        first.sort()
        table = pa.table(
            {"user": user, "item": item, "rating": rows["rating"], "time": rows["time"]}
        )
        pq.write_table(table.take(pa.array(first)), folder / "scratch/ratings/part-00000.parquet")
        pq.write_table(pa.table({"key": users}), folder / "scratch/ratings/users.keys")
        counted = {name: count for name, count in dropped.items() if count}
        return Facts(dropped=counted | run.bad_rows.drain())

    def _histories(self, run: Run, folder: Path) -> Facts:
        liked = Liked.read(run.stages.work, self.options.like)
        offsets = user_offsets(liked.user, liked.users)
        numbers = np.arange(liked.users, dtype=np.int32)
        facts = write_histories(folder, run.engine, numbers, offsets, liked.item)
        names = pq.read_table(run.stages.work / "scratch/ratings/users.keys")
        keys = as_array(names["key"])
        columns: dict[str, pa.Array] = {}
        if "users" in run.sources and self.release.users:
            rows = read_users(run, self.release.users, run.sources["users"])
            columns, _ = user_columns(keys, rows, ATTRIBUTES)  # who rated nothing is no user
        users = write_users(folder, run.engine, keys, columns)
        return users.model_copy(
            update={
                "counts": facts.counts | users.counts,
                "hashes": facts.hashes | users.hashes,
                "dropped": run.bad_rows.drain(),
            }
        )

    def _interactions(self, run: Run, split: str, folder: Path) -> Facts:
        liked = Liked.read(run.stages.work, self.options.like)
        end = strictly_before(liked.user, liked.time, liked.user, liked.time, liked.users)
        long = np.flatnonzero(end >= self.options.min_history)
        order = long[np.argsort(liked.time[long], kind="stable")]
        parts = temporal_split(liked.time[order], self.options.shares)
        rule = NegativeRule(
            count=self.options.negatives, by=self.options.negatives_by, seed=self.options.seed
        )
        pool = liked.pool(train=order[parts[0]])
        number = SPLITS.index(split)
        chosen = order[parts[number]]
        sampled = pool.sample(rule, number, liked.user[chosen], liked.time[chosen])
        data = clicks_with_negatives(
            id=parts[number].astype(np.int64),
            history=liked.user[chosen].astype(np.int32),
            end=end[chosen],
            time=liked.time[chosen],
            item=liked.item[chosen],
            sampled=sampled,
        )
        facts = write_interactions(folder, run.engine, split, data)
        missing = len(chosen) * rule.count - len(sampled.item)
        dropped = {f"negatives_not_found/{split}": missing} if missing else {}
        short = len(end) - len(long)
        if short and split == "train":
            dropped["clicks_with_too_short_a_history"] = short
        return facts.model_copy(update={"dropped": dropped, "protocol": self._protocol(rule)})

    def _protocol(self, rule: NegativeRule) -> dict[str, Any]:
        shares = "/".join(f"{share:g}" for share in self.options.shares)
        return {
            "split": f"temporal by the click's time, {shares} of all clicks; equal times stay "
            "together in the later period",
            "click": f"a rating of at least {self.options.like:g}",
            "history": "the user's clicks strictly before the interaction, those of the same "
            f"second excluded; at least {self.options.min_history}",
            **rule.protocol(),
        }


@dataclass(frozen=True)
class Liked:
    """All clicks by user and time, and all ratings behind them."""

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    users: int
    rated_item: np.ndarray
    rated_time: np.ndarray

    @classmethod
    def read(cls, work: Path, like: float) -> Liked:
        """The clicks of the stage `read/ratings`."""
        table = read_folder(work / "scratch" / "ratings")
        user, item, rating, time = (
            table[name].to_numpy() for name in ("user", "item", "rating", "time")
        )
        order = by_user_and_time(user, time)
        order = order[rating[order] >= like]
        users = int(user.max()) + 1
        if not len(order):
            raise InputError(Problem("options.like", f"no rating is as high as {like:g}"))
        return cls(user[order], item[order], time[order], users, item, time)

    def pool(self, train: np.ndarray) -> Pool:
        """Items by the time somebody first rated them; weights from the train period's clicks."""
        order = np.argsort(self.rated_time, kind="stable")
        item, first = np.unique(self.rated_item[order], return_index=True)
        since = self.rated_time[order][first]
        by_time = np.lexsort((item, since))
        stride = int(item.max()) + 1
        clicks = np.bincount(self.item[train], minlength=stride)
        return Pool(
            item=item[by_time],
            since=since[by_time],
            liked=np.sort(self.user.astype(np.int64) * stride + self.item),
            stride=stride,
            weight=clicks[item[by_time]] + 1.0,
        )


def check_shares(shares: list[float]) -> None:
    """Shares of the periods: positive and one in sum.

    Raises:
        InputError: they are not.
    """
    if any(not share > 0 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        raise InputError(
            Problem("options.shares", f"is {shares}, expected three positive shares that sum to 1")
        )


def parse_ratings(block: Block, layout: Layout, *, header: bool, keys: pa.Array) -> pa.Table:
    """A block of ratings as numbers; `item` is null where the movie is unknown."""
    rows = read_fields(block, layout)
    if header and block.start == 0:
        rows = rows.slice(1)
    rating = to_number(rows["rating"])
    time = pc.if_else(pc.match_substring_regex(rows["time"], WHOLE), rows["time"],
                      pa.scalar(None, pa.string())).cast(pa.int64())  # fmt: skip
    inside = pc.and_(pc.greater_equal(rating, 0), pc.less_equal(rating, 5))
    rows = mark(rows, pc.invert(pc.fill_null(inside, False)),
                "the rating is '{value}', expected a number from 0.5 to 5", "rating")  # fmt: skip
    rows = mark(rows, pc.is_null(time), "the time is '{value}', expected whole seconds since 1970",
                "time")  # fmt: skip
    rows = mark(rows, pc.equal(rows["user"], ""), "the user is empty", "user")
    item = pc.add(pc.index_in(rows["movie"], value_set=keys), 1)
    columns = {"user": rows["user"], "item": item, "rating": rating, "time": time}
    return pa.table({**columns, **{name: rows[name] for name in PLACE}})


def _layout(release: Release, path: Path) -> Layout:
    """The layout with its fields in the order of the file's header, where it has one."""
    if not release.header:
        return release.layout
    names = csv_header(path, ",")
    missing = [name for name in HEADER if name not in names]
    if missing:
        raise InputError(
            Problem(
                f"{path}:1", f"has no column '{missing[0]}'", f"its columns: {', '.join(names)}"
            )
        )
    known = dict(zip(HEADER, RATING, strict=True))
    return Layout(tuple(known.get(name, name) for name in names), ",", "commas")


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
