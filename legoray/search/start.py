"""`search.start_with`: settings to try first, given in the space's own structure.

    start_with:
      - model: {content: {name: cnn}, behavior: {name: additive}}
        train: {learning_rate: 1e-3}

What a starting point leaves open is drawn by the sampler. A predictor that fits only some behavior
operators settles the behavior too: the first one that it fits, unless the starting point names one.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from legoray.errors import Problem, nearest
from legoray.search.cover import complete
from legoray.search.notation import KINDS
from legoray.search.space import Space
from legoray.search.start_from import starts_from
from legoray.search.tree import (
    Choice,
    Const,
    Group,
    Node,
    Option,
    Range,
    Scalar,
    below,
    same,
    text_of,
)
from legoray.yamlfile import Keys

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
        problems += found
    return problems + [problem for start in starts_from(space) for problem in start.problems]


def start_params(space: Space) -> list[dict[str, Scalar]]:
    """The starting points as Optuna's parameters, a part under every name it may be drawn by."""
    found = []
    for index, given in enumerate(space.config.search.start_with):
        pins, _ = pins_of(space, given, ("search", "start_with", index))
        found.append(named(space, _with_behavior(space, pins)))
    return found + [named(space, start.pins) for start in starts_from(space)]


def named(space: Space, pins: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Paths as Optuna's parameter names."""
    params: dict[str, Scalar] = {}
    for path, value in pins.items():
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
    match = _Match(space)
    trees = Group({**space.trees()}, ())
    match.node(trees, given, "", at)
    pins = {path.removeprefix("/"): value for path, value in match.pins.items()}
    return pins, match.problems


class _Match:
    """Walks a starting point and the space side by side."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.pins: Pins = {}
        self.problems: list[Problem] = []

    def wrong(self, at: Keys, message: str, hint: str = "") -> None:
        self.problems.append(Problem(self.space.document.where(at), message, hint))

    def node(self, node: Node, given: Any, path: str, at: Keys) -> None:
        if isinstance(node, Const):
            if node.value != given:
                self.wrong(at, f"is {given!r}, but the space fixes it to {node.value!r}")
        elif isinstance(node, Range):
            self._range(node, given, path, at)
        elif isinstance(node, Choice):
            self._choice(node, given, path, at)
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
        if isinstance(given, str) and self.space.presets is node:
            return next((o for o in node.options if o.label == given), None)
        for option in node.options:
            trial = _Match(self.space)
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
