"""A data set's YAML, understood: its processor, its files, and where its tables lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from legoray.config import DatasetConfig, WrittenSource, build, expand, home, read_dataset
from legoray.data.attributes import Source, check_sources, generated, left_out, same_files
from legoray.data.files import RawFolder
from legoray.data.processors import processor_class
from legoray.data.schema import CONTENT_VERSION, Manifest
from legoray.data.written import list_written, written_folder
from legoray.errors import InputError, Problem, unknown
from legoray.records import digest, read_json
from legoray.storage.folders import fetch, names_below
from legoray.yamlfile import Document

if TYPE_CHECKING:
    from collections.abc import Callable

    from legoray.data.processors.base import Processor, Sources

    Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """A data set's YAML, understood."""

    config: DatasetConfig
    document: Document
    processor: Processor
    raw: Path
    sources: Sources
    config_hash: str
    tables: Path
    written: list[Source]
    coming: str  # an attribute that the YAML may name before anything of it is there


def plan_of(dataset: Path, coming: str, say: Say) -> Plan:
    """A data set's YAML, understood; nothing is written.

    Args:
        dataset: the YAML file.
        coming: an attribute that is about to be written.
        say: told which written attributes are left out.

    Raises:
        InputError: the YAML or the raw files are not as they must be.
    """
    config, document = read_dataset(dataset)
    _fetch_written(config.name)
    cls = processor_class(config.processor, document.where(("processor",)))
    options: Any = build(cls.Options, config.options, document, ("options",))
    raw = RawFolder(_raw_path(config, document), document.where(("path",)), config.get)
    try:
        processor = cls(options)
    except InputError as error:
        raise InputError(*[_placed(problem, document) for problem in error.problems]) from None
    if processor.attributes:
        attached = [name for one in config.attributes for name in one.named()]
        later = [*attached, *list_written(home(), config.name)]
        known = [*processor.attributes, *later]
        check_text(config.text, known, document, coming)
    sources = processor.sources(raw) if raw.exists() else {}
    written = _written(config, document, raw, coming, say) if raw.path.is_dir() else []
    raw.check()
    check_sources(written, processor.attributes)
    content = {
        "schema": CONTENT_VERSION,
        "processor": config.processor,
        "version": cls.version,
        "name": config.name,
        "options": options.model_dump(mode="json"),
        "on_bad_row": config.on_bad_row,
    }
    config_hash = digest(content)
    tables = place_of(config, config_hash, raw.path, sources)
    return Plan(
        config, document, processor, raw.path, sources, config_hash, tables, written, coming
    )


def place_of(config: DatasetConfig, config_hash: str, raw: Path, sources: Sources) -> Path:
    """Where the tables lie: a folder of their own where another data set of this name has its own.

    Raw files that were moved or changed are no other data set; files elsewhere of which the tables
    here are not, while those that they are of are still there, are one.
    """
    tables = home() / "tables" / f"{config.name}-{config_hash[:8]}"
    fetch(tables)
    try:
        known = read_json(tables / "manifest.json", Manifest)
    except InputError:
        return tables  # there is none; or it is damaged, which is told later
    if known.raw in ("", str(raw)) or not Path(known.raw).is_dir():
        return tables
    same = same_files(known.sources, list(sources.values()), raw)
    if same is None:
        tables = tables.with_name(f"{tables.name}-{digest(str(raw), 8)}")
        fetch(tables)
    return tables


def _fetch_written(name: str) -> None:
    """What other nodes have written for a data set, where LEGORAY_HOME is an address."""
    place = home() / "written" / name
    for attribute in names_below(place):
        fetch(place / attribute)


def _written(
    config: DatasetConfig, document: Document, raw: RawFolder, coming: str, say: Say
) -> list[Source]:
    """The sources of all written attributes: those that the YAML attaches, then generated ones."""
    found, names, problems = [], list_written(home(), config.name), []
    asked: dict[str, tuple[WrittenSource, str]] = {}
    for number, one in enumerate(config.attributes):
        where = document.where(("attributes", number))
        if one.file is not None:
            place = str(expand(one.file, raw.path, where))
            path = raw.file(place, text=one.is_text(place))
            found.append(Source(one, where, (path,), raw.path, "attached"))
        elif one.name in asked:
            first = asked[one.name][1]
            problems.append(Problem(where, f"'{one.name}' stands twice", f"first at {first}"))
        elif one.name not in names:
            if one.name == coming:
                continue
            hint = "`legoray augment` writes them"
            told = unknown("generated attribute", one.name, names, where)
            problems.append(Problem(where, told.message, told.hint if names else hint))
        else:
            asked[str(one.name)] = (one, where)
    if problems:
        raise InputError(*problems)
    for name in names:
        one_asked, where = asked.get(name, (None, ""))
        named = one_asked is not None or name in config.text
        wanted = named and name != coming  # who writes it looks at what is there
        folder = written_folder(home(), config.name, name)
        try:
            found.append(generated(folder, one_asked, where, wanted=wanted))
        except InputError as error:
            if wanted:
                raise
            say(left_out(name, error))
    return found


def _raw_path(config: DatasetConfig, document: Document) -> Path:
    """The raw folder; where its variable is not set, the advice says how to get the files."""
    try:
        return expand(config.path, document.path.parent, document.where(("path",)))
    except InputError as error:
        if not config.get:
            raise
        hints = [Problem(p.where, p.message, f"{p.hint}; {config.get}") for p in error.problems]
        raise InputError(*hints) from None


def _placed(problem: Problem, document: Document) -> Problem:
    """A problem of the options with the file and line of the key that it names."""
    where = document.where(tuple(problem.where.split(".")))
    return Problem(where, problem.message, problem.hint)


def check_text(text: list[str], attributes: list[str], document: Document, coming: str) -> None:
    """Refuse text attributes that the items do not have."""
    known = {*attributes, coming}
    wrong = [(index, name) for index, name in enumerate(text) if name not in known]
    if wrong:
        raise InputError(
            *[
                unknown("item attribute", name, attributes, document.where(("text", index)))
                for index, name in wrong
            ]
        )
