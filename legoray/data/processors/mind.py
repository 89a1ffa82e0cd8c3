"""MIND and whatever is written in its format: news.tsv and behaviors.tsv per official part.

Format: https://github.com/msnews/msnews.github.io/blob/master/assets/doc/introduction.md
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from legoray.data.files import RawFolder
from legoray.data.impressions import (
    ImpressionOptions,
    numbered,
    parts_of,
    split_words,
    write_given_histories,
    write_part,
    write_split,
)
from legoray.data.keyindex import KeyIndex
from legoray.data.lines import PLACE, Block, Layout, blocks_of, mark, read_fields
from legoray.data.processors.base import Processor, Run, Sources
from legoray.data.processors.mind_news import ATTRIBUTES, merged_news, place_of
from legoray.data.processors.xmind import title_source, translated
from legoray.data.stages import Facts
from legoray.data.tables import read_folder, write_item_pieces
from legoray.errors import InputError, Problem

BEHAVIORS = Layout(("impression", "user", "time", "history", "candidates"), "\t", "tabs")
TIME = "%m/%d/%Y %I:%M:%S %p"
HISTORY = "as given with each impression"
FOLDERS = {
    part: (part, f"MINDsmall_{part}", f"MINDlarge_{part}", f"MINDdemo_{part}")
    for part in ("train", "dev", "test")
}


class MindOptions(ImpressionOptions):
    """Options of `processor: mind`."""

    train: str | None = Field(None, description="folder; train or MIND*_train if null")
    dev: str | None = Field(None, description="folder; dev or MIND*_dev if null")
    test: str | None = Field(None, description="folder of a test part, which may be unlabeled")
    valid: Literal["tail", "dev"] = Field(
        "tail", description="the tail of the train week; or dev, where there is a test folder"
    )
    titles: str | None = Field(
        None, description="xMIND's folder of one language, such as xMIND/fin; English if null"
    )
    untranslated: Literal["fail", "english"] = Field(
        "fail", description="what becomes of news without a translation"
    )


class Mind(Processor):
    """News, merged from all parts; `valid` = the tail of train, `test` = dev or the test part."""

    Options = MindOptions
    attributes = ATTRIBUTES
    default_text = ("title",)

    def __init__(self, options: MindOptions) -> None:
        super().__init__(options)
        self.parts = ["train", "dev", *(["test"] if options.test else [])]
        if options.valid == "dev" and not options.test:
            raise InputError(
                Problem("options.valid", "is 'dev', which is the test split here",
                        "give a test folder too, or leave valid at 'tail'")
            )  # fmt: skip
        # A dev part that is neither validated nor tested on is left unread.
        later = ("train", *self._later())
        self.behaviors = parts_of(options, later, tail=options.valid == "tail")

    def _later(self) -> list[str]:
        if not self.options.test:
            return ["dev"]
        return ["dev", "test"] if self.options.valid == "dev" else ["test"]

    def sources(self, raw: RawFolder) -> Sources:
        found: Sources = {}
        for part in self.parts:
            wish = getattr(self.options, part)
            folder = raw.folder([wish] if wish else FOLDERS[part])
            if folder:
                name = str(folder.relative_to(raw.path))
                found[f"news/{part}"] = raw.file(f"{name}/news.tsv")
                if part in self.behaviors.names:
                    found[f"behaviors/{part}"] = raw.file(f"{name}/behaviors.tsv")
            if self.options.titles:
                found[f"titles/{part}"] = title_source(raw, self.options.titles, part)
        return found

    def process(self, run: Run) -> None:
        run.stages.run("items", ["items", "scratch/news"], partial(self._items, run))
        for part in self.behaviors.names:
            run.stages.run(f"read/{part}", [f"scratch/{part}"], partial(self._behaviors, run, part))
        outputs = ["users", "histories", "scratch/places"]
        run.stages.run("histories", outputs, partial(write_given_histories, run, self.behaviors))
        run.each_split(partial(self._interactions, run))

    def _items(self, run: Run, folder: Path) -> Facts:
        files = {part: run.sources[f"news/{part}"] for part in self.parts}
        counts: dict[str, int] = {}
        news = merged_news(run, files, folder / "scratch" / "news", counts)
        other = Facts()
        if self.options.titles:  # of MIND's size: they are looked up all at once
            titles = {part: run.sources[f"titles/{part}"] for part in self.parts}
            whole = pa.concat_tables(list(news)).combine_chunks()
            missing = self.options.untranslated
            table, other = translated(run, whole, titles, missing, partial(place_of, files))
            news = iter([table])
        pieces = (piece.rename_columns(["key", *ATTRIBUTES]) for piece in news)
        facts = write_item_pieces(folder, run.engine, pieces)
        if not facts.counts["items"]:
            raise InputError(Problem(str(run.sources["news/train"]), "holds no news"))
        counts |= {"raw/items": facts.counts["items"]} | other.counts | facts.counts
        dropped = other.dropped | run.bad_rows.drain()
        return facts.model_copy(update={"counts": counts, "dropped": dropped})

    def _behaviors(self, run: Run, part: str, folder: Path) -> Facts:
        path = run.sources[f"behaviors/{part}"]
        keys = read_folder(run.stages.work / "items", ["key"])["key"].combine_chunks()
        labeled = part == "train" or is_labeled(path)
        parse = partial(parse_behaviors, keys=KeyIndex.of(keys), labeled=labeled)
        tables = run.parsed(parse, blocks_of(path), path)
        facts = write_part(folder, part, tables, path=path, labeled=labeled)
        return facts.model_copy(update={"dropped": facts.dropped | run.bad_rows.drain()})

    def _interactions(self, run: Run, split: str, folder: Path) -> Facts:
        return write_split(run, self.behaviors, HISTORY, split, folder)


def parse_behaviors(block: Block, keys: KeyIndex, *, labeled: bool) -> pa.Table:
    """A block of behaviors.tsv with items as numbers; unknown news are taken out and counted."""
    rows = read_fields(block, BEHAVIORS)
    time = pc.strptime(rows["time"], format=TIME, unit="s", error_is_null=True)
    known = pc.greater_equal(time.cast(pa.int64()), 0)
    rows = mark(rows, pc.invert(pc.fill_null(known, False)), "the time is '{value}', expected one "
                "like 11/13/2019 8:36:57 AM", "time")  # fmt: skip
    rows = mark(rows, pc.equal(rows["user"], ""), "the user is empty", "user")
    words = split_words(rows["candidates"])
    if labeled:
        rows = _mark_unlabeled(rows, words)
        keys_of = pc.utf8_slice_codeunits(words[1], 0, -2)
        label = pc.ends_with(words[1], "-1").to_numpy(zero_copy_only=False).astype(np.int8)
    else:
        keys_of, label = words[1], np.zeros(len(words[1]), np.int8)
    rows = mark(rows, pa.array(np.diff(words[0]) == 0), "there are no candidates", "candidates")
    past = split_words(rows["history"])
    history, unknown_history, _ = numbered(*past, keys)
    items, unknown_candidates, known = numbered(words[0], keys_of, keys)
    labels = pa.ListArray.from_arrays(items.offsets, label[known])
    columns = {
        "impression": rows["impression"],
        "user": rows["user"],
        "time": time.cast(pa.int64()),
        "history": history,
        "items": items,
        "labels": labels,
        "unknown_history": unknown_history,
        "unknown_candidates": unknown_candidates,
    }
    place = {name: rows[name] for name in PLACE}
    return pa.table({**columns, **place})


def is_labeled(path: Path) -> bool:
    """Whether a behaviors.tsv says what was clicked, judged by its first row's candidates."""
    with path.open("rb") as file:
        words = file.readline().rstrip(b"\r\n").split(b"\t")[-1].split()
    return not words or any(word.endswith((b"-0", b"-1")) for word in words)


def _mark_unlabeled(rows: pa.Table, words: tuple[np.ndarray, pa.Array]) -> pa.Table:
    """A problem for each row with a candidate that ends in neither -0 nor -1."""
    fine = pc.or_(pc.ends_with(words[1], "-0"), pc.ends_with(words[1], "-1"))
    wrong = np.flatnonzero(~fine.to_numpy(zero_copy_only=False))
    owner, first = np.unique(np.searchsorted(words[0], wrong, "right") - 1, return_index=True)
    bad = np.zeros(len(rows), bool)
    bad[owner] = True
    shown = np.full(len(rows), 0)
    shown[owner] = wrong[first]
    sample = words[1].take(pa.array(shown, mask=~bad))
    return mark(
        rows.append_column("sample", sample),
        pa.array(bad),
        "the candidate '{value}' has no label, expected one like N123-0 or N123-1",
        "sample",
    ).drop_columns(["sample"])
