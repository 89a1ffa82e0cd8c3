"""The classes behind the names of `legoray.model.parts`, and their settings out of the YAML.

The classes are imported when they are asked for, so that naming a part costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

from legoray.config import Keys, build
from legoray.errors import InputError, Problem, nearest, unknown
from legoray.model.base import BehaviorOperator, ClickPredictor, ContentOperator, PartConfig
from legoray.model.parts import BEHAVIOR, CONTENT, KINDS, PREDICTOR, TABLES, Kind
from legoray.yamlfile import Document, dotted

_IMPORT_HINT = (
    "expected package.module:Class, the package in the current folder, in PYTHONPATH or installed"
)
__all__ = [
    "BEHAVIOR",
    "CONTENT",
    "KINDS",
    "PREDICTOR",
    "TABLES",
    "Kind",
    "parse_part",
    "part_class",
]

_BASES: dict[str, type] = {
    "content": ContentOperator,
    "behavior": BehaviorOperator,
    "predictor": ClickPredictor,
}


def part_class(kind: str, name: str, where: str = "") -> type[Any]:
    """The class of a part by its name in the table, or by an import path `package.module:Class`.

    Raises:
        InputError: there is no such part; the hint has the nearest name.
    """
    check_name(kind, name, where)
    return _own_class(kind, name, where) if ":" in name else _import(TABLES[kind][name])


def check_name(kind: str, name: str, where: str = "") -> None:
    """Refuse a name that is neither in the kind's table nor an import path; imports nothing.

    Raises:
        InputError: there is no such part; the hint has the nearest name.
    """
    if ":" not in name and "." in name:
        package, _, cls = name.rpartition(".")
        what = f"there is no {_described(kind)} '{name}'"
        raise InputError(Problem(where, what, f"one of your own: '{package}:{cls}'"))
    if ":" not in name and name not in TABLES[kind]:
        raise InputError(unknown(_described(kind), name, list(TABLES[kind]), where))


def parse_part(
    kind: str,
    settings: dict[str, Any],
    where: str = "",
    *,
    document: Document | None = None,
    at: Keys = (),
) -> tuple[type[Any], PartConfig]:
    """The class and the checked settings of `{name: <part>, ...its own settings}`.

    Args:
        kind: `content`, `behavior` or `predictor`.
        settings: as it stands in the YAML.
        where: what to call the place in errors; by default what `document` says about `at`.
        document: the file that `settings` come from.
        at: their path of keys in it.

    Raises:
        InputError: an unknown part, an unknown setting, a wrong value; all of them at once.
    """
    spot = where or (document.where(at) if document else dotted(at) or kind)
    if not isinstance(settings, dict) or not isinstance(settings.get("name"), str):
        options = ", ".join(sorted(TABLES[kind]))
        raise InputError(
            Problem(spot, f"the {_described(kind)} needs a name", f"name: one of {options}")
        )
    part = part_class(kind, settings["name"], spot)
    own = {key: value for key, value in settings.items() if key != "name"}
    try:
        return part, build(part.Config, own, document, at)
    except InputError as error:
        raise InputError(
            *(_placed(p, spot, bool(document or at)) for p in error.problems)
        ) from None


def _placed(problem: Problem, spot: str, has_path: bool) -> Problem:
    """A setting's problem with the part's place before it, unless it has its own already."""
    if has_path:
        return problem
    where = f"{spot}.{problem.where}" if problem.where else spot
    return Problem(where, problem.message, problem.hint)


def _described(kind: str) -> str:
    return "click predictor" if kind == "predictor" else f"{kind} operator"


def _import(path: str) -> type[Any]:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _own_class(kind: str, path: str, where: str) -> type[Any]:
    """A part that stands outside of the tables."""
    from legoray.model.inspect import class_problems

    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        close = nearest(path, TABLES[kind])
        hint = f"did you mean '{close}'?" if close else _IMPORT_HINT
        raise InputError(Problem(where, f"'{path}' cannot be imported: {error}", hint)) from None
    except Exception as error:  # whatever the user's module does when it is imported
        reason = f"{type(error).__name__}: {error}"
        hint = "expected package.module:Class"
        raise InputError(Problem(where, f"'{path}' cannot be imported: {reason}", hint)) from None
    base = _BASES[kind]
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(
            Problem(where, f"'{path}' is no {_described(kind)}", f"derive it from {base.__name__}")
        )
    problems = class_problems(kind, found, where, path)
    if problems:
        raise InputError(*problems)
    return found
