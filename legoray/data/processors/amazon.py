"""Amazon's reviews of 2014, 2018 and 2023 (McAuley's lab), of any category.

A review of at least `like` stars is a click. The three releases differ in their files, keys and
units; what is read from them has the same names. Products stand in the metadata more than once in
2018: the first counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from legoray.config import Positive
from legoray.data.cleaning import joined, joined_paths, plain_lists, plain_text, without_code
from legoray.data.convert import to_number
from legoray.data.files import RawFolder
from legoray.data.jsonlines import Form, records
from legoray.data.lines import Layout, mark
from legoray.data.processors.base import Run, Sources
from legoray.data.processors.feedback import Attributes, FeedbackOptions, FeedbackProcessor
from legoray.data.processors.texts import counted_texts, place_of, shortened, without_repeats
from legoray.data.stream import Parse, TextBlock, read_fields, text_blocks, text_source
from legoray.errors import InputError, Problem

ATTRIBUTES = ("title", "categories", "brand", "description")
TEXTS, PATHS = pa.list_(pa.string()), pa.list_(pa.list_(pa.string()))


@dataclass(frozen=True)
class Release:
    """The files of one release (`{}` is the category), and their keys."""

    core: str
    every: str
    meta: str
    user: str
    item: str
    rating: str
    time: str
    per_second: int
    texts: dict[str, tuple[str, pa.DataType]]  # attribute -> key and type in the metadata
    reviews_form: Form = "json"
    meta_form: Form = "json"


_OLD: dict[str, Any] = {
    "meta": "meta_{}.json.gz", "user": "reviewerID", "item": "asin", "rating": "overall",
    "time": "unixReviewTime", "per_second": 1,
}  # fmt: skip
RELEASES = {
    2014: Release(
        core="reviews_{}_5.json.gz",
        every="reviews_{}.json.gz",
        texts={"title": ("title", pa.string()), "categories": ("categories", PATHS),
               "brand": ("brand", pa.string()), "description": ("description", pa.string())},
        reviews_form="either",
        meta_form="python",
        **_OLD,
    ),
    2018: Release(
        core="{}_5.json.gz",
        every="{}.json.gz",
        texts={"title": ("title", pa.string()), "categories": ("category", TEXTS),
               "brand": ("brand", pa.string()), "description": ("description", TEXTS)},
        **_OLD,
    ),
    2023: Release(
        core="{}.csv.gz",
        every="{}.jsonl.gz",
        meta="meta_{}.jsonl.gz",
        user="user_id",
        item="parent_asin",
        rating="rating",
        time="timestamp",
        per_second=1000,
        texts={"title": ("title", pa.string()), "categories": ("categories", TEXTS),
               "brand": ("store", pa.string()), "description": ("description", TEXTS)},
    ),
}  # fmt: skip
_META = re.compile(r"meta_(\w+)\.jsonl?(?:\.gz)?")


class AmazonOptions(FeedbackOptions):
    """Options of `processor: amazon`."""

    release: Literal["auto", 2014, 2018, 2023] = Field(
        "auto", description="whose files there are; found out if auto"
    )
    category: str | None = Field(
        None, pattern=r"^\w+$", description="as in the files' names; found out if there is one only"
    )
    reviews: Literal["auto", "5-core", "all"] = Field(
        "auto", description="which file of reviews; the 5-core where there is one if auto"
    )
    like: float | None = Field(4.0, ge=1, le=5, description="a rating from here on is a click")
    longest: Positive = Field(1000, description="characters that are kept of a text")


class Amazon(FeedbackProcessor):
    """Attributes: title, categories, brand (in 2023 the store or author), description."""

    Options = AmazonOptions
    event = "review"
    default_text = ("title", "categories")
    attributes = ATTRIBUTES

    def __init__(self, options: AmazonOptions) -> None:
        super().__init__(options)
        self.release = RELEASES[2018]

    def sources(self, raw: RawFolder) -> Sources:
        category = self.options.category or _category(raw)
        if not category:
            return {}
        release = self.options.release
        self.release = RELEASES[_release(raw.path, category) if release == "auto" else release]
        core, every = self.release.core.format(category), self.release.every.format(category)
        reviews = {"auto": (core, every), "5-core": (core,), "all": (every,)}[self.options.reviews]
        return {
            "reviews": text_source(raw, *reviews),
            "meta": text_source(raw, self.release.meta.format(category)),
        }

    def read_items(self, run: Run) -> tuple[pa.Array, Attributes]:
        release, path = self.release, run.sources["meta"]
        fields = [(release.item, pa.string()), *release.texts.values()]
        read = records(path, pa.schema(fields), [release.item], release.meta_form)
        parse = shortened(
            partial(_items, read=read, release=release), ATTRIBUTES, self.options.longest
        )
        rows = pa.concat_tables(run.streamed(parse, path))
        return counted_texts(run, without_repeats(run, rows), ATTRIBUTES)

    def read_events(self, run: Run) -> Iterator[pa.Table]:
        release, path = self.release, run.sources["reviews"]
        keys = (release.user, release.item, release.rating, release.time)
        if path.name.removesuffix(".gz").endswith(".csv"):
            read: Parse = partial(_ratings, layout=_layout(path, keys))
        else:
            kinds = (pa.string(), pa.string(), pa.float64(), pa.int64())
            schema = pa.schema(list(zip(keys, kinds, strict=True)))
            read = records(path, schema, keys, release.reviews_form)
        return run.streamed(partial(_reviews, read=read, release=release), path)


def _category(raw: RawFolder) -> str | None:
    """The category of the only metadata in the folder."""
    found = [_META.fullmatch(entry.name) for entry in sorted(raw.path.iterdir())]
    names = sorted({match[1] for match in found if match})
    if len(names) == 1:
        return names[0]
    if names:
        told, hint = f"holds several categories: {', '.join(names)}", "say which: options.category"
        raw.problems.append(Problem(str(raw.path), told, hint))
    else:
        raw.file("meta_<category>.json.gz")
    return None


def _release(folder: Path, category: str) -> int:
    """The release whose metadata, or else whose reviews, lie there."""
    names = {entry.name.removesuffix(".gz") for entry in folder.iterdir()}
    if names & {f"meta_{category}.jsonl", f"{category}.jsonl"}:
        return 2023
    old = {f"reviews_{category}_5.json", f"reviews_{category}.json"}
    return 2014 if names & old else 2018


def _items(block: TextBlock, *, read: Parse, release: Release) -> pa.Table:
    """A block of metadata: `key`, the attributes, and where markup or code was taken out."""
    rows = read(block)
    columns = {"key": rows[release.item]}
    for name, (key, kind) in release.texts.items():
        text, marked = _text(rows[key], kind, ", " if name == "categories" else " ")
        columns |= {name: text, f"markup/{name}": marked}
    title = without_code(columns["title"])
    columns |= {"title": title, "page_code/title": pc.not_equal(title, columns["title"])}
    return pa.table({**columns, **place_of(rows)})


def _text(column: pa.ChunkedArray, kind: pa.DataType, between: str) -> tuple[pa.Array, pa.Array]:
    if kind == TEXTS:
        plain = plain_lists(column)
        return joined(plain.text, between), plain.marked
    plain = plain_text(joined_paths(column) if kind == PATHS else column)
    return plain.text, plain.marked


def _reviews(block: TextBlock, *, read: Parse, release: Release) -> pa.Table:
    """A block of reviews as `user`, `item`, `value` and `time`."""
    rows = read(block)
    stars, time = release.rating, release.time
    inside = pc.and_(pc.greater_equal(rows[stars], 0), pc.less_equal(rows[stars], 5))
    told = f"its '{stars}' is {{value}}, expected a number from 1 to 5"
    rows = mark(rows, pc.invert(inside), told, stars)
    unit = "seconds" if release.per_second == 1 else "milliseconds"
    told = f"its '{time}' is {{value}}, expected {unit} since 1970"
    rows = mark(rows, pc.less(rows[time], 0), told, time)
    columns = {
        "user": rows[release.user],
        "item": rows[release.item],
        "value": rows[stars],
        "time": pc.divide(rows[time], release.per_second),
    }
    return pa.table({**columns, **place_of(rows)})


def _layout(path: Path, keys: tuple[str, ...]) -> Layout:
    """The columns of a table of ratings, by its header.

    Raises:
        InputError: one of `keys` is not among them.
    """
    header = next(text_blocks(path, 1 << 16)).data.split(b"\n", 1)[0]
    names = header.decode("utf-8", errors="replace").strip().split(",")
    missing = [key for key in keys if key not in names]
    if missing:
        told, hint = f"has no column '{missing[0]}'", f"its columns: {', '.join(names)}"
        raise InputError(Problem(f"{path}:1", told, hint))
    return Layout(tuple(names), ",", "commas")


def _ratings(block: TextBlock, *, layout: Layout) -> pa.Table:
    """A block of the table of ratings, its columns as numbers where they are such."""
    rows = read_fields(block, layout).slice(0 if block.line else 1)
    numbers: dict[str, Callable[[Any], Any]] = {
        "rating": to_number,
        "timestamp": lambda text: pc.floor(to_number(text)).cast(pa.int64()),
    }
    for name in ("user_id", "parent_asin"):
        rows = mark(rows, pc.equal(rows[name], ""), f"has no value of '{name}'", name)
    for name, convert in numbers.items():
        values = convert(rows[name])
        told = f"its '{name}' is '{{value}}', expected a number"
        rows = mark(rows, pc.is_null(values), told, name)
        rows = rows.set_column(rows.schema.get_field_index(name), name, values)
    return rows
