"""PENS (personalised news headlines): news.tsv, and impressions in train.tsv and valid.tsv.

Format: https://msnews.github.io/pens_data.html. Histories stand with each impression, with the time
of every item. personalized_test.tsv holds headlines that people wrote, and no impressions: it is
not read.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from legoray.data.badrows import repeated
from legoray.data.files import RawFolder
from legoray.data.impressions import (
    UNKNOWN,
    ImpressionOptions,
    numbered,
    parts_of,
    split_words,
    write_given_histories,
    write_part,
    write_split,
)
from legoray.data.keyindex import KeyIndex
from legoray.data.lines import PLACE, Block, Layout, blocks_of, mark
from legoray.data.processors.base import Processor, Run, Sources, as_array
from legoray.data.ragged import Int64, keep, list_array, rows_of
from legoray.data.stages import Facts
from legoray.data.tables import read_folder, write_items
from legoray.data.tsv import headed_layout, read_headed
from legoray.errors import InputError, Problem

NEWS = {"News ID": "key", "Category": "category", "Topic": "topic", "Headline": "title",
        "News body": "body", "Title entity": "title entity",
        "Entity content": "entity content"}  # fmt: skip
LOG = {"UserID": "user", "ClicknewsID": "history", "dwelltime": "dwell times",
       "exposure_time": "times", "pos": "clicked", "neg": "others", "start": "start", "end": "end",
       "dwelltime_pos": "dwell times of clicks"}  # fmt: skip
ATTRIBUTES = ("title", "body", "category", "topic")
TIME = "%m/%d/%Y %I:%M:%S %p"
BETWEEN_TIMES = "#TAB#"
HISTORY = "as given with each impression, as far as it lies strictly before its start"
PARTS = ("train", "valid")


class Pens(Processor):
    """`valid` is the tail of train.tsv, `test` is valid.tsv."""

    Options = ImpressionOptions
    attributes = ATTRIBUTES
    default_text = ("title",)

    def __init__(self, options: ImpressionOptions) -> None:
        super().__init__(options)
        self.parts = parts_of(options, PARTS, tail=True)

    def sources(self, raw: RawFolder) -> Sources:
        return {name: raw.file(f"{name}.tsv") for name in ("news", *PARTS)}

    def process(self, run: Run) -> None:
        run.stages.run("items", ["items"], partial(self._items, run))
        for part in PARTS:
            run.stages.run(f"read/{part}", [f"scratch/{part}"], partial(self._behaviors, run, part))
        outputs = ["users", "histories", "scratch/places"]
        run.stages.run("histories", outputs, partial(write_given_histories, run, self.parts))
        run.each_split(partial(write_split, run, self.parts, HISTORY))

    def _items(self, run: Run, folder: Path) -> Facts:
        path = run.sources["news"]
        layout, header = headed_layout(path, NEWS)
        parse = partial(_parse_news, layout=layout, header=header)
        rows = pa.concat_tables(list(run.engine.map(parse, blocks_of(path))))
        rows = mark(rows, pc.equal(rows["key"], ""), "the News ID is empty", "key")
        rows = mark(rows, repeated(rows["key"]), "news id '{value}' stands twice", "key")
        rows = run.bad_rows.good(rows, path).combine_chunks()
        if not len(rows):
            raise InputError(Problem(str(path), "holds no news"))
        columns = {name: as_array(rows[name]) for name in ATTRIBUTES}
        facts = write_items(folder, run.engine, as_array(rows["key"]), columns)
        counts = {"raw/items": len(rows)} | facts.counts
        return facts.model_copy(update={"counts": counts, "dropped": run.bad_rows.drain()})

    def _behaviors(self, run: Run, part: str, folder: Path) -> Facts:
        path = run.sources[part]
        layout, header = headed_layout(path, LOG)
        keys = as_array(read_folder(run.stages.work / "items", ["key"])["key"])
        parse = partial(parse_log, keys=KeyIndex.of(keys), layout=layout, header=header)
        tables = run.parsed(parse, blocks_of(path), path)
        counted = UNKNOWN | {"late": "history_items_not_before_the_impression"}
        facts = write_part(folder, part, tables, path=path, labeled=True, counted=counted)
        return facts.model_copy(update={"dropped": facts.dropped | run.bad_rows.drain()})


def parse_log(block: Block, keys: KeyIndex, layout: Layout, *, header: bool) -> pa.Table:
    """A block of train.tsv with items as numbers: the clicks, then what was not clicked.

    Histories come in order of their times, without what is not before the impression's start.
    """
    rows = read_headed(block, layout, header=header)
    start = _seconds(rows["start"])
    rows = mark(rows, pc.is_null(start), "the start is '{value}', expected a time like "
                "7/3/2019 6:43:49 AM", "start")  # fmt: skip
    rows = mark(rows, pc.equal(rows["user"], ""), "the UserID is empty", "user")
    clicked, others = split_words(rows["clicked"]), split_words(rows["others"])
    none = (np.diff(clicked[0]) + np.diff(others[0])) == 0
    rows = mark(rows, pa.array(none), "there is neither pos nor neg", "user")
    rows, offsets, words, late = _histories(rows, start)
    history, unknown_history, _ = numbered(offsets, words, keys)
    items, labels, unknown = _candidates(clicked, others, keys)
    columns = {
        "impression": pa.nulls(len(rows), pa.string()),  # the owners give none: they are numbered
        "user": rows["user"],
        "time": pc.fill_null(start, -1),
        "history": history,
        "items": items,
        "labels": pa.ListArray.from_arrays(items.offsets, labels),
        "unknown_history": unknown_history,
        "unknown_candidates": unknown,
        "late": pa.array(late),
    }
    return pa.table({**columns, **{name: rows[name] for name in PLACE}})


def _histories(rows: pa.Table, start: pa.ChunkedArray) -> tuple[pa.Table, Int64, pa.Array, Int64]:
    """The rows, marked; offsets and words of what was read before; how much of each was not."""
    offsets, words = split_words(rows["history"])
    other, texts = split_words(rows["times"], BETWEEN_TIMES)
    uneven = np.diff(offsets) != np.diff(other)
    message = "ClicknewsID and exposure_time of user '{value}' differ in length"
    rows = mark(rows, pa.array(uneven), message, "user")
    fits = ~uneven[rows_of(offsets)]  # bad rows go; until then their histories are empty
    offsets, words = keep(offsets, fits), words.filter(pa.array(fits))
    when = _seconds(texts.filter(pa.array(~uneven[rows_of(other)])))
    owner = rows_of(offsets)
    lost = np.bincount(owner[when.is_null().to_numpy(False)], minlength=len(rows)) > 0
    message = "user '{value}' has an exposure_time that is none like 6/19/2019 5:10:01 AM"
    rows = mark(rows, pa.array(lost), message, "user")
    seconds = pc.fill_null(when, -1).to_numpy()
    order = np.lexsort((seconds, owner))
    before = pc.fill_null(start, -1).to_numpy()[owner]
    early = (seconds < before)[order]
    kept = keep(offsets, early)
    return rows, kept, words.take(pa.array(order[early])), np.diff(offsets) - np.diff(kept)


def _candidates(
    clicked: tuple[Int64, pa.Array], others: tuple[Int64, pa.Array], keys: KeyIndex
) -> tuple[pa.ListArray, np.ndarray, pa.Array]:
    """Clicks and what was not clicked as one list each, their labels, and the unknown ones."""
    found = [numbered(*words, keys) for words in (clicked, others)]
    owner = np.concatenate([rows_of(lists.offsets.to_numpy().astype(np.int64))
                            for lists, _, _ in found])  # fmt: skip
    order = np.argsort(owner, kind="stable")
    values = np.concatenate([lists.values.to_numpy() for lists, _, _ in found])[order]
    label = np.repeat(np.array([1, 0], np.int8), [len(lists.values) for lists, _, _ in found])
    offsets = sum(lists.offsets.to_numpy().astype(np.int64) for lists, _, _ in found)
    unknown = pc.add(found[0][1], found[1][1])
    return list_array(np.asarray(offsets), values), label[order], unknown


def _seconds(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Seconds since 1970, null where there is no such time."""
    text = pc.utf8_trim_whitespace(column)
    seconds = pc.strptime(text, format=TIME, unit="s", error_is_null=True).cast(pa.int64())
    return pc.if_else(pc.greater_equal(seconds, 0), seconds, pa.scalar(None, pa.int64()))


def _parse_news(block: Block, layout: Layout, *, header: bool) -> pa.Table:
    rows = read_headed(block, layout, header=header)
    return rows.select(["key", *ATTRIBUTES, *PLACE])
