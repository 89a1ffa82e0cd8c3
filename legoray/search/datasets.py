"""The data sets that a space names: one, or several that are searched one after another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from legoray.config import DatasetConfig, expand, read_dataset
from legoray.errors import InputError, Problem, nearest
from legoray.yamlfile import Document, Keys


@dataclass(frozen=True)
class Dataset:
    """A data set's file, as the space names it."""

    given: str
    path: Path
    config: DatasetConfig

    def of(self, document: Document) -> Document:
        """A space's file as if it named this data set alone."""
        if isinstance(document.data["data"], str):
            return document
        return Document(document.path, {**document.data, "data": self.given}, document.lines)


def read_datasets(document: Document) -> tuple[list[Dataset], list[Problem]]:
    """The data sets of a space's file, and what is wrong with them."""
    given = document.data.get("data")
    named: list[tuple[Keys, Any]] = [(("data",), given)]
    if isinstance(given, list):
        named = [(("data", index), one) for index, one in enumerate(given)]
    found: list[Dataset] = []
    problems: list[Problem] = []
    for keys, one in named:
        if not isinstance(one, str) or not one:
            continue  # told as a wrong type
        where = document.where(keys)
        try:
            dataset = _read(document, one, where)
        except InputError as error:
            problems += error.problems
            continue
        twin = next((o for o in found if o.config.name == dataset.config.name), None)
        if twin is not None:
            message = f"the data set '{dataset.config.name}' stands twice"
            problems.append(Problem(where, message, f"first as {twin.given}"))
        else:
            found.append(dataset)
    return found, problems


def _read(document: Document, given: str, where: str) -> Dataset:
    """A data set's file: beside the space's, or below the folder above it.

    Raises:
        InputError: there is none, or it is not a data set's.
    """
    written = expand(given, document.path.parent, where, make_absolute=False)
    base = document.path.absolute().parent
    places = [base / written, base.parent / written]
    path = next((place.resolve() for place in places if place.is_file()), None)
    if path is None:
        raise InputError(_missing(given, where, places))
    return Dataset(given, path, read_dataset(path)[0])


def _missing(given: str, where: str, places: list[Path]) -> Problem:
    """Say where the file was looked for, and which one may have been meant."""
    known = {f.name: f for place in places for f in sorted(place.parent.glob("*.yaml"))}
    close = nearest(Path(given).name, known)
    looked = " and ".join(dict.fromkeys(str(place.parent) for place in places))
    hint = f"did you mean '{Path(given).parent / close}'?" if close else f"looked in {looked}"
    return Problem(where, f"there is no data set file '{given}'", hint)
