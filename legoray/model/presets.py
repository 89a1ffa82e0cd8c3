"""Named models of the literature: small YAML files that give a composition, settings, training.

    # legoray/presets/naml.yaml
    title: NAML
    paper: ...
    model: {hidden_size: 64, content: {name: cnn, ...}, behavior: {...}, predictor: {...}}
    train: {task: matching, negatives: 4}

What a preset leaves out has the default of its part. With `base: naml` a preset is another one with
some settings changed.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

import legoray
from legoray.config import Positive, Strict, build
from legoray.errors import InputError, unknown
from legoray.yamlfile import read_yaml

FOLDER = Path(legoray.__file__).parent / "presets"
KINDS = ("content", "behavior", "predictor")
AUGMENTED = "augmented"  # stands in the name of an attribute that a language model wrote


class Preset(Strict):
    """One named model."""

    name: str
    title: str
    paper: str
    row: Positive | None = Field(None, description="of Table 2 of Legommenders (WWW 2025)")
    augmented: bool = Field(False, description="meant for text that a language model wrote")
    note: str = Field("", description="what a reader of its numbers has to know")
    model: dict[str, Any]
    train: dict[str, Any] = Field(default_factory=dict)

    def parts(self) -> dict[str, str]:
        """The names of its three parts."""
        return {kind: str(self.model[kind]["name"]) for kind in KINDS}

    def composition(self) -> str:
        """Its parts, such as `cnn+additive+dot`."""
        return "+".join(self.parts().values())


@functools.cache
def names() -> tuple[str, ...]:
    """All presets: the rows of the paper's Table 2 in its order, then the others by name."""
    found = {path.stem: preset(path.stem).row for path in FOLDER.glob("*.yaml")}
    return tuple(sorted(found, key=lambda name: (found[name] or 1000, name)))


@functools.cache
def _known() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


@functools.cache
def preset(name: str, where: str = "") -> Preset:
    """A preset by its name; nobody may change what it holds.

    Raises:
        InputError: there is none; the hint has the nearest name.
    """
    if name not in _known():
        raise InputError(unknown("preset", name, _known(), where))
    document = read_yaml(FOLDER / f"{name}.yaml")
    data = {"name": name, **document.data}
    base = data.pop("base", None)
    if base is not None:
        data = merged(preset(base).model_dump(exclude={"row", "augmented", "note"}), data)
    return build(Preset, data, document)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with others laid over them; another part brings none of the old one's settings."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        if isinstance(value, Mapping):
            old = old if isinstance(old, Mapping) else {}
            other = value.get("name", old.get("name")) != old.get("name")
            result[key] = merged({} if other else old, value)
        else:
            result[key] = value
    return result


def fitting(parts: Mapping[str, Iterable[str]]) -> list[str]:
    """The presets whose parts are all among these, by kind."""
    known = {kind: set(parts[kind]) for kind in KINDS}
    return [name for name in names() if all(p in known[k] for k, p in preset(name).parts().items())]


def attributes_read(content: Mapping[str, Any], text: tuple[str, ...]) -> tuple[str, ...]:
    """The attributes that a content operator reads; empty for identifiers and files of vectors."""
    from legoray.model.reads import names_in
    from legoray.model.registry import parse_part

    cls, settings = parse_part("content", dict(content))
    return tuple(names_in(cls.recipe(settings, text)))


def reading_note(
    name: str, content: Mapping[str, Any], text: tuple[str, ...], generated: Collection[str] = ()
) -> str:
    """What to say where a preset for augmented text reads text as it was; else nothing.

    Args:
        name: of the preset.
        content: the content operator's settings.
        text: the attributes that are read by default.
        generated: those that a language model wrote, whatever they are called.
    """
    if not preset(name).augmented:
        return ""
    read = attributes_read(content, text)
    if any(AUGMENTED in attribute or attribute in generated for attribute in read):
        return ""
    plain = ", ".join(read) or "no text"
    return f"{name}: reads {plain} as it is: none of it was written by a language model"
