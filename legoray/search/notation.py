"""Reads the notation of `legoray.search.tree` out of a YAML document, collecting every mistake."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from legoray.errors import Problem, nearest
from legoray.search.formula import Formula, FormulaError, read_formula
from legoray.search.tree import (
    ELSE,
    Case,
    Choice,
    Const,
    Group,
    Moved,
    Node,
    Option,
    Range,
    fits,
    name_of,
    same,
    sort_key,
    text_of,
)
from legoray.search.walk import searched
from legoray.yamlfile import Document, Keys, dotted, scalar

WORDS = ("choice", "int", "float", "log", "case")
KINDS = ("content", "behavior", "predictor")
OTHER_NAMES = {
    "choice": ("choices", "options", "values", "categorical", "grid", "grid_search"),
    "int": ("randint", "integer", "range", "quniform"),
    "float": ("uniform", "double", "floats"),
    "log": ("loguniform", "log_uniform", "logfloat"),
}
CASE_NAMES = ("switch", "match", "when", "depends_on", "by")


def is_search(data: object) -> bool:
    """Whether a YAML value is one of the searched forms, well formed or not."""
    return isinstance(data, Mapping) and any(word in data for word in WORDS)


def meant(data: object) -> tuple[str, str] | None:
    """`(written, word)` where a mapping looks like a misspelt searched form."""
    if not isinstance(data, Mapping) or is_search(data) or "name" in data:
        return None
    for key, value in data.items():
        if str(key) in CASE_NAMES and isinstance(value, str) and len(data) > 1:
            return str(key), "case"
        if not isinstance(value, list):
            continue
        for word, names in OTHER_NAMES.items():
            if str(key) in names:
                return str(key), word
        close = nearest(key, WORDS) if len(data) == 1 and len(str(key)) > 3 else None
        if close:
            return str(key), close
    return None


def settings_of(keys: Keys) -> Keys:
    """Where a place in the file is, without the notation: `model.content.kernel_size`."""
    return tuple(key for key in keys if isinstance(key, str) and key not in WORDS)


class Reader:
    """Turns YAML values into nodes; what cannot be read is noted in `problems` and left out."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []
        self.broken: list[Keys] = []  # where they are

    def wrong(self, keys: Keys, message: str, hint: str = "") -> None:
        self.broken.append(keys)
        self.problems.append(Problem(self.document.where(keys), message, hint))

    def node(self, data: Any, keys: Keys) -> Node | None:
        """The node of a YAML value, or None where it is broken."""
        if is_search(data):
            return self._searched(data, keys)
        typo = meant(data)
        if typo:
            self.wrong(keys, f"there is no '{typo[0]}' in the notation", f"use '{typo[1]}'")
            return None
        if isinstance(data, dict):
            return self.group(data, keys)
        if isinstance(data, list):
            return self._sequence(data, keys)
        if isinstance(data, float) and not math.isfinite(data):
            self.wrong(keys, f"is {data}, a finite number was expected")
            return None
        return Const(data, keys)

    def group(self, data: dict[Any, Any], keys: Keys) -> Group:
        """A mapping's node, without the children that are broken."""
        found = {key: self.node(value, (*keys, key)) for key, value in data.items()}
        return Group({key: child for key, child in found.items() if child is not None}, keys)

    def part(self, data: Any, keys: Keys) -> Node | None:
        """A part of the model: a mapping with `name`, or a choice among such."""
        if isinstance(data, dict) and is_search(data.get("name")):
            return self._named_by_choice(data, keys)
        if isinstance(data, dict) and "choice" in data and isinstance(data["choice"], list):
            good = [self._is_part(o, (*keys, "choice", i)) for i, o in enumerate(data["choice"])]
            return self._searched(data, keys) if all(good) else None
        if isinstance(data, dict) and "case" in data:
            hint = "write {choice: [...]}, and say in `where` what does not go together"
            self.wrong(keys, "a part does not depend on other values", hint)
            return None
        if is_search(data) or meant(data):
            node = self.node(data, keys)
            if node is not None:
                self.wrong(keys, f"is {data!r}: a part is chosen by name, not by number")
            return None
        return self.node(data, keys) if self._is_part(data, keys) else None

    def _is_part(self, data: Any, keys: Keys) -> bool:
        """Note what is no part at all."""
        if isinstance(data, dict) and (is_search(data) or isinstance(data.get("name"), str)):
            return True
        if isinstance(data, dict) and "name" in data:
            message = f"is {data['name']!r}: a part's name was expected"
            self.wrong((*keys, "name"), message, f"such as {_example(keys)}")
        elif isinstance(data, dict):
            self.wrong(keys, "the key 'name' is missing", f"such as {{name: {_example(keys)}}}")
        else:
            named = data if isinstance(data, str) else _example(keys)
            message = f"is {data!r}: a mapping with 'name' was expected"
            self.wrong(keys, message, f"write {{name: {named}}}")
        return False

    def _named_by_choice(self, data: dict[Any, Any], keys: Keys) -> Node | None:
        """`{name: {choice: [a, b]}, x: 1}`: each named part with the same settings."""
        at = (*keys, "name")
        names = data["name"].get("choice")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            self.wrong(at, f"is {data['name']!r}: {{choice: [names of parts]}} was expected")
            return None
        choice = self._searched(data["name"], at)
        if not isinstance(choice, Choice):
            return None
        rest = self.group({key: value for key, value in data.items() if key != "name"}, keys)
        options = [
            Option(o.label, Group({"name": o.node, **rest.children}, keys)) for o in choice.options
        ]
        return Choice(tuple(options), at)

    def _sequence(self, data: list[Any], keys: Keys) -> Node | None:
        found = [self.node(value, (*keys, index)) for index, value in enumerate(data)]
        nodes = {index: node for index, node in enumerate(found) if node is not None}
        if len(nodes) < len(found):
            return None
        if any(searched(node) for node in nodes.values()):
            return Group({**nodes}, keys, sequence=True)
        return Const(data, keys)

    def _searched(self, data: dict[Any, Any], keys: Keys) -> Node | None:
        """A choice, a range or a case."""
        if "case" in data:
            return self._case(data, keys)
        heads = [word for word in WORDS if word in data]
        if isinstance(data.get("log"), bool) or ("log" in heads and len(heads) > 1):
            heads.remove("log")  # here it is a flag
        if not heads:
            self.wrong(keys, "'log: true' needs a range", "such as {log: [1e-4, 1e-2]}")
            return None
        if len(heads) > 1:
            self.wrong(keys, f"mixes {' and '.join(map(repr, heads))}", "use one of them")
            return None
        head = heads[0]
        allowed = {"int": ("int", "step", "log"), "float": ("float", "step", "log")}
        extra = [key for key in data if key not in allowed.get(head, (head,))]
        for key in extra:
            options = allowed.get(head, (head,))
            close = nearest(key, options)
            hint = f"did you mean '{close}'?" if close else f"beside it: {', '.join(options[1:])}"
            alone = f"'{head}' stands alone in its braces"
            self.wrong(keys, f"has '{key}' beside '{head}'", hint if options[1:] else alone)
        if extra:
            return None
        return self._choice(data[head], keys) if head == "choice" else self._range(head, data, keys)

    def formula(self, text: str, keys: Keys) -> Formula | None:
        """A formula, or None where it is none."""
        try:
            return read_formula(text)
        except FormulaError as error:
            self.wrong(keys, f"'{text}', character {error.at}: {error}")
            return None

    def _case(self, data: dict[Any, Any], keys: Keys) -> Case | None:
        at, of = (*keys, "case"), data["case"]
        lines = {str(key): value for key, value in data.items() if key != "case"}
        if not isinstance(of, str) or not of:
            self.wrong(at, f"is {of!r}: the path of a value was expected", "such as content.name")
            return None
        if not lines:
            hint = "such as {case: content, cnn: 1, else: 2}"
            self.wrong(keys, "has no line beside 'case'", hint)
            return None
        if re.fullmatch(r"[A-Za-z_]\w*(/[A-Za-z_]\w*)+", of):
            of = of.replace("/", ".")  # as the sampler's own names are written
        formula = self.formula(of, at)
        found = {key: self.node(value, (*keys, key)) for key, value in lines.items()}
        if formula is None or any(node is None for node in found.values()):
            return None
        options = [
            Option(scalar(key) if key != ELSE else ELSE, node)
            for key, node in found.items()
            if node is not None
        ]
        own = self._distinct([option for option in options if option.label != ELSE])
        other = [option for option in options if option.label == ELSE]
        return Case(formula, (*sorted(own, key=sort_key), *other), keys, bool(other))

    def _choice(self, options: Any, keys: Keys) -> Choice | None:
        at = (*keys, "choice")
        if not isinstance(options, list) or not options:
            what = "is empty" if options == [] else f"is {options!r}"
            self.wrong(at, f"{what}: a list of options was expected", "such as [a, b]")
            return None
        found = [self._option(value, (*at, index)) for index, value in enumerate(options)]
        nodes = [node for node in found if node is not None]
        labels = [name_of(node) for node in nodes]
        if len(set(map(repr, labels))) < len(labels):
            labels = [name_of(node, full=True) for node in nodes]
        kept = self._distinct([Option(la, node) for la, node in zip(labels, nodes, strict=True)])
        return Choice(tuple(sorted(kept, key=sort_key)), keys) if kept else None

    def _option(self, value: Any, keys: Keys) -> Node | None:
        if isinstance(value, dict) and "choice" in value:
            self.wrong(
                keys, "is a choice directly inside a choice", "list its options in the outer"
            )
            return None
        return self.node(value, keys)

    def _distinct(self, options: list[Option]) -> list[Option]:
        """The options without those that cannot be told from an earlier one."""
        kept: list[Option] = []
        for option in options:
            first = next((o for o in kept if o.label == option.label), None)
            if first is None:
                kept.append(option)
                continue
            hint = f"first at {dotted(first.node.keys)}"
            if isinstance(option.node, Group) and not same(first.node, option.node):
                hint += "; join the two, with a choice inside"
            self.wrong(option.node.keys, f"the option '{text_of(option.label)}' stands twice", hint)
        return kept

    def _range(self, head: str, data: dict[Any, Any], keys: Keys) -> Range | Moved | None:
        bounds, log = data[head], head == "log" or data.get("log", False)
        at = (*keys, head)
        if (
            isinstance(bounds, list)
            and len(bounds) == 2
            and any(isinstance(b, str) for b in bounds)
        ):
            return self._moved(head, data, keys)
        if not isinstance(bounds, list) or len(bounds) != 2:
            self.wrong(at, f"is {bounds!r}: two numbers [lo, hi] were expected")
            return None
        if not isinstance(log, bool):
            self.wrong((*keys, "log"), f"is {log!r}: true or false was expected")
            return None
        integer = head == "int"
        if not all(_number(value, integer) for value in bounds):
            kind = "whole numbers" if integer else "numbers"
            self.wrong(at, f"is {bounds!r}: two {kind} were expected")
            return None
        low, high = bounds if integer else map(float, bounds)
        step = data.get("step")
        trouble = _trouble(low, high, step, log, integer)
        if trouble:
            self.wrong(at if "step" not in trouble[0] else (*keys, "step"), *trouble)
            return None
        if step is not None and not integer:
            step = float(step)
        return Range("int" if integer else "float", low, high, keys, step, log)

    def _moved(self, head: str, data: dict[Any, Any], keys: Keys) -> Moved | None:
        """A range with a formula as an end."""
        at, integer = (*keys, head), head == "int"
        log, step = head == "log" or data.get("log", False), data.get("step")
        ends: list[Any] = []
        for index, end in enumerate(data[head]):
            if isinstance(end, str):
                ends.append(self.formula(end, (*at, index)))
            elif _number(end, integer):
                ends.append(end if integer else float(end))
            else:
                kind = "a whole number" if integer else "a number"
                self.wrong((*at, index), f"is {end!r}: {kind} or a formula was expected")
                ends.append(None)
        known = [end for end in ends if isinstance(end, int | float)]
        trouble = _trouble(0, step or 0, step, log, integer) if step is not None else None
        if known and log and ends[0] == known[0] and known[0] <= 0:
            trouble = _trouble(known[0], known[0], None, log, integer)
        if not isinstance(log, bool):
            trouble = f"is {log!r}: true or false was expected", ""
        if trouble:
            self.wrong((*keys, "step") if "step" in trouble[0] else at, *trouble)
        if trouble or None in ends:
            return None
        step = float(step) if step is not None and not integer else step
        return Moved("int" if integer else "float", ends[0], ends[1], keys, step, log)


def _trouble(
    low: float, high: float, step: Any, log: bool, integer: bool
) -> tuple[str, str] | None:
    """What is wrong with a range, and what to do about it."""
    if low > high:
        return f"is [{low}, {high}]: the first number is the larger one", f"[{high}, {low}]?"
    if log and low <= 0:
        return f"starts at {low}: a logarithmic range must be above 0", "raise its first number"
    if step is None:
        return None
    if not _number(step, integer) or step <= 0:
        return f"is {step!r}: a step above 0 was expected", "whole for int" if integer else ""
    if log:
        return "a logarithmic range has no step", "leave out 'step' or 'log'"
    if not fits(high - low, step):
        last = low + math.floor((high - low) / step) * step
        return f"the step {step} does not lead from {low} to {high}", f"{last:g} would fit"
    return None


def _number(value: object, integer: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int if integer else int | float):
        return False
    return math.isfinite(value)


def _example(keys: Keys) -> str:
    kind = next((key for key in reversed(keys) if key in KINDS), "content")
    return {"content": "cnn", "behavior": "attention"}.get(str(kind), "dot")
