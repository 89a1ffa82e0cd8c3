"""Which compositions are valid, from the parts' declarations alone: nothing is built here."""

from __future__ import annotations

from typing import Any

from legoray.config import ModelConfig
from legoray.errors import InputError, Problem
from legoray.model.base import PartConfig
from legoray.model.parts import misfit
from legoray.model.registry import (
    BEHAVIOR,
    CONTENT,
    KINDS,
    PREDICTOR,
    check_name,
    parse_part,
    part_class,
)
from legoray.yamlfile import Document, Keys, dotted


def check(config: ModelConfig, document: Document | None = None, at: Keys = ()) -> list[Problem]:
    """Everything that is wrong with a composition; an empty list where it is valid.

    Args:
        config: the composition.
        document: the file that it comes from, for line numbers.
        at: its path of keys in that file.
    """
    problems: list[Problem] = []
    parts: dict[str, tuple[type[Any], PartConfig]] = {}
    for kind in KINDS:
        keys = (*at, kind)
        try:
            parts[kind] = parse_part(kind, getattr(config, kind), document=document, at=keys)
        except InputError as error:
            problems += error.problems
            continue
        problems += _own_problems(*parts[kind], config.hidden_size, _where(document, keys))
    if "behavior" in parts and "predictor" in parts:
        names = (str(config.behavior["name"]), str(config.predictor["name"]))
        problems += _fit(
            *names, parts["behavior"][0], parts["predictor"][0], _where(document, (*at, KINDS[2]))
        )
    return problems


def compositions() -> list[tuple[str, str, str]]:
    """All valid `(content, behavior, predictor)` of the tables, in their order."""
    return [
        (content, behavior, predictor)
        for content in CONTENT
        for behavior in BEHAVIOR
        for predictor in PREDICTOR
        if explain(content, behavior, predictor) is None
    ]


def explain(content: str, behavior: str, predictor: str) -> str | None:
    """Why three parts do not fit together, with the nearest choices that do; None where they do.

    Raises:
        InputError: there is no part of that name.
    """
    check_name("content", content)  # any content operator gives what any behavior operator reads
    found = _fit(
        behavior,
        predictor,
        part_class("behavior", behavior),
        part_class("predictor", predictor),
        "",
    )
    return str(found[0]) if found else None


def _where(document: Document | None, keys: Keys) -> str:
    return document.where(keys) if document else dotted(keys)


def _own_problems(
    part: type[Any], config: PartConfig, hidden_size: int, where: str
) -> list[Problem]:
    """What a part itself has against its settings at this hidden size."""
    ask = getattr(part, "problems", None)
    return [Problem(where, text) for text in ask(config, hidden_size)] if ask else []


def _fit(
    behavior: str, predictor: str, behavior_class: type[Any], predictor_class: type[Any], where: str
) -> list[Problem]:
    """A predictor must accept the kind of user state that the behavior operator produces."""
    found = misfit(behavior, behavior_class.produces, predictor, predictor_class.accepts)
    return [Problem(where, *found)] if found else []
