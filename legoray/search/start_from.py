"""`search.start_from: [naml, nrms]`: presets as the first trials of a space.

The three parts of a preset must be in the space. Of its settings, those that the space searches and
can hold are pinned; what the space fixes stays the space's, and what it cannot hold is drawn. Both
are told in one line each.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from legoray.config import ModelConfig, TrainConfig
from legoray.errors import InputError, Problem, nearest
from legoray.model.presets import Preset, fitting, preset
from legoray.search.cover import complete, valid_share
from legoray.search.fits import part_names
from legoray.search.notation import KINDS
from legoray.search.places import PRESET
from legoray.search.space import Space
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
from legoray.yamlfile import Keys

Pins = dict[str, Scalar]
NARROW = 0.02  # share of valid drawings below which conditions are better said by ranges
_SIZE = {"hidden_size": ModelConfig.model_fields["hidden_size"].default}


@dataclass
class Start:
    """A preset as a starting point: what is pinned, what could not be, and what is wrong."""

    pins: Pins = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def starts_from(space: Space) -> list[Start]:
    """The presets of `search.start_from`, in order."""
    names = space.config.search.start_from
    return [_start(space, name, ("search", "start_from", n)) for n, name in enumerate(names)]


def start_notes(space: Space, generated: Collection[str] = ()) -> list[str]:
    """What of the presets a space cannot hold, and which read text that was not augmented.

    Args:
        space: with presets in it or not.
        generated: the attributes that a language model wrote.
    """
    notes = [note for start in starts_from(space) for note in start.notes]
    notes += [note for note in _reading(space, generated) if note]
    return notes + _narrow(space)


def _narrow(space: Space) -> list[str]:
    """How much of a space its conditions leave."""
    if not space.where:
        return []
    share = valid_share(space)
    if share == 1:
        return []  # as conditions on parts alone, which no drawing breaks
    text = f"{share:.0%}" if share >= 0.01 else "less than 1%"
    note = f"where: {text} of what is drawn at random fulfils the conditions"
    slow = "; so narrow a space is searched slowly, smaller ranges say the same at once"
    return [note + (slow if share < NARROW else "")]


def _reading(space: Space, generated: Collection[str]) -> Iterator[str]:
    from legoray.model.presets import reading_note

    if space.presets is None:
        return
    seen = set()
    for config in space.corners():
        if config.model.preset not in seen:
            seen.add(config.model.preset)
            model = config.model
            yield reading_note(model.preset, model.content, space.text, generated)


def _start(space: Space, name: str, at: Keys) -> Start:
    where = space.document.where(at)
    try:
        known = preset(name, where)
    except InputError as error:
        return Start(problems=error.problems)
    if space.presets is not None:
        return _among_presets(space, space.presets, name, where)
    missing = _missing(space, known, where)
    if missing:
        return Start(problems=missing)
    parts: Pins = {f"model/{kind}": part for kind, part in known.parts().items()}
    hold = _Hold(name, parts)
    for kind in KINDS:
        hold.part(kind, space.model.children[kind], known)
    size = {k: v for k, v in known.model.items() if k not in KINDS}
    hold.settings(space.model, size, "model", _SIZE)
    hold.settings(space.train, known.train, "train", TrainConfig().model_dump())
    return _completed(space, hold, parts, where)


def _completed(space: Space, hold: _Hold, parts: Pins, where: str) -> Start:
    """What was found, without the settings where they do not go together in this space."""
    drawing, refused = complete(space, hold.pins, random.Random(0))
    if drawing is not None:
        return Start(hold.pins, hold.notes)
    reason = "; ".join(dict.fromkeys(p.message for p in refused))
    drawing, _ = complete(space, parts, random.Random(0))
    if drawing is None:
        return Start(problems=[Problem(where, f"'{hold.name}' is not valid here: {reason}")])
    note = f"{hold.name}: only its parts are taken, its settings do not go together here: {reason}"
    return Start(parts, [note])


def _among_presets(space: Space, presets: Choice, name: str, where: str) -> Start:
    labels = [str(label) for label in presets.labels()]
    if name in labels:
        return Start({PRESET: name})
    close = nearest(name, labels)
    hint = f"did you mean '{close}'?" if close else f"it has: {', '.join(labels)}"
    return Start(problems=[Problem(where, f"the space has no preset '{name}'", hint)])


def _missing(space: Space, known: Preset, where: str) -> list[Problem]:
    """The parts of a preset that a space does not have, and what it has instead."""
    offered = {kind: part_names(space.model.children[kind]) for kind in KINDS}
    lacks = {kind: p for kind, p in known.parts().items() if p not in offered[kind]}
    if not lacks:
        return []
    told = " and ".join(f"{kind} '{part}'" for kind, part in lacks.items())
    kind, part = next(iter(lacks.items()))
    others = fitting(offered)
    close = nearest(known.name, others)
    hint = f"add {{name: {part}}} to model.{kind}"
    if others:
        hint += f", or start from {close}" if close else f", or start from {', '.join(others)}"
    option = nearest(part, offered[kind])
    hint += f"; its nearest option is '{option}'" if option else ""
    return [Problem(where, f"'{known.name}' needs {told}, which the space does not have", hint)]


class _Hold:
    """Lays a preset's settings beside the space's tree."""

    def __init__(self, name: str, parts: Pins) -> None:
        self.name = name
        self.pins: Pins = {}
        self.notes: list[str] = []
        self._parts = parts

    def part(self, kind: str, node: Node, known: Preset) -> None:
        """One part: its own settings, and the defaults of those that it leaves out."""
        from legoray.model.registry import parse_part

        path, name = f"model/{kind}", known.parts()[kind]
        given = {k: v for k, v in known.model[kind].items() if k != "name"}
        defaults = parse_part(kind, {"name": name, **given})[1].model_dump()
        if isinstance(node, Choice):
            self.pins[path] = name
            node, path = node.option(name).node, below(path, name)
        if isinstance(node, Const):
            node = Group({"name": node}, node.keys)  # `{name: dot}` and nothing else
        unsaid = {k: v for k, v in defaults.items() if k not in given}
        assert isinstance(node, Group)
        for key, child in node.children.items():
            if key in unsaid:
                self.hold(child, unsaid[key], f"{path}/{key}", quietly=True)
        self.settings(node, given, path, _defaults(kind, name))

    def settings(
        self, node: Group, given: dict[str, Any], path: str, defaults: dict[str, Any]
    ) -> None:
        """Settings that the preset names; `defaults` are those of what the space leaves out."""
        for key, value in given.items():
            child = node.children.get(key)
            if child is not None:
                self.hold(child, value, f"{path}/{key}")
            elif not _alike(defaults.get(key), value):
                here = f"leaves it at {_text(defaults.get(key))}"
                self._note(path, key, value, here)

    def hold(self, node: Node, value: Any, path: str, *, quietly: bool = False) -> None:
        """Pin one setting, or note that the space cannot hold it."""
        held = _held(node, value, path)
        if held is not None:
            self.pins |= held
        elif not quietly:
            above, _, key = path.rpartition("/")
            self._note(above, key, value, f"has {_options(node)}")

    def _note(self, above: str, key: str, value: Any, here: str) -> None:
        kind = above.removeprefix("model/").partition(".")[0].partition("/")[0]
        shown = f"{kind} {key}" if kind in KINDS else key
        text = f"{self.name}: {shown} {_text(value)} is not in the space, which {here}"
        self.notes.append(text)


def _held(node: Node, value: Any, path: str) -> Pins | None:
    """The pins that give a node this value; None where it cannot have it."""
    if isinstance(node, Const):
        return {} if _alike(node.value, value) else None
    if isinstance(node, Range):
        fine = node.contains(value)
        return {path: value if node.kind == "int" else float(value)} if fine else None
    if isinstance(node, Moved):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return {path: value if node.kind == "int" else float(value)} if number else None
    if isinstance(node, Case):  # whichever line holds
        lines = [_held(o.node, value, below(path, o.label)) for o in node.options]
        found = [line for line in lines if line is not None]
        return {k: v for line in found for k, v in line.items()} if found else None
    if isinstance(node, Choice):
        for option in node.options:
            inner = _held(option.node, value, below(path, option.label))
            if inner is not None:
                return {path: option.label, **inner}
        return None
    if not isinstance(value, dict):
        return None
    pins: Pins = {}
    for key, child in node.children.items():
        inner = _held(child, value.get(key), f"{path}/{key}")
        if inner is None:
            return None
        pins |= inner
    return pins


def _defaults(kind: str, name: str) -> dict[str, Any]:
    from legoray.model.registry import part_class

    config: Any = part_class(kind, name).Config
    return dict(config().model_dump())


def _alike(a: Any, b: Any) -> bool:
    """Equality of plain settings; a mapping that leaves out defaults is taken at its word."""
    if isinstance(a, dict) and isinstance(b, dict):
        return all(key in a and _alike(a[key], value) for key, value in b.items())
    return same(a, b)


def _options(node: Node) -> str:
    """What a node may be, for a person."""
    if isinstance(node, Const):
        return _text(node.value)
    if isinstance(node, Range):
        return f"{text_of(node.low)} to {text_of(node.high)}"
    if isinstance(node, Choice):
        return " or ".join(text_of(label) for label in node.labels())
    if isinstance(node, Case):
        lines = dict.fromkeys(_options(option.node) for option in node.options)
        return f"{', or '.join(lines)}, by {node.of.text}"
    return "its own"


def _text(value: Any) -> str:
    """A setting as YAML writes it, short."""
    if value is None or isinstance(value, str | int | float | bool):
        return text_of(value)
    return json.dumps(value)
