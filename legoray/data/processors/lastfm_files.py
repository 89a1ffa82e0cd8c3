"""How the four releases of Last.fm data are written: blocks of their files -> tables.

Events have `user`, `item` and `value` (plays) or `time`, and, where a release names artists and
tracks in its events alone, `name` and `artist` of the item. An event that names no item has the
empty key, which no item has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from legoray.data.convert import WHOLE, no_key
from legoray.data.lines import PLACE, PROBLEM, Block, Layout, mark, read_lines, split_lines
from legoray.data.processors.base import as_array

ItemKind = Literal["artist", "track"]
PLAYS_360K = Layout(("user", "mbid", "artist", "value"), "\t", "tabs")
LISTENS_1K = Layout(("user", "time", "mbid", "artist", "track id", "track"), "\t", "tabs")
LISTENS_1B = Layout(("user", "artist", "album", "track", "time"), "\t", "tabs")
BOTH = "UTF-8, or else Latin-1"  # field by field
NULL = pa.scalar(None, pa.string())


@dataclass(frozen=True)
class Release:
    """The files of one release."""

    events: str
    timed: bool
    items: dict[str, str]  # the kinds of items -> the file that names them, the events' too
    users: str = ""
    users_layout: Layout | None = None
    header: bool = False  # of the users' file


_1K = "userid-timestamp-artid-artname-traid-traname.tsv"
_360K = "usersha1-artmbid-artname-plays.tsv"
RELEASES = {
    "hetrec-2k": Release("user_artists.dat", False, {"artist": "artists.dat"}),
    "360k": Release(
        _360K, False, {"artist": _360K}, "usersha1-profile.tsv",
        Layout(("user", "gender", "age", "country", "signup"), "\t", "tabs"),
    ),
    "1k": Release(
        _1K, True, {"artist": _1K, "track": _1K}, "userid-profile.tsv",
        Layout(("user", "gender", "age", "country", "registered"), "\t", "tabs"), header=True,
    ),
    "1b": Release(
        "LFM-1b_LEs.txt", True, {"artist": "LFM-1b_artists.txt", "track": "LFM-1b_tracks.txt"},
        "LFM-1b_users.txt",
        Layout(("user", "country", "age", "gender", "playcount", "registered"), "\t", "tabs"),
        header=True,
    ),
}  # fmt: skip


def fields_of(block: Block, layout: Layout, *, header: bool = False) -> pa.Table:
    """The fields of a block's lines. `layout.encoding` may be `BOTH`, as in hetrec-2k."""
    both = layout.encoding == BOTH
    lines = read_lines(block, "utf-8" if both else layout.encoding)
    damaged = as_array(pc.is_valid(lines[PROBLEM]))
    if both and pc.any(damaged).as_py():
        latin = read_lines(block, "latin-1")
        bad = latin["line"].filter(damaged).to_pylist()
        mended = [_mended(line, layout.separator) for line in bad]
        whole = pc.replace_with_mask(
            as_array(lines["line"]), damaged, pa.array(mended, pa.string())
        )
        lines = latin.set_column(0, "line", whole)
    rows = split_lines(lines, layout)
    return rows.slice(1) if header and block.start == 0 else rows


def _mended(line: str, separator: str) -> str:
    """A line that was read as Latin-1, its fields as UTF-8 where they are."""
    return separator.join(map(_utf_8, line.split(separator)))


def _utf_8(text: str) -> str:
    try:
        return text.encode("latin-1").decode()
    except UnicodeDecodeError:
        return text


def plays_2k(block: Block, layout: Layout) -> pa.Table:
    """hetrec-2k: who played which artist how often."""
    return _plays(fields_of(block, layout, header=True))


def plays_360k(block: Block) -> pa.Table:
    """360K: the same; artists by their MusicBrainz number, or by name where they have none."""
    rows = fields_of(block, PLAYS_360K)
    key = _or(rows["mbid"], rows["artist"])
    return _plays(rows.append_column("item", key).append_column("name", rows["artist"]))


def listens_1k(block: Block, kind: ItemKind) -> pa.Table:
    """1K: who listened to what when."""
    rows = fields_of(block, LISTENS_1K)
    if kind == "artist":
        columns = {"item": _or(rows["mbid"], rows["artist"]), "name": rows["artist"]}
    else:
        both = pc.binary_join_element_wise(rows["artist"], rows["track"], " / ")
        none = pc.equal(rows["track"], "")
        key = _or(rows["track id"], pc.if_else(none, "", both))
        columns = {"item": key, "name": rows["track"], "artist": rows["artist"]}
    time = pc.strptime(rows["time"], format="%Y-%m-%dT%H:%M:%SZ", unit="s", error_is_null=True)
    return _timed(rows, columns, time.cast(pa.int64()), "2009-05-04T23:08:57Z")


def listens_1b(block: Block, kind: ItemKind) -> pa.Table:
    """1B: the same, all by numbers."""
    rows = fields_of(block, LISTENS_1B)
    whole = pc.if_else(pc.match_substring_regex(rows["time"], WHOLE), rows["time"], NULL)
    return _timed(rows, {"item": rows[kind]}, whole.cast(pa.int64()), "seconds since 1970")


def first_named(rows: pa.Table) -> pa.Table:
    """Of each item the first row that names it, and all rows with problems."""
    bad = pc.is_valid(rows[PROBLEM]).to_numpy()
    code = pc.fill_null(rows["item"], "").combine_chunks().dictionary_encode().indices.to_numpy()
    first = np.zeros(len(rows), bool)
    first[np.unique(code, return_index=True)[1]] = True
    return rows.filter(pa.array(first | bad))


def _plays(rows: pa.Table) -> pa.Table:
    whole = pc.if_else(pc.match_substring_regex(rows["value"], r"^\d{1,9}$"), rows["value"], NULL)
    rows = mark(rows, pc.is_null(whole), "the plays are '{value}', expected a whole number",
                "value")  # fmt: skip
    rows = _checked(rows)
    named = {name: rows[name] for name in ("name",) if name in rows.column_names}
    columns = {"user": rows["user"], "item": rows["item"], "value": whole.cast(pa.int64())}
    return pa.table({**columns, **named, **{name: rows[name] for name in PLACE}})


def _timed(
    rows: pa.Table, columns: dict[str, pa.ChunkedArray], time: pa.ChunkedArray, expected: str
) -> pa.Table:
    early = pc.fill_null(pc.less(time, 0), True)
    rows = mark(rows, early, f"the time is '{{value}}', expected {expected}", "time")
    rows = _checked(rows)
    place = {name: rows[name] for name in PLACE}
    return pa.table({"user": rows["user"], "time": time, **columns, **place})


def _checked(rows: pa.Table) -> pa.Table:
    return mark(rows, no_key(rows["user"]), "the user is '{value}', expected a key", "user")


def _or(column: pa.ChunkedArray, other: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column, or another where it is empty."""
    return pc.if_else(pc.equal(column, ""), other, column)
