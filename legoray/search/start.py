"""`search.start_with`: settings to try first, given in the space's own structure.

    start_with:
      - model: {content: {name: cnn}, behavior: {name: additive}}
        train: {learning_rate: 1e-3}

What a starting point leaves open is drawn by the sampler. A predictor that fits only some behavior
operators settles the behavior too: the first one that it fits, unless the starting point names one.
A value of a range that other values move settles these values.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from typing import Any, cast

from legoray.errors import Problem, nearest
from legoray.search.cover import Drawing, complete
from legoray.search.formula import AbsentError, FormulaError, Path
from legoray.search.notation import KINDS
from legoray.search.places import Spot, canonical
from legoray.search.space import SHARE, Space
from legoray.search.start_from import starts_from
from legoray.search.tree import (
    Case,
    Choice,
    Const,
    Group,
    Moved,
    Node,
    Option,
    Range,
    Scalar,
    below,
    same,
    text_of,
)
from legoray.yamlfile import Document, Keys

Pins = dict[str, Scalar]


def start_problems(space: Space) -> list[Problem]:
    """What is wrong with the starting points of a space."""
    problems: list[Problem] = []
    for index, given in enumerate(space.config.search.start_with):
        at: Keys = ("search", "start_with", index)
        pins, found = pins_of(space, given, at)
        if not found:
            drawing, refused = complete(space, pins, random.Random(0))
            reason = "; ".join(dict.fromkeys(p.message for p in refused))
            where = space.document.where(at)
            found = [] if drawing else [Problem(where, f"is not valid here: {reason or 'no such'}")]
            found += _lost(drawing, given, where) if drawing else []
        problems += found
    return problems + [problem for start in starts_from(space) for problem in start.problems]


def _lost(drawing: Drawing, given: Any, where: str) -> list[Problem]:
    """What a starting point says and its configuration does not have: a case had no say."""
    drawn = drawing.config.model_dump()
    return [
        Problem(where, f"{'.'.join(map(str, keys))} is {value!r}, which no case allows here")
        for keys, value in _leaves(given)
        if not _holds(drawn, keys, value)
    ]


def _leaves(given: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    if isinstance(given, dict):
        for key, value in given.items():
            yield from _leaves(value, (*keys, key))
    elif given is not None:
        yield keys, given


def _holds(drawn: Any, keys: Keys, value: Any) -> bool:
    for key in keys:
        if not isinstance(drawn, dict) or key not in drawn:
            return True  # a form of its own, such as the name of a preset
        drawn = drawn[key]
    number = isinstance(value, int | float) and isinstance(drawn, int | float)
    return (
        math.isclose(drawn, value, rel_tol=1e-9)
        if number
        else isinstance(drawn, dict) or (drawn == value)
    )


def start_params(space: Space) -> list[dict[str, Scalar]]:
    """The starting points as Optuna's parameters, a part under every name it may be drawn by."""
    found = []
    for index, given in enumerate(space.config.search.start_with):
        pins, _ = pins_of(space, given, ("search", "start_with", index))
        found.append(named(space, _with_behavior(space, pins)))
    return found + [named(space, start.pins) for start in starts_from(space)]


def named(space: Space, pins: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Paths as Optuna's parameter names; a place in a range that moves, as a share of it."""
    params: dict[str, Scalar] = {}
    if any(path in space.moved for path in pins):
        drawing, _ = complete(space, pins, random.Random(0))
        draw = drawing.draw if drawing is not None else None
        for path in [path for path in pins if path in space.moved and draw is not None]:
            assert draw is not None
            node = draw.nodes.get(path)
            if isinstance(node, Range):
                params[path + SHARE] = node.share(cast(float, draw.picked[path]))
                pins = {**pins, **{need: draw.picked[need] for need in draw.needs[path]}}
    for path, value in pins.items():
        if path in space.moved:
            continue
        kind = path.removeprefix("model/")
        names = space.fits.aliases(kind, str(value)) if kind in KINDS else [path]
        params.update(dict.fromkeys(names, value))
    return params


def _with_behavior(space: Space, pins: Pins) -> Pins:
    """Settle the behavior where the pinned predictor does not fit every one."""
    path = "model/behavior"
    names = {kind: str(pins[f"model/{kind}"]) for kind in KINDS if f"model/{kind}" in pins}
    if path in pins or "predictor" not in names:
        return pins
    offered = space.fits.offered("behavior", names)
    if len(offered) == len(space.fits.parts["behavior"]):
        return pins
    return {**pins, path: offered[0]}


def pins_of(space: Space, given: Any, at: Keys) -> tuple[Pins, list[Problem]]:
    """The values of a starting point by path, and what is wrong with it."""
    match = matching(space.document, space.model, space.train, given, at)
    pins = {path.removeprefix("/"): value for path, value in match.pins.items()}
    return pins, match.problems


def matching(document: Document, model: Group, train: Group, given: Any, at: Keys) -> Match:
    """A starting point laid beside the trees of a space."""
    presets = model.children.get("preset")
    match = Match(document, presets if isinstance(presets, Choice) else None, given)
    match.node(Group({"model": model, "train": train}, ()), given, "", at)
    return match


class Match:
    """Walks a starting point and the space side by side."""

    def __init__(self, document: Document, presets: Choice | None, given: Any = None) -> None:
        self.document, self.presets = document, presets
        self.pins: Pins = {}
        self.places: list[Keys] = []  # of the problems
        self.problems: list[Problem] = []
        self.given = given  # the whole starting point

    def wrong(self, at: Keys, message: str, hint: str = "") -> None:
        self.places.append(at)
        self.problems.append(Problem(self.document.where(at), message, hint))

    def node(self, node: Node, given: Any, path: str, at: Keys) -> None:
        if isinstance(node, Const):
            if node.value != given:
                self.wrong(at, f"is {given!r}, but the space fixes it to {node.value!r}")
        elif isinstance(node, Range):
            self._range(node, given, path, at)
        elif isinstance(node, Choice):
            self._choice(node, given, path, at)
        elif isinstance(node, Moved):
            self._moved(node, given, path, at)
        elif isinstance(node, Case):
            self._case(node, given, path, at)
        else:
            self._group(node, given, path, at)

    def _range(self, node: Range, given: Any, path: str, at: Keys) -> None:
        if node.contains(given):
            self.pins[path] = given if node.kind == "int" else float(given)
            return
        step = f" in steps of {node.step}" if node.step else ""
        kind = "a whole number" if node.kind == "int" else "a number"
        span = f"{kind} from {text_of(node.low)} to {text_of(node.high)}{step}"
        self.wrong(at, f"is {given!r}, the space has {span}")

    def _moved(self, node: Moved, given: Any, path: str, at: Keys) -> None:
        number = isinstance(given, int | float) and not isinstance(given, bool)
        if not number or (node.kind == "int" and isinstance(given, float)):
            kind = "a whole number" if node.kind == "int" else "a number"
            self.wrong(at, f"is {given!r}, the space has {kind}")
            return
        self.pins[path] = given if node.kind == "int" else float(given)

    def _case(self, node: Case, given: Any, path: str, at: Keys) -> None:
        """The line that holds, as far as the starting point tells, else all that allow it."""
        try:
            line = node.option(node.of.evaluate(self._look))
            lines = [line] if line is not None else []
        except (AbsentError, FormulaError):
            lines = list(node.options)
        tried = []
        for line in lines:
            trial = self._inner()
            trial.node(line.node, given, below(path, line.label), at)
            tried.append(trial)
        fine = [trial for trial in tried if not trial.problems]
        for trial in fine:
            self.pins |= trial.pins
        if tried and not fine:
            self.problems += tried[0].problems
            self.places += tried[0].places

    def _inner(self) -> Match:
        """For an attempt at one of several forms."""
        return Match(self.document, self.presets, self.given)

    def _look(self, path: Path) -> Any:
        """What a starting point says of a setting."""
        spot: Spot | None = Spot("", None, self.given, kind="content")
        for key in canonical(path):
            held = spot.value if spot is not None else None
            spot = Spot("", None, held[key]) if isinstance(held, dict) and key in held else None
        if spot is None:
            raise AbsentError(path)
        return spot.value

    def _choice(self, node: Choice, given: Any, path: str, at: Keys) -> None:
        option = self._option(node, given)
        if option is None:
            name = given.get("name", given) if isinstance(given, dict) else given
            known = [text_of(label) for label in node.labels()]
            close = nearest(name, known)
            hint = f"did you mean '{close}'?" if close else f"options: {', '.join(known)}"
            self.wrong(at, f"'{name}' is no option of the space", hint)
            return
        self.pins[path] = option.label
        if isinstance(given, dict | list) or not isinstance(option.node, Const | Group):
            self.node(option.node, given, below(path, option.label), at)

    def _option(self, node: Choice, given: Any) -> Option | None:
        """The option that is meant: by its name, or the first that all of it fits."""
        if isinstance(given, dict) and "name" in given:
            return next((o for o in node.options if same(o.label, given["name"])), None)
        if isinstance(given, str) and self.presets is node:
            return next((o for o in node.options if o.label == given), None)
        for option in node.options:
            trial = self._inner()
            trial.node(option.node, given, "", ())
            if not trial.problems and same(type(option.node) is Const, not isinstance(given, dict)):
                return option
        return None

    def _group(self, node: Group, given: Any, path: str, at: Keys) -> None:
        if isinstance(given, list) and node.sequence:
            given = dict(enumerate(given))
        if not isinstance(given, dict):
            self.wrong(
                at, f"is {given!r}, the space has the keys {', '.join(map(str, node.children))}"
            )
            return
        for key, value in given.items():
            child = node.children.get(key)
            if child is not None:
                self.node(child, value, f"{path}/{key}", (*at, key))
                continue
            known = [str(name) for name in node.children]
            close = nearest(key, known)
            hint = f"did you mean '{close}'?" if close else f"the space has: {', '.join(known)}"
            self.wrong((*at, key), f"the space has no '{key}' here", hint)
