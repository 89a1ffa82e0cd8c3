"""What operators that read stored or pooled vectors have in common: where these come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from legoray.config import expand
from legoray.data.recipes import VectorSource
from legoray.errors import InputError, Problem
from legoray.llm.catalogue import folder_problem
from legoray.llm.load import facts
from legoray.llm.precision import Precision, precision_problem
from legoray.llm.text import default_template, template_pieces
from legoray.model.base import PartConfig


class PooledConfig(PartConfig):
    """How a language model's hidden states become one vector per text."""

    template: str | None = Field(None, description="all default text attributes where null")
    length: Annotated[int, Field(ge=3)] = Field(64, description="tokens, special ones included")
    pooling: Literal["mean", "cls", "last"] = "mean"
    precision: Precision = "float32"


def template_of(config: PooledConfig, text: tuple[str, ...]) -> str:
    """The settings' template; by default all of the data set's text attributes.

    Raises:
        InputError: neither the settings nor the data set name a text.
    """
    if config.template is None and not text:
        raise InputError(Problem("template", "the data set names no text", "give a template"))
    return config.template or default_template(text)


def vectors_of_model(model: str, config: PooledConfig, text: tuple[str, ...]) -> VectorSource:
    """A language model's pooled last states."""
    return VectorSource(
        model=model,
        template=template_of(config, text),
        length=config.length,
        pooling=config.pooling,
        precision=config.precision,
    )


def model_problems(model: str, config: PooledConfig) -> list[str]:
    """What is wrong with the settings for this language model; reads its `config.json`."""
    relative = folder_problem(model)
    found = [relative] if relative else []
    try:
        known = facts(model)
        if known.positions is not None and config.length > known.positions:
            found.append(f"length {config.length}: {model} reads {known.positions} tokens")
        blind = known.pooling_problem(config.pooling)
        found += [blind] if blind else []
    except InputError as error:
        found += [str(problem) for problem in error.problems]
    lacking = precision_problem(config.precision)
    found += [lacking] if lacking else []
    try:
        template_pieces(config.template if config.template is not None else "{title}")
    except ValueError as error:
        found.append(str(error))
    return found


def absolute(file: str, setting: str = "file") -> str:
    """A file's path with `~` and `$VARIABLES` filled in.

    Raises:
        InputError: a variable is not set.
    """
    return str(expand(file, Path("/"), setting))


def file_problems(file: str, suffixes: tuple[str, ...], setting: str = "file") -> list[str]:
    """What is wrong with a file's name; workers must find it from any folder."""
    if not file.startswith(("/", "~", "$")):
        here = Path(file).absolute()
        return [f"{setting} '{file}' is a relative path; workers run elsewhere: write {here}"]
    try:
        path = Path(absolute(file, setting))
    except InputError as error:
        return [str(problem) for problem in error.problems]
    found = [] if path.is_file() else [f"{setting} '{file}': no such file"]
    if path.suffix not in suffixes:
        expected = ", ".join(suffixes)
        found.append(f"{setting} '{file}' has the suffix '{path.suffix}', expected {expected}")
    return found


def exactly_one(**given: str | None) -> list[str]:
    """A problem where not exactly one of some settings is given."""
    named = [name for name, value in given.items() if value is not None]
    if len(named) == 1:
        return []
    found = " and ".join(named) if named else "none of them"
    return [f"exactly one of {', '.join(given)} must be given, found {found}"]
