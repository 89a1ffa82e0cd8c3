"""EB-NeRD (Ekstra Bladet) demo, small and large: Parquet; behaviours and histories per part.

Format: https://recsys.eb.dk/dataset/ and arXiv 2410.03432, section 3. Histories belong to users,
one for each official part, and end before the part's week begins.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from pydantic import Field

from legoray.data.badrows import repeated
from legoray.data.convert import is_plain, to_key, to_text
from legoray.data.files import RawFolder
from legoray.data.impressions import (
    UNKNOWN,
    ImpressionOptions,
    Parts,
    parts_of,
    write_part,
    write_split,
)
from legoray.data.keyindex import KeyIndex
from legoray.data.lines import PLACE, mark
from legoray.data.processors.base import Processor, Run, Sources, as_array
from legoray.data.processors.ebnerd_histories import read_histories, write_user_histories
from legoray.data.processors.ebnerd_rows import (
    ASIDE,
    HISTORY_COLUMNS,
    LABELS,
    LOG_COLUMNS,
    PROFILE,
    is_id,
    is_id_list,
    parse_behaviors,
    parse_ids,
)
from legoray.data.rowgroups import check_columns, read_rows
from legoray.data.stages import Facts
from legoray.data.tables import read_folder, write_items
from legoray.errors import InputError, Problem

ARTICLE_COLUMNS = {  # attribute -> column; what happened after an impression is left out
    "title": "title", "subtitle": "subtitle", "body": "body", "category": "category_str",
    "subcategory": "subcategory", "topics": "topics", "entities": "ner_clusters",
    "type": "article_type", "sentiment": "sentiment_label",
}  # fmt: skip
HISTORY = (
    "the user's clicks in the weeks before the official part, strictly before the impression; "
    "those of the part itself are not added"
)
COUNTED = UNKNOWN | {
    "again": "clicks_given_again",
    "outside": "clicks_outside_the_view",
    "beyond": "beyond_accuracy_rows",
}
Part = Literal["train", "validation"]
OFFICIAL: tuple[Part, ...] = ("train", "validation")


class EbnerdOptions(ImpressionOptions):
    """Options of `processor: ebnerd`."""

    parts: list[Part] = Field(
        list(OFFICIAL), min_length=1, description="which of the bundle's parts are read"
    )
    test: str | None = Field(None, description="folder of the test set, which has no labels")
    valid: Literal["tail", "validation"] = Field(
        "tail", description="the tail of the train week; or validation, where there is a test set"
    )
    articles: Literal["file", "ids"] = Field(
        "file", description="ids: articles.parquet is not there, and items have no attributes"
    )


class Ebnerd(Processor):
    """Articles and impressions; `valid` = tail of train, `test` = validation or the test set."""

    Options = EbnerdOptions
    attributes = tuple(ARTICLE_COLUMNS)
    default_text = ("title", "subtitle")

    def __init__(self, options: EbnerdOptions) -> None:
        super().__init__(options)
        self.parts = self._parts(options)
        if options.articles == "ids":
            self.attributes = self.default_text = ()  # type: ignore[misc, assignment]

    def _parts(self, options: EbnerdOptions) -> Parts:
        given = tuple(part for part in OFFICIAL if part in options.parts)
        if options.valid == "validation" and not options.test:
            raise InputError(
                Problem("options.valid", "is 'validation', which is the test split here",
                        "give a test folder too, or leave valid at 'tail'")
            )  # fmt: skip
        if options.test and options.valid == "tail":
            given = given[:1]  # what is neither validated nor tested on is left unread
        names = (*given, *(["test"] if options.test else []))
        if options.split.name == "official" and (len(names) < 2 or names[0] != "train"):
            hint = "name train and validation, or set split: {temporal: 0.8/0.1/0.1}"
            message = f"{' and '.join(names)} alone cannot be split officially"
            raise InputError(Problem("options.parts", message, hint))
        return parts_of(options, names, tail=options.valid == "tail")

    def sources(self, raw: RawFolder) -> Sources:
        found: Sources = {}
        if self.options.articles == "file":
            found["articles"] = _articles_source(raw, "articles.parquet")
        for part in self.parts.names:
            folder = raw.folder([self.options.test if part == "test" else part])
            if folder:
                name = str(folder.relative_to(raw.path))
                found[f"behaviors/{part}"] = raw.file(f"{name}/behaviors.parquet", text=False)
                found[f"history/{part}"] = raw.file(f"{name}/history.parquet", text=False)
                beside = str(folder.parent.relative_to(raw.path) / "articles.parquet")
                if part == "test" and "articles" in found and beside != "articles.parquet":
                    found["articles/test"] = _articles_source(raw, beside)
        return found

    def process(self, run: Run) -> None:
        run.stages.run("items", ["items"], partial(self._items, run))
        for part in self.parts.names:
            scratch = f"scratch/{part}"
            run.stages.run(f"read/{part}", [scratch], partial(self._behaviors, run, part))
            scratch = f"scratch/history/{part}"
            run.stages.run(f"history/{part}", [scratch], partial(self._read_histories, run, part))
        outputs = ["users", "histories", "scratch/places"]
        run.stages.run("histories", outputs, partial(write_user_histories, run, self.parts))
        run.each_split(partial(write_split, run, self.parts, HISTORY))

    def _items(self, run: Run, folder: Path) -> Facts:
        if self.options.articles == "ids":
            keys = _ids_in_the_logs(run, self.parts.names)
            facts = write_items(folder, run.engine, keys, {})
            return facts.model_copy(update={"counts": facts.counts | {"raw/items": len(keys)}})
        files = [path for name, path in run.sources.items() if name.startswith("articles")]
        rows = pa.concat_tables([_read_articles(run, path) for path in files]).combine_chunks()
        rows = rows.filter(pc.invert(repeated(rows["key"]))).combine_chunks()
        if not len(rows):
            raise InputError(Problem(str(files[0]), "holds no articles"))
        columns = {name: as_array(rows[name]) for name in ARTICLE_COLUMNS}
        facts = write_items(folder, run.engine, as_array(rows["key"]), columns)
        counts = {"raw/items": len(rows)} | facts.counts
        return facts.model_copy(update={"counts": counts, "dropped": run.bad_rows.drain()})

    def _behaviors(self, run: Run, part: str, folder: Path) -> Facts:
        path = run.sources[f"behaviors/{part}"]
        labeled = part != "test"
        check_columns(path, LOG_COLUMNS | (LABELS if labeled else ASIDE))
        parse = partial(parse_behaviors, keys=_item_ids(run), labeled=labeled)
        columns = [*LOG_COLUMNS, *LABELS, *ASIDE, *PROFILE]
        rows = read_rows(run.engine, path, columns, parse)
        facts = write_part(
            folder,
            part,
            (run.bad_rows.good(table, path) for table in rows),
            path=path,
            labeled=labeled,
            counted=COUNTED,
            aside="beyond",
        )
        return facts.model_copy(update={"dropped": facts.dropped | run.bad_rows.drain()})

    def _read_histories(self, run: Run, part: str, folder: Path) -> Facts:
        path = run.sources[f"history/{part}"]
        check_columns(path, HISTORY_COLUMNS)
        facts = read_histories(run, path, part, _item_ids(run), folder / "scratch/history" / part)
        return facts.model_copy(update={"dropped": facts.dropped | run.bad_rows.drain()})


def _articles_source(raw: RawFolder, name: str) -> Path:
    """A file of articles; where it is missing, the advice says what can be done without it."""
    before = len(raw.problems)
    path = raw.file(name, text=False)
    if len(raw.problems) > before and not path.exists():
        found = raw.problems.pop()
        without = "without texts, for models that read ids alone: options.articles: ids"
        hint = "; ".join(part for part in (found.hint, without) if part)
        raw.problems.append(Problem(found.where, found.message, hint))
    return path


def _read_articles(run: Run, path: Path) -> pa.Table:
    """`key` and the attributes of a file's articles."""
    wanted = dict.fromkeys(ARTICLE_COLUMNS.values(), (_is_text, "texts, or lists of them"))
    check_columns(path, {"article_id": (is_id, "whole numbers"), **wanted})
    columns = ["article_id", *ARTICLE_COLUMNS.values()]
    tables = read_rows(run.engine, path, columns, _parse_articles, batch=1 << 14)
    rows = pa.concat_tables(list(tables))
    rows = mark(rows, pc.is_null(rows["key"]), "the article_id is missing", "key")
    rows = mark(rows, repeated(rows["key"]), "article '{value}' stands twice", "key")
    return run.bad_rows.good(rows, path)


def _parse_articles(rows: pa.Table) -> pa.Table:
    texts = {name: to_text(rows[column]) for name, column in ARTICLE_COLUMNS.items()}
    return pa.table({"key": to_key(rows["article_id"]), **texts, **{n: rows[n] for n in PLACE}})


def _is_text(kind: pa.DataType) -> bool:
    inner = kind.value_type if pt.is_list(kind) or pt.is_large_list(kind) else kind
    return is_plain(inner)


def _item_ids(run: Run) -> KeyIndex:
    """The items' keys as the numbers that the logs have."""
    keys = as_array(read_folder(run.stages.work / "items", ["key"])["key"])
    return KeyIndex.of(keys.cast(pa.int64()))


def _ids_in_the_logs(run: Run, parts: tuple[str, ...]) -> pa.Array:
    """All ids that impressions show and histories hold, in rising order, as keys."""
    found = np.zeros(0, np.int64)
    for part in parts:
        for name in ("behaviors", "history"):
            path = run.sources[f"{name}/{part}"]
            kinds = LOG_COLUMNS if name == "behaviors" else HISTORY_COLUMNS
            lists = [column for column, (accept, _) in kinds.items() if accept is is_id_list]
            check_columns(path, {column: kinds[column] for column in lists})
            for table in read_rows(run.engine, path, lists, parse_ids):
                found = np.union1d(found, table["id"].to_numpy())
    if not len(found):
        raise InputError(Problem(str(path), "names no articles"))
    return pa.array(found).cast(pa.string())
