"""MIND and whatever is written in its format: news.tsv and behaviors.tsv per official part.

Format: https://github.com/msnews/msnews.github.io/blob/master/assets/doc/introduction.md
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from legoray.config import Share, Strict
from legoray.data.badrows import repeated
from legoray.data.files import RawFolder
from legoray.data.lines import PLACE, Block, Layout, blocks_of, mark, read_fields
from legoray.data.processors.base import Processor, Run, Sources, number_keys
from legoray.data.protocol import temporal_split
from legoray.data.ragged import flat, hash_rows, keep, list_array, offsets_of
from legoray.data.stages import Facts
from legoray.data.tables import (
    Impressions,
    read_folder,
    write_histories,
    write_interactions,
    write_items,
    write_users,
)
from legoray.errors import InputError, Problem

NEWS = Layout(
    ("id", "category", "subcategory", "title", "abstract", "url", "title entities",
     "abstract entities"), "\t", "tabs",
)  # fmt: skip
BEHAVIORS = Layout(("impression", "user", "time", "history", "candidates"), "\t", "tabs")
ATTRIBUTES = ("title", "abstract", "category", "subcategory")
TIME = "%m/%d/%Y %I:%M:%S %p"
FOLDERS = {
    part: (part, f"MINDsmall_{part}", f"MINDlarge_{part}", f"MINDdemo_{part}")
    for part in ("train", "dev", "test")
}


class MindOptions(Strict):
    """Options of `processor: mind`."""

    train: str | None = Field(None, description="folder; train or MIND*_train if null")
    dev: str | None = Field(None, description="folder; dev or MIND*_dev if null")
    test: str | None = Field(None, description="folder of a test part, which may be unlabeled")
    valid: Literal["tail", "dev"] = Field(
        "tail", description="the tail of the train week; or dev, where there is a test folder"
    )
    valid_share: Share = Field(0.1, gt=0, description="of the train impressions, by time")


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
        self.behaviors = ["train", *self._later()]

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
                if part in self.behaviors:
                    found[f"behaviors/{part}"] = raw.file(f"{name}/behaviors.tsv")
        return found

    def process(self, run: Run) -> None:
        run.stages.run("items", ["items"], partial(self._items, run))
        for part in self.behaviors:
            run.stages.run(f"read/{part}", [f"scratch/{part}"], partial(self._behaviors, run, part))
        outputs = ["users", "histories", "scratch/numbers"]
        run.stages.run("histories", outputs, partial(self._histories, run))
        run.each_split(partial(self._interactions, run))

    def _items(self, run: Run, folder: Path) -> Facts:
        tables = []
        for part in self.parts:
            path = run.sources[f"news/{part}"]
            rows = pa.concat_tables([read_fields(b, NEWS) for b in blocks_of(path)])
            rows = mark(rows, pc.equal(rows["id"], ""), "the news id is empty", "id")
            rows = mark(rows, repeated(rows["id"]), "news id '{value}' stands twice", "id")
            tables.append(run.bad_rows.good(rows, path).select(["id", *ATTRIBUTES]))
        news = pa.concat_tables(tables).combine_chunks()
        again = repeated(news["id"])
        news = news.filter(pc.invert(again)).combine_chunks()
        if not len(news):
            raise InputError(Problem(str(run.sources["news/train"]), "holds no news"))
        columns = {name: news[name].chunk(0) for name in ATTRIBUTES}
        facts = write_items(folder, run.engine, news["id"].chunk(0), columns)
        return facts.model_copy(update={"dropped": run.bad_rows.drain()})

    def _behaviors(self, run: Run, part: str, folder: Path) -> Facts:
        path = run.sources[f"behaviors/{part}"]
        keys = read_folder(run.stages.work / "items", ["key"])["key"].combine_chunks()
        labeled = part == "train" or is_labeled(path)
        parse = partial(parse_behaviors, keys=keys, labeled=labeled)
        rows = run.parse(parse, blocks_of(path), path)
        dropped = {
            f"unknown_news_in_histories/{part}": _total(rows["unknown_history"]),
            f"unknown_news_in_candidates/{part}": _total(rows["unknown_candidates"]),
        }
        some = pc.greater(pc.list_value_length(rows["items"]), 0)
        dropped[f"impressions_without_candidates/{part}"] = len(rows) - _total(some)
        rows = rows.filter(some)
        if not len(rows):
            raise InputError(_nothing_known(path, dropped, part))
        rows = rows.drop_columns(["unknown_history", "unknown_candidates"])
        pq.write_table(rows, folder / "scratch" / part / "part-00000.parquet")
        counted = {name: count for name, count in dropped.items() if count}
        return Facts(dropped=counted | run.bad_rows.drain(), labeled={part: labeled})

    def _histories(self, run: Run, folder: Path) -> Facts:
        """One row for each distinct (user, history) of all parts."""
        columns = ["user", "history"]
        read = [read_folder(run.stages.work / "scratch" / p, columns) for p in self.behaviors]
        rows = pa.concat_tables(read)
        keys, user = number_keys(rows["user"])
        offsets, items = flat(rows["history"], np.int32)
        # Two different histories of one user, of equal length, with equal 64-bit hashes: never met.
        content = np.stack([user.astype(np.uint64), np.diff(offsets).astype(np.uint64),
                            hash_rows(offsets, items)])  # fmt: skip
        _, first, number = np.unique(content, axis=1, return_index=True, return_inverse=True)
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        _save_numbers(folder, rank[number.ravel()], [len(t) for t in read], self.behaviors)
        chosen = rows.take(pa.array(first[order]))
        offsets, items = flat(chosen["history"], np.int32)
        facts = write_histories(folder, run.engine, user[first[order]], offsets, items)
        users = write_users(folder, run.engine, keys)
        return Facts(counts=facts.counts | users.counts, hashes=facts.hashes | users.hashes)

    def _interactions(self, run: Run, split: str, folder: Path) -> Facts:
        part = self._part_of(split)
        rows = read_folder(run.stages.work / "scratch" / part)
        numbers = np.load(run.stages.work / "scratch" / "numbers" / f"{part}.npy")
        data = _impressions(rows, numbers, labeled=run.stages.facts[f"read/{part}"].labeled[part])
        if part == "train" and self.options.valid == "tail":
            share = self.options.valid_share
            early, late = temporal_split(data.time, [1 - share, share])
            data = data.take(early if split == "train" else late)
        facts = write_interactions(folder, run.engine, split, data)
        return facts.model_copy(update={"protocol": self._protocol()})

    def _part_of(self, split: str) -> str:
        if split == "test":
            return self.behaviors[-1]
        return "dev" if split == "valid" and self.options.valid == "dev" else "train"

    def _protocol(self) -> dict[str, Any]:
        share = f"{self.options.valid_share:g}"
        valid = f"last {share} of train by time" if self.options.valid == "tail" else "official dev"
        return {
            "split": f"train: official train; valid: {valid}; test: official {self.behaviors[-1]}",
            "history": "as given with each impression",
            "negatives": "the impression's candidates without a click",
        }


def parse_behaviors(block: Block, keys: pa.Array, *, labeled: bool) -> pa.Table:
    """A block of behaviors.tsv with items as numbers; unknown news are taken out and counted."""
    rows = read_fields(block, BEHAVIORS)
    time = pc.strptime(rows["time"], format=TIME, unit="s", error_is_null=True)
    rows = mark(rows, pc.is_null(time), "the time is '{value}', expected one like "
                "11/13/2019 8:36:57 AM", "time")  # fmt: skip
    rows = mark(rows, pc.equal(rows["user"], ""), "the user is empty", "user")
    words = _split(rows["candidates"])
    if labeled:
        rows = _mark_unlabeled(rows, words)
        keys_of = pc.utf8_slice_codeunits(words[1], 0, -2)
        label = pc.ends_with(words[1], "-1").to_numpy(zero_copy_only=False).astype(np.int8)
    else:
        keys_of, label = words[1], np.zeros(len(words[1]), np.int8)
    rows = mark(rows, pa.array(np.diff(words[0]) == 0), "there are no candidates", "candidates")
    history, unknown_history, _ = _numbered(*_split(rows["history"]), keys)
    items, unknown_candidates, known = _numbered(words[0], keys_of, keys)
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


def _split(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Offsets and words of space-separated lists; nulls and repeated spaces hold no words."""
    parts = pc.split_pattern(pc.fill_null(column, "").combine_chunks(), pattern=" ")
    offsets = parts.offsets.to_numpy().astype(np.int64)
    some = pc.not_equal(parts.values, "")
    return keep(offsets, some.to_numpy(zero_copy_only=False)), parts.values.filter(some)


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


def _numbered(
    offsets: np.ndarray, words: pa.Array, keys: pa.Array
) -> tuple[pa.ListArray, pa.Array, np.ndarray]:
    """Lists of item ids, how many unknown words each list had, and which words were known."""
    index = pc.index_in(words, value_set=keys)
    known = pc.is_valid(index).to_numpy(zero_copy_only=False)
    kept = keep(offsets, known)
    items = index.filter(pa.array(known)).to_numpy(zero_copy_only=False).astype(np.int32) + 1
    unknown = (np.diff(offsets) - np.diff(kept)).astype(np.int32)
    return list_array(kept, items.astype(np.int32)), pa.array(unknown), known


def _impressions(rows: pa.Table, numbers: np.ndarray, *, labeled: bool) -> Impressions:
    offsets, items = flat(rows["items"], np.int32)
    _, labels = flat(rows["labels"], np.int8)
    return Impressions(
        id=_ids(rows["impression"]),
        history=numbers.astype(np.int32),
        end=pc.list_value_length(rows["history"]).to_numpy().astype(np.int32),
        time=rows["time"].to_numpy(),
        offsets=offsets,
        item=items,
        label=labels,
        labeled=labeled,
    )


def _ids(column: pa.ChunkedArray) -> np.ndarray:
    """Impression ids as they stand where they are distinct integers; else rows are numbered."""
    integers = pc.all(pc.match_substring_regex(column, r"^\d{1,18}$")).as_py()
    if integers and pc.count_distinct(column).as_py() == len(column):
        return column.cast(pa.int64()).to_numpy()
    return np.arange(1, len(column) + 1, dtype=np.int64)


def _save_numbers(folder: Path, numbers: np.ndarray, lengths: list[int], parts: list[str]) -> None:
    offsets = offsets_of(np.array(lengths))
    for part, start, end in zip(parts, offsets[:-1], offsets[1:], strict=True):
        np.save(folder / "scratch" / "numbers" / f"{part}.npy", numbers[start:end])


def _total(column: Any) -> int:
    return int(pc.sum(column).as_py() or 0)


def _nothing_known(path: Path, dropped: dict[str, int], part: str) -> Problem:
    unknown = dropped[f"unknown_news_in_candidates/{part}"]
    return Problem(
        str(path),
        f"no impression is left: {unknown} candidates name news that news.tsv lacks",
        "do news.tsv and behaviors.tsv belong together? MIND-small and MIND-large have other ids",
    )
