"""`legoray catalog datasets`: what the folder's YAML files describe, and what of it is here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from legoray.config import DatasetConfig, expand, home, read_dataset
from legoray.errors import InputError, Problem, unknown

FOLDER = Path("datasets")
HASHES = "????????-????????"  # where two data sets have one name
HEADS = ("name", "processor", "published", "licence", "here")


@dataclass(frozen=True)
class Listed:
    """A data set's YAML, or what is wrong with it."""

    file: Path
    config: DatasetConfig | None
    problem: str = ""


def listed(folder: Path = FOLDER) -> list[Listed]:
    """The YAML files of a folder, by name.

    Raises:
        InputError: there is no such folder, or none in it.
    """
    files = sorted(folder.glob("*.yaml"))
    if not files:
        message = "holds no data set's YAML" if folder.is_dir() else "no such folder"
        raise InputError(Problem(str(folder), message, "run it where `datasets/` lies"))
    return list(map(_read, files))


def catalog_datasets(
    names: Sequence[str], console: Console, say: Callable[[str], None], *, markdown: bool
) -> None:
    """All data sets as a table, for a terminal or a Markdown page; or how to get some of them.

    Raises:
        InputError: there is no folder of data sets, or none of a name.
    """
    if markdown:
        for line in markdown_lines():
            say(line)
    elif names:
        for name in names:
            print_dataset(name, say)
    else:
        print_datasets(console, say)


def print_datasets(console: Console, say: Callable[[str], None]) -> None:
    """One line per data set.

    Raises:
        InputError: as `listed`.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in HEADS:
        table.add_column(name, no_wrap=name in ("name", "here"))
    found = listed()
    for one in found:
        if one.config is not None:
            table.add_row(*(Text(cell) for cell in _row(one.config, one.file)))
    console.print(table)
    for one in found:
        if one.config is None:
            say(f"not listed: {one.problem}")
    say("`legoray catalog datasets NAME` says how to get one; `legoray inspect FILE` looks into it")


def print_dataset(name: str, say: Callable[[str], None]) -> None:
    """All that the YAML says of one data set, and how to get it.

    Raises:
        InputError: there is none of this name.
    """
    known = {one.config.name: (one.file, one.config) for one in listed() if one.config}
    if name not in known:
        raise InputError(unknown("data set", name, list(known)))
    file, config = known[name]
    told = {
        "title": config.title,
        "licence": config.licence,
        "citation": config.citation,
        "url": config.url,
        "processor": config.processor,
        "published": counts_text(config.published),
        "size": config.size,
        "path": config.path,
        "here": _here(config, file),
        "to get it": config.get,
    }
    for word, text in told.items():
        if text:
            say(f"{word}: {' '.join(text.split())}")
    say(f"then: legoray prepare {file}")


def markdown_lines() -> Iterator[str]:
    """The lines of a table of all data sets, for the documentation.

    Raises:
        InputError: as `listed`, or a file is not well formed.
    """
    yield "| data set | what | processor | published | size | licence | from |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for one in listed():
        if one.config is None:
            raise InputError(one.problem)
        known = one.config
        link = f"[page]({known.url})" if known.url else "in the repository"
        counts = counts_text(known.published)
        name, processor = f"`{known.name}`", f"`{known.processor}`"
        cells = (name, known.title, processor, counts, known.size, known.licence, link)
        yield "| " + " | ".join(" ".join(cell.replace("|", r"\|").split()) for cell in cells) + " |"


def counts_text(counts: Mapping[str, int]) -> str:
    """Counts in words."""
    return ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in counts.items())


def _read(file: Path) -> Listed:
    try:
        return Listed(file, read_dataset(file)[0])
    except InputError as error:
        return Listed(file, None, str(error.problems[0]))


def _row(config: DatasetConfig, file: Path) -> tuple[str, ...]:
    licence = re.split(r"\s*[(;]", config.licence)[0]  # its name; the rest is conditions
    totals = {what: count for what, count in config.published.items() if "/" not in what}
    return (config.name, config.processor, counts_text(totals), licence, _here(config, file))


def _here(config: DatasetConfig, file: Path) -> str:
    """Whether tables or raw files are on this machine."""
    tables = home() / "tables"
    if any(any(tables.glob(f"{config.name}-{h}/manifest.json")) for h in ("?" * 8, HASHES)):
        return "prepared"
    try:
        raw = expand(config.path, file.parent, "path")
    except InputError:
        return ""  # its variable is not set
    return "raw files" if raw.is_dir() else ""
