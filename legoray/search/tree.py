"""The tree of a search space: constants, choices and ranges, as they stand in the YAML.

    {choice: [a, b, {name: c, ...}]}     one of several; a mapping opens its own parameters
    {int: [lo, hi], step: s, log: true}  a whole number, both ends included
    {float: [lo, hi], step: s}           a number, uniform
    {log: [lo, hi]}                      a number, uniform in its logarithm
    {int: [1, "content.layers"]}         an end may be a formula over other values
    {case: content, cnn: 1e-3, llm: {log: [lo, hi]}, else: ...}
                                         what another value decides: the line of the case that is
                                         drawn, which may be anything of this table

Everything else is a constant. `where: [behavior.heads divides hidden_size]`, beside `model`, lists
what every configuration must fulfil; formulas are those of `legoray.search.formula`.

A searched value is named by its path, `model/content.cnn/kernel`: `/` goes into a key, `.` into the
chosen option of a choice or the case that holds. An option that is a mapping is called by its
`name` (else by its keys), never by its position, so that reordering renames nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from legoray.errors import InputError, Problem
from legoray.search.formula import Formula
from legoray.yamlfile import Document, Keys

ELSE = "else"  # the case of whatever has no line of its own
END = "@end"  # of a path: the end of a range that another value moves
Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Const:
    """A value that is not searched."""

    value: object
    keys: Keys


@dataclass(frozen=True)
class Range:
    """A number between two ends, both included."""

    kind: Literal["int", "float"]
    low: int | float
    high: int | float
    keys: Keys
    step: int | float | None = None
    log: bool = False
    moved: bool = False  # whether other values said its ends: they differ from draw to draw

    def count(self) -> int | None:
        """How many values it has; None where it is continuous."""
        if self.low == self.high:
            return 1
        if self.kind == "int":
            return int((self.high - self.low) // (self.step or 1)) + 1
        return None if self.step is None else round((self.high - self.low) / self.step) + 1

    def value(self, index: int) -> int | float:
        """Its `index`-th value, from the low end."""
        return min(self.low + index * (self.step or 1), self.high)

    def probes(self) -> list[int | float]:
        """Values that stand for all: every one of a short int range, else the ends and a middle."""
        count = self.count()
        if self.kind == "int" and count is not None and count <= 64:
            return [self.value(index) for index in range(count)]
        return sorted({self.low, self.high})

    def contains(self, value: object) -> bool:
        """Whether a value may be drawn."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if (self.kind == "int" and isinstance(value, float)) or not self.low <= value <= self.high:
            return False
        return self.step is None or fits(value - self.low, self.step)

    def at(self, share: float) -> int | float:
        """The value at a share of the way from the low end (0) to the high one (1)."""
        count = self.count()
        if self.log and self.low < self.high:
            wide = self.kind == "int"
            low, high = math.log(self.low - 0.5 * wide), math.log(self.high + 0.5 * wide)
            found = math.exp(low + share * (high - low))
            return min(max(round(found) if wide else found, self.low), self.high)
        if count is not None:
            return self.value(min(int(share * count), count - 1))
        return min(self.low + share * (self.high - self.low), self.high)

    def share(self, value: float) -> float:
        """A share at which a value lies: `at` of it is the value again."""
        count = self.count()
        if self.log and self.low < self.high:
            wide = self.kind == "int"
            low, high = math.log(self.low - 0.5 * wide), math.log(self.high + 0.5 * wide)
            return (math.log(value) - low) / (high - low)
        if count is not None:
            return (round((value - self.low) / (self.step or 1)) + 0.5) / count
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Moved:
    """A range with an end that other values say; `Space.draw` makes a `Range` of it."""

    kind: Literal["int", "float"]
    low: int | float | Formula
    high: int | float | Formula
    keys: Keys
    step: int | float | None = None
    log: bool = False

    def between(self, low: float, high: float, where: str) -> Range:
        """The range that its ends make.

        Raises:
            InputError: they make none.
        """
        if self.kind == "int":
            low, high = math.ceil(low), math.floor(high)
        else:
            low, high = float(low), float(high)
        if low > high or (self.log and low <= 0):
            message = f"there is no value from {text_of(low)} to {text_of(high)}"
            raise InputError(Problem(where, message))
        if self.step is not None:  # the last step that fits
            high = low + math.floor((high - low) / self.step + 1e-9) * self.step
        return Range(self.kind, low, high, self.keys, self.step, self.log, moved=True)

    def sketch(self) -> Range | None:
        """A range with the ends that are numbers, for what does not depend on the others."""
        known = [end for end in (self.low, self.high) if not isinstance(end, Formula)]
        return Range(self.kind, known[0], known[-1], self.keys) if known else None

    def formulas(self) -> list[Formula]:
        return [end for end in (self.low, self.high) if isinstance(end, Formula)]


@dataclass(frozen=True)
class Case:
    """What another value decides: one node for each of its values."""

    of: Formula
    options: tuple[Option, ...]  # the label of the last one may be ELSE
    keys: Keys
    other: bool = False  # whether it is

    def option(self, value: object) -> Option | None:
        """The line of a value; None where there is none."""
        own = self.options[:-1] if self.other else self.options
        found = next((o for o in own if same(o.label, value)), None)
        return found or (self.options[-1] if self.other else None)


@dataclass(frozen=True)
class Option:
    """One option of a choice; its label is the scalar itself or the name of a mapping."""

    label: Scalar
    node: Node


@dataclass(frozen=True)
class Choice:
    """One of several options, in an order that does not depend on the file's."""

    options: tuple[Option, ...]
    keys: Keys
    suffix: str = ""  # tells a choice narrowed to some of its options apart

    def labels(self) -> tuple[Scalar, ...]:
        return tuple(option.label for option in self.options)

    def option(self, label: Scalar) -> Option:
        return next(o for o in self.options if same(o.label, label))

    def only(self, labels: tuple[Scalar, ...], suffix: str) -> Choice:
        """The same choice with some of its options left out."""
        kept = tuple(o for o in self.options if any(same(o.label, label) for label in labels))
        return Choice(kept, self.keys, suffix if len(kept) < len(self.options) else "")


@dataclass(frozen=True)
class Group:
    """A mapping (or, with `sequence`, a list) with something searched below it, or none."""

    children: dict[Any, Node]  # by key; by position in a list
    keys: Keys
    sequence: bool = False


Node = Const | Range | Moved | Choice | Case | Group
Pick = Callable[[str, Choice | Range], Scalar]
Settle = Callable[[str, Case | Moved], Option | Range]


def resolve(
    node: Node,
    path: str,
    pick: Pick,
    origin: dict[Keys, Keys],
    at: Keys = (),
    settle: Settle | None = None,
) -> object:
    """The plain value of a tree, with `pick(path, node)` deciding what is searched.

    `origin` is filled with where each part of the result stands in the file. `settle(path, node)`
    says what becomes of a node that depends on other values.
    """
    origin[at] = node.keys
    if isinstance(node, Case | Moved):
        if settle is None:
            raise TypeError(f"{path} depends on other values")
        found = settle(path, node)
        if isinstance(found, Option):
            return resolve(found.node, below(path, found.label), pick, origin, at, settle)
        node = found
    if isinstance(node, Const):
        return node.value
    if isinstance(node, Range):
        return pick(path, node)
    if isinstance(node, Choice):
        label = pick(path, node)
        return resolve(node.option(label).node, below(path, label), pick, origin, at, settle)
    values = {
        key: resolve(child, f"{path}/{key}", pick, origin, (*at, key), settle)
        for key, child in node.children.items()
    }
    return list(values.values()) if node.sequence else values


def below(path: str, label: Scalar) -> str:
    """The path of what an option of the choice at `path` holds."""
    return f"{path}.{text_of(label)}"


def text_of(value: Scalar) -> str:
    """A scalar as YAML writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def same(a: object, b: object) -> bool:
    """Equality that tells `1` from `true`."""
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def fits(distance: float, step: float) -> bool:
    """Whether a distance is a whole number of steps."""
    steps = distance / step
    return abs(steps - round(steps)) <= 1e-9 * max(1.0, abs(steps))


def sort_key(option: Option) -> tuple[int, float, str]:
    """Numbers first by value, then words; independent of the order in the file."""
    label = option.label
    if isinstance(label, int | float) and not isinstance(label, bool):
        return (0, float(label), "")
    return (1, 0.0, text_of(label))


def name_of(node: Node, full: bool = False) -> Scalar:
    """What an option is called: a scalar by itself, a mapping by its name or else its keys."""
    if isinstance(node, Const) and (node.value is None or isinstance(node.value, Scalar)):
        return cast(Scalar, node.value)
    if isinstance(node, Range | Moved):
        low, high = (e.text if isinstance(e, Formula) else e for e in (node.low, node.high))
        return _plain(f"{'log' if node.log else node.kind}-{low}-{high}")
    if isinstance(node, Case):
        return _plain(f"case-{node.of.text}")
    if isinstance(node, Group) and not node.sequence:
        name = node.children.get("name")
        if isinstance(name, Const) and isinstance(name.value, str):
            return name.value
        return "-".join(_key_text(key, child, full) for key, child in sorted_items(node)) or "empty"
    return _plain(str(_sketch(node)))


def sorted_items(node: Group) -> list[tuple[Any, Node]]:
    """A group's children in the order of their keys."""
    return sorted(node.children.items(), key=lambda pair: str(pair[0]))


def _key_text(key: str | int, child: Node, full: bool) -> str:
    constant = full and isinstance(child, Const)
    return _plain(f"{key}-{cast(Const, child).value}") if constant else str(key)


def _sketch(node: Node) -> object:
    if isinstance(node, Const):
        return node.value
    if isinstance(node, Group):
        return [_sketch(child) for child in node.children.values()]
    return "searched"


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.+]+", "-", text).strip("-") or "empty"


@dataclass(frozen=True)
class Resolved(Document):
    """A drawn configuration that knows where each of its values stands in the space's file."""

    origin: dict[Keys, Keys] = field(default_factory=dict)

    def where(self, keys: Keys) -> str:
        """The place in the space's file of a path of the drawn configuration."""
        known = keys
        while known and known not in self.origin:
            known = known[:-1]
        base = self.origin.get(known)
        return super().where(keys if base is None else (*base, *keys[len(known) :]))
