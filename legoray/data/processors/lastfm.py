"""Last.fm: who played what. Four releases by three owners; artists' names and tags are the text.

release    a row is                              times    items           users
hetrec-2k  how often a user played an artist     none     artists, tags   -
360k       how often a user played an artist     none     artists         age, gender, country
1k         one listen                            seconds  artists/tracks  age, gender, country
1b         one listen                            seconds  artists/tracks  age, gender, country

Where rows are counts, each is a click (from `like` plays on, if that is set), and nothing is known
of the order (`leave-random-out`). Where rows are listens, a click is a user's first listen to an
artist or track: histories are what a user found, in the order of finding it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from legoray.data.badrows import repeated
from legoray.data.convert import by_distinct, to_number
from legoray.data.files import RawFolder
from legoray.data.lines import Block, Layout, blocks_of, mark
from legoray.data.processors.ages import plausible_groups
from legoray.data.processors.base import Run, Sources, as_array, user_columns
from legoray.data.processors.feedback import Attributes, FeedbackOptions, FeedbackProcessor
from legoray.data.processors.lastfm_files import (
    BOTH,
    RELEASES,
    ItemKind,
    fields_of,
    first_named,
    listens_1b,
    listens_1k,
    plays_2k,
    plays_360k,
)
from legoray.data.processors.tags import joined
from legoray.data.splitrule import SplitRule
from legoray.data.tabular import header_layout
from legoray.errors import InputError, Problem

PLAYS = {"userID": "user", "artistID": "item", "weight": "value"}
ARTISTS = {"id": "item", "name": "name"}
TAGS = {"tagID": "tag", "tagValue": "name"}
TAGGED = {"userID": "user", "artistID": "item", "tagID": "tag"}
TAGGED_FILES = ("user_taggedartists.dat", "user_taggedartists-timestamps.dat")
USER = ("age", "gender", "country")


class LastFmOptions(FeedbackOptions):
    """Options of `processor: lastfm`. The split is temporal where there are times."""

    release: Literal["hetrec-2k", "360k", "1k", "1b"] = Field(description="which files there are")
    item: ItemKind = Field("artist", description="1k and 1b: what is recommended")
    like: float | None = Field(None, gt=0, description="hetrec-2k, 360k: so many plays are a click")
    most_tags: int = Field(20, ge=0, description="hetrec-2k: of an artist, most given first")


class LastFm(FeedbackProcessor):
    """Attributes: name (and tags) of artists; title and artist of tracks."""

    Options = LastFmOptions

    def __init__(self, options: LastFmOptions) -> None:
        self.release = RELEASES[options.release]
        _check(options, self.release.timed, list(self.release.items))
        if not self.release.timed and "split" not in options.model_fields_set:
            options = options.model_copy(update={"split": SplitRule(name="leave-random-out")})
        self.times = "known" if self.release.timed else "none"
        self.often = self.release.timed
        self.event = "listen" if self.release.timed else "play_count"
        self.threshold = "an artist played at least {like:g} times"
        self.attributes = ("name",) if options.item == "artist" else ("title", "artist")
        super().__init__(options)

    def sources(self, raw: RawFolder) -> Sources:
        names = {"events": self.release.events, "items": self.release.items[self.options.item]}
        if self.options.release == "1b" and self.options.item == "track":
            names["artists"] = self.release.items["artist"]
        users = self.release.users
        if users and (raw.path / users).exists():
            names["users"] = users
        tagged = [name for name in TAGGED_FILES if (raw.path / name).exists()]
        if self.options.release == "hetrec-2k" and tagged and self.options.most_tags:
            names |= {"tags": "tags.dat", "tagged": tagged[0]}
            self.attributes = ("name", "tags")
        return {role: raw.file(name) for role, name in names.items()}

    def read_items(self, run: Run) -> tuple[pa.Array, Attributes]:
        release, kind = self.options.release, self.options.item
        if release in ("360k", "1k"):
            return self._named_in_events(run)
        if release == "1b":
            fields = ("item", "name") if kind == "artist" else ("item", "name", "artist")
            rows = _table(run, "items", Layout(fields, "\t", "tabs"), unique="item")
            if kind == "artist":
                return as_array(rows["item"]), {"name": as_array(rows["name"])}
            artists = _table(run, "artists", Layout(("item", "name"), "\t", "tabs"), unique="item")
            place = pc.index_in(as_array(rows["artist"]), value_set=as_array(artists["item"]))
            artist = pc.fill_null(as_array(artists["name"]).take(place), "")
            return as_array(rows["item"]), {"title": as_array(rows["name"]), "artist": artist}
        rows = _table(run, "items", ARTISTS, unique="item")
        columns = {"name": as_array(rows["name"])}
        if "tagged" in run.sources:
            columns["tags"] = self._tags(run, rows["item"])
        return as_array(rows["item"]), columns

    def _named_in_events(self, run: Run) -> tuple[pa.Array, Attributes]:
        """The items of a release whose events alone name them: read once more for that."""
        path, parse = run.sources["events"], self._parse(run)
        known: list[pa.Table] = []
        names = ["name"] if self.options.item == "artist" else ["name", "artist"]
        for piece in run.parsed(partial(_named, parse=parse), blocks_of(path), path):
            known.append(piece.select(["item", *names]))
            if len(known) > 64:
                known = [_first_of_each(known)]
        rows = _first_of_each(known)
        # By key: the order of a log, newest first, is decided by what comes last.
        rows = rows.filter(pc.not_equal(rows["item"], "")).sort_by("item")
        columns = [as_array(rows[name]) for name in names]
        return as_array(rows["item"]), dict(zip(self.attributes, columns, strict=True))

    def _tags(self, run: Run, artists: pa.ChunkedArray) -> pa.Array:
        names = _table(run, "tags", TAGS, unique="tag")
        given = _table(run, "tagged", TAGGED)
        once = given.select(list(TAGGED.values())).group_by(["item", "tag", "user"]).aggregate([])
        once = once.append_column("count", pa.array(np.ones(len(once), np.int64)))
        tags, unknown = joined(once, names, artists)
        again = {"tags_given_again": len(given) - len(once)} if len(once) < len(given) else {}
        run.bad_rows.add(unknown | again)
        return tags.top(len(artists), self.options.most_tags)

    def read_events(self, run: Run) -> Iterator[pa.Table]:
        path = run.sources["events"]
        return run.parsed(self._parse(run), blocks_of(path), path)

    def _parse(self, run: Run) -> Callable[[Block], pa.Table]:
        """How a block of events is read."""
        kind = self.options.item
        if self.options.release == "hetrec-2k":
            return partial(plays_2k, layout=_with_header(run.sources["events"], PLAYS))
        if self.options.release == "360k":
            return plays_360k
        return partial(listens_1k if self.options.release == "1k" else listens_1b, kind=kind)

    def read_users(self, run: Run, keys: pa.Array) -> Attributes:
        layout = self.release.users_layout
        if "users" not in run.sources or layout is None:
            return {}
        rows = _table(run, "users", layout, header=self.release.header, unique="user")
        sex = {"m": "M", "f": "F"}  # n, and nothing: not told
        place = pc.index_in(rows["gender"], value_set=pa.array(list(sex)))
        columns = {
            "user": rows["user"],
            "age": plausible_groups(by_distinct(rows["age"], to_number)),
            "gender": pc.fill_null(pa.array(sex.values()).take(place.combine_chunks()), ""),
            "country": rows["country"],
        }
        return user_columns(keys, pa.table(columns), USER)[0]


def _check(options: LastFmOptions, timed: bool, kinds: list[str]) -> None:
    """Refuse what a release cannot give."""
    if options.item not in kinds:
        message = f"is '{options.item}', but {options.release} tells of artists alone"
        raise InputError(Problem("options.item", message, "set item: artist"))
    if timed and options.like is not None:
        message = f"is {options.like:g}, but {options.release} has single listens, not counts"
        raise InputError(Problem("options.like", message, "leave it out"))


def _table(
    run: Run, role: str, form: Layout | dict[str, str], *, unique: str = "", header: bool = False
) -> pa.Table:
    """A whole file, in a layout or with a header's columns; no key of `unique` stands twice."""
    path = run.sources[role]
    layout = form if isinstance(form, Layout) else _with_header(path, form)
    header = header or not isinstance(form, Layout)
    rows = pa.concat_tables([fields_of(b, layout, header=header) for b in blocks_of(path)])
    if unique:
        rows = mark(rows, pc.equal(rows[unique], ""), f"the {unique} is empty", unique)
        rows = mark(rows, repeated(rows[unique]), f"{unique} '{{value}}' stands twice", unique)
    return run.bad_rows.good(rows, path)


def _with_header(path: Path, form: dict[str, str]) -> Layout:
    """hetrec-2k's files name their columns; some hold text in two encodings."""
    return replace(header_layout(path, form, "\t", "tabs"), encoding=BOTH)


def _named(block: Block, parse: Any) -> pa.Table:
    return first_named(parse(block))


def _first_of_each(tables: list[pa.Table]) -> pa.Table:
    rows = pa.concat_tables(tables).combine_chunks()
    again = repeated(rows["item"])
    return rows.filter(pc.invert(again))
