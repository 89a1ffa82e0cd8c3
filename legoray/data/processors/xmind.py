"""xMIND: titles and abstracts of MIND's news in another language, by news id.

Format: https://github.com/andreeaiana/xMIND (news.tsv with `nid`, `title` and `abstract`, for each
language and official part; the Hugging Face copies are Parquet with the same columns).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from legoray.config import FileForm
from legoray.data.badrows import repeated
from legoray.data.convert import to_key, to_text
from legoray.data.files import RawFolder
from legoray.data.lines import PLACE, blocks_of, mark
from legoray.data.processors.base import Run, as_array
from legoray.data.stages import Facts
from legoray.data.tabular import read_table
from legoray.data.tsv import headed_layout, read_headed
from legoray.errors import InputError, Problem

COLUMNS = {"nid": "id", "title": "title", "abstract": "abstract"}
SHOWN = 3  # news that are named at once


def title_source(raw: RawFolder, folder: str, part: str) -> Path:
    """The file with the titles of a part; a problem is noted in `raw` where there is none."""
    base = raw.path / folder
    packed = (f"{part}.parquet.gzip", f"{part}.parquet")
    for name in packed:
        if (base / name).exists():
            return raw.file(f"{folder}/{name}", text=False)
    if not base.is_dir():
        raw.folder([folder])
        return base
    found = raw.folder([f"{folder}/{name}" for name in
                        (f"xMINDsmall_{part}", f"xMINDlarge_{part}", part)])  # fmt: skip
    return raw.file(f"{found.relative_to(raw.path)}/news.tsv") if found else base


def translated(
    run: Run,
    news: pa.Table,
    files: Mapping[str, Path],
    missing: str,
    place_of: Callable[[str], str],
) -> tuple[pa.Table, Facts]:
    """News with title and abstract out of these files.

    Args:
        run: for its bad rows.
        news: `id`, `title`, `abstract` and others; every id once.
        files: part -> file.
        missing: `fail`, or `english` to leave as they are the news without a translated title.
        place_of: where a news stands, by its id.

    Raises:
        InputError: a file cannot be read; or news have no translation, and may not lack one.
    """
    counts, tables = {}, []
    for part, path in files.items():
        tables.append(_read(run, path))
        counts[f"raw/titles/{part}"] = len(tables[-1])
    rows = pa.concat_tables(tables).combine_chunks()
    rows = rows.filter(pc.invert(repeated(rows["id"]))).combine_chunks()
    place = pc.index_in(as_array(news["id"]), value_set=as_array(rows["id"]))
    title = pc.fill_null(as_array(rows["title"]).take(place), "")
    abstract = pc.fill_null(as_array(rows["abstract"]).take(place), "")
    given = pc.not_equal(pc.utf8_trim_whitespace(title), "")
    lacking = as_array(news["id"]).filter(pc.invert(given))
    if len(lacking) and missing == "fail":
        raise InputError(*_untranslated(lacking, len(news), files, place_of))
    lost = pc.and_(given, pc.and_(pc.equal(abstract, ""), pc.not_equal(news["abstract"], "")))
    for name, text in (("title", title), ("abstract", abstract)):
        at = news.schema.get_field_index(name)
        news = news.set_column(at, name, pc.if_else(given, text, news[name]))
    dropped = {
        "untranslated_news_kept_in_English": len(lacking),
        "abstracts_without_a_translation": pc.sum(lost).as_py() or 0,
        "translations_of_unknown_news": len(rows) - (len(place) - place.null_count),
    }
    counts["translated_items"] = len(news) - len(lacking)
    return news, Facts(counts=counts, dropped={n: c for n, c in dropped.items() if c})


def _read(run: Run, path: Path) -> pa.Table:
    """`id`, `title` and `abstract` of a file."""
    if path.suffix == ".tsv":
        layout, header = headed_layout(path, COLUMNS)
        parse = partial(read_headed, layout=layout, header=header)
        rows = pa.concat_tables([parse(block) for block in blocks_of(path)])
    else:
        swapped = {name: column for column, name in COLUMNS.items()}
        rows = read_table(path, swapped, FileForm(format="parquet"))
        texts = {"title": to_text(rows["title"]), "abstract": to_text(rows["abstract"])}
        place = {name: rows[name] for name in PLACE}
        rows = pa.table({"id": pc.fill_null(to_key(rows["id"]), ""), **texts, **place})
    rows = mark(rows, pc.equal(rows["id"], ""), "the news id is empty", "id")
    rows = mark(rows, repeated(rows["id"]), "news id '{value}' stands twice", "id")
    return run.bad_rows.good(rows, path).select(list(COLUMNS.values()))


def _untranslated(
    lacking: pa.Array, total: int, files: Mapping[str, Path], place_of: Callable[[str], str]
) -> list[Problem]:
    shown = [
        Problem(place_of(key), f"news '{key}' has no translated title")
        for key in lacking[:SHOWN].to_pylist()
    ]
    summary = Problem(
        ", ".join(str(path) for path in files.values()),
        f"{len(lacking)} of {total} news have no translated title",
        "are these the files of the same release (small or large)? "
        "`untranslated: english` leaves such news in English and counts them",
    )
    return [*shown, summary]
