"""Where the settings of a space stand, so that formulas may name them, defaults included.

A path such as `content.layers` is looked up in every form that a configuration may take: in each
option of a choice, in each line of a case, in each preset. What the file leaves out has the default
of its part.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast, get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from legoray.config import ModelConfig, TrainConfig
from legoray.errors import InputError, Problem, nearest
from legoray.search.formula import Formula, Path, text_of_path
from legoray.search.tree import (
    Case,
    Choice,
    Const,
    Group,
    Moved,
    Node,
    Range,
    Scalar,
    below,
    same,
    text_of,
)

KINDS = ("content", "behavior", "predictor")
PRESET = "model/preset"
TREES: dict[str, type[BaseModel]] = {"model": ModelConfig, "train": TrainConfig}
MOST_CASES = 64  # values of a whole number that each may have a line of its own


@dataclass(frozen=True)
class Spot:
    """One form of a setting: a node of the tree, or a default value that the file leaves out."""

    path: str
    node: Node | None
    value: Any = None  # the default, where there is no node
    cls: type[BaseModel] | None = None  # of the settings below it
    kind: str = ""  # of the part that it belongs to

    def child(self, key: str | int) -> Spot | None:
        """What stands below it; None where there is nothing."""
        node, cls = self.node, self._class()
        inner = replace(self, path=f"{self.path}/{key}", cls=_class_of(cls, key), value=None)
        if isinstance(node, Group) and key in node.children:
            return replace(inner, node=node.children[key])
        known = node.value if isinstance(node, Const) else self.value if node is None else None
        held = known.model_dump() if isinstance(known, BaseModel) else known
        if isinstance(held, list) and isinstance(key, int):
            return replace(inner, node=None, value=held[key]) if key < len(held) else None
        if isinstance(held, Mapping) and key in held:
            return replace(inner, node=None, value=held[key])
        mapping = isinstance(node, Group) or isinstance(held, Mapping)
        return default_spot(cls, key, inner) if mapping else None

    def options(self) -> list[tuple[Scalar, Spot]]:
        """What a choice or a case may become."""
        if not isinstance(self.node, Choice | Case):
            return []
        return [
            (option.label, replace(self, path=below(self.path, option.label), node=option.node))
            for option in self.node.options
        ]

    def forms(self) -> Iterator[Spot]:
        """It, or all that its choices and cases may become."""
        inner = self.options()
        for _, spot in inner:
            yield from spot.forms()
        if not inner:
            yield self

    def _class(self) -> type[BaseModel] | None:
        """The typed settings of what it is: given from above, or those of a named part."""
        found = self.node.children.get("name") if isinstance(self.node, Group) else None
        name = found.value if isinstance(found, Const) else None
        if self.node is None and isinstance(self.value, Mapping):
            name = self.value.get("name")
        if self.cls is not None or name is None or not self.kind:
            return self.cls
        from legoray.model.registry import part_class

        try:
            return cast(type[BaseModel], part_class(self.kind, str(name)).Config)
        except InputError:
            return None


def default_spot(cls: type[BaseModel] | None, key: str | int, at: Spot) -> Spot | None:
    """A setting that the file leaves out, with its default; None where there is none."""
    field = cls.model_fields.get(str(key)) if cls is not None else None
    value = field.get_default(call_default_factory=True) if field is not None else PydanticUndefined
    return None if value is PydanticUndefined else replace(at, node=None, value=value)


def _class_of(cls: type[BaseModel] | None, key: str | int) -> type[BaseModel] | None:
    """The typed settings below a field: `LoraSettings` of `lora: LoraSettings | None`."""
    field = cls.model_fields.get(str(key)) if cls is not None else None
    found = (field.annotation, *get_args(field.annotation)) if field is not None else ()
    return next((c for c in found if isinstance(c, type) and issubclass(c, BaseModel)), None)


def roots(model: Group, train: Group, preset: Scalar = None) -> dict[str, dict[Any, Spot]]:
    """The settings at the top of both trees, as one preset has them where there are presets."""
    found: dict[str, dict[Any, Spot]] = {"model": {}, "train": {}}
    for tree, group in (("model", model), ("train", train)):
        for key, node in group.children.items():
            found[tree][key] = Spot(f"{tree}/{key}", node, kind=key if key in KINDS else "")
    choice = model.children.get("preset")
    if isinstance(choice, Choice) and preset is not None:
        path, own = below(PRESET, preset), cast(Group, choice.option(preset).node)
        for key, node in own.children.items():
            if key not in ("name", "train"):
                spot = Spot(f"{path}/{key}", node, kind=key if key in KINDS else "")
                found["model"][key] = spot
        mine = own.children.get("train")
        for key, node in mine.children.items() if isinstance(mine, Group) else ():
            found["train"][key] = Spot(f"{path}/train/{key}", node)
    return found


def top_spot(found: dict[str, dict[Any, Spot]], tree: str, key: str | int) -> Spot | None:
    """A setting at the top of a tree, or its default."""
    given = found[tree].get(key)
    return given or default_spot(TREES[tree], key, Spot(f"{tree}/{key}", None))


def canonical(path: Path) -> Path:
    """`content.split` as `model.content.split`; what starts with no known word stays as it is."""
    first = path[0]
    if first in TREES:
        return path
    owner = next((tree for tree, cls in TREES.items() if first in cls.model_fields), None)
    return path if owner is None else (owner, *path)


class Places:
    """Every setting of a space, by its path."""

    def __init__(self, model: Group, train: Group) -> None:
        choice = model.children.get("preset")
        labels = choice.labels() if isinstance(choice, Choice) else (None,)
        self._roots = [roots(model, train, label) for label in labels]

    def find(self, path: Path) -> tuple[list[Spot], bool]:
        """All forms of a setting, and whether some configurations lack it."""
        path = canonical(path)
        if len(path) < 2 or path[0] not in TREES:
            return [], True
        tops = [top_spot(found, str(path[0]), path[1]) for found in self._roots]
        spots = [spot for spot in tops if spot is not None]
        lacking = len(spots) < len(tops)
        for key in path[2:]:
            inner = [form.child(key) for spot in spots for form in spot.forms()]
            spots = [spot for spot in inner if spot is not None]
            lacking = lacking or len(spots) < len(inner)
        return [form for spot in spots for form in spot.forms()], lacking

    def names(self) -> list[str]:
        """The paths of all settings, in the short form that formulas use."""
        found: dict[str, None] = {}
        for tops in self._roots:
            for tree, cls in TREES.items():
                for key in [*tops[tree], *cls.model_fields]:
                    spot = top_spot(tops, tree, key)
                    for path in _names_below(spot, (key,)) if spot is not None else ():
                        found[text_of_path(path)] = None
        return list(found)


def _names_below(spot: Spot, path: Path, depth: int = 0) -> Iterator[Path]:
    """The paths of a setting and of all below it."""
    yield path
    for form in spot.forms() if depth < 4 else ():
        keys: list[Any] = list(form.node.children) if isinstance(form.node, Group) else []
        cls = form._class()
        keys += list(cls.model_fields) if cls is not None else []
        for key in dict.fromkeys(keys):
            inner = form.child(key)
            if inner is not None:
                yield from _names_below(inner, (*path, key), depth + 1)


@dataclass(frozen=True)
class Values:
    """What a setting may be: plain values, ranges, and whether it may be absent or anything."""

    plain: tuple[Any, ...]
    ranges: tuple[Range, ...]
    absent: bool
    open: bool  # what it may be cannot be listed

    def may_be(self, value: object) -> bool:
        return (
            self.open
            or any(same(value, known) for known in self.plain)
            or any(found.contains(value) for found in self.ranges)
        )


def values_of(places: Places, path: Path) -> Values:
    """What a setting may be in the configurations of a space."""
    spots, absent = places.find(path)
    known: list[Any] = []
    ranges: list[Range] = []
    open_ended = False
    for spot in spots:
        if isinstance(spot.node, Moved):
            open_ended = True
        elif isinstance(spot.node, Range):
            count = spot.node.count()
            ranges.append(spot.node)
            open_ended = open_ended or count is None or count > MOST_CASES
            known += [spot.node.value(n) for n in range(count)] if not open_ended and count else []
        else:
            known.append(_plain_of(spot))
    distinct = {repr(value): value for value in known}
    return Values(tuple(distinct.values()), tuple(ranges), absent, open_ended)


def _plain_of(spot: Spot) -> Any:
    """A constant's value; a part or a mapping with a name is its name."""
    node = spot.node
    if isinstance(node, Group):
        name = node.children.get("name")
        return name.value if isinstance(name, Const) else {}
    return node.value if isinstance(node, Const) else spot.value


def overlaps(path: Path, broken: Collection[Path]) -> bool:
    """Whether a setting is, holds, or lies below one of those that could not be read."""
    path = canonical(path) if path else path
    return any(path[: len(one)] == one[: len(path)] for one in broken)


def unknown_paths(
    places: Places, formula: Formula, where: str, broken: Collection[Path] = ()
) -> list[Problem]:
    """The settings that a formula names and no configuration of the space has.

    Args:
        places: of the space.
        formula: see there.
        where: it stands.
        broken: settings that could not be read, of which nothing more is said.
    """
    problems = []
    for path, at in formula.paths:
        if places.find(path)[0] or overlaps(path, broken):
            continue
        name, known = text_of_path(path), places.names()
        close = nearest(name, known) or nearest(name, [k for k in known if k.endswith(name)])
        last = [k for k in known if k.rpartition(".")[2] == str(path[-1])]
        close = close if close in last or not last else last[0]
        hint = f"did you mean '{close}'?" if close else "such as content.name or train.batch_size"
        message = f"'{formula.text}', character {at}: there is no setting '{name}' in this space"
        problems.append(Problem(where, message, hint))
    return problems


def case_problems(places: Places, case: Case, where: str) -> list[Problem]:
    """Lines of a case that never hold, and values that have no line."""
    path, own = case.of.path, case.options[:-1] if case.other else case.options
    labels = [option.label for option in own]
    if path is None:
        both = case.of.is_condition and {repr(la) for la in labels} == {"True", "False"}
        hint = "add `else: ...`"
        return [] if case.other or both else [Problem(where, "has no line for the rest", hint)]
    values = values_of(places, path)
    name, problems = case.of.text, []
    for label in labels:
        if not values.may_be(label):
            known = [text_of(v) for v in values.plain if v is None or isinstance(v, Scalar)]
            close = nearest(text_of(label), known)
            hint = f"did you mean '{close}'?" if close else f"it is {' or '.join(known)}"
            problems.append(Problem(where, f"{name} is never '{text_of(label)}' here", hint))
    if case.other or problems:
        return problems
    left = [v for v in values.plain if not any(same(v, label) for label in labels)]
    told = ", ".join(text_of(v) if not isinstance(v, dict | list) else "a mapping" for v in left)
    told = told or ("some of its values" if values.open else "")
    if values.absent and not told:
        told = f"configurations without {name}"
    return [Problem(where, f"has no line for {told}", "add it, or `else: ...`")] if told else []
