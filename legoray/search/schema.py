"""JSON schemas of the YAML files, so that an editor completes and checks them while one types.

    legoray schema search-space > search_spaces/schema.json

They are made of the typed settings themselves: every part, every processor, every field with what
is said of it. In a search space each leaf below `model` and `train` may be a value, or any form of
the notation. A file names its schema in its first line:

    # yaml-language-server: $schema=schema.json

What a schema cannot say (whether parts fit together, whether a formula names something) is left to
`legoray check`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from legoray.config import DatasetConfig, TrainConfig
from legoray.errors import InputError, unknown
from legoray.model.parts import KINDS, TABLES, declared
from legoray.records import digest
from legoray.spaceconfig import SpaceConfig

Schema = dict[str, Any]
DRAFT = "http://json-schema.org/draft-07/schema#"
SAID = ("title", "description", "default")  # about a value, not of it
OWN = {"type": "string", "pattern": "^[\\w.]+:\\w+$"}  # an import path of one's own


def schema_of(kind: str) -> Schema:
    """The schema of a kind of file.

    Raises:
        InputError: there is no such kind.
    """
    if kind not in SCHEMAS:
        raise InputError(unknown("schema", kind, list(SCHEMAS)))
    return {"$schema": DRAFT, **SCHEMAS[kind]()}


def text_of_schema(kind: str) -> str:
    """As `schema_of`, as it is committed: JSON with a line's end."""
    return json.dumps(schema_of(kind), indent=1, ensure_ascii=False) + "\n"


def plain_schema(model: type[BaseModel]) -> Schema:
    """A model's own schema, with what it refers to put in its place."""
    found = model.model_json_schema()
    inner = found.pop("$defs", {})
    return _inlined(found, inner)


def _inlined(node: Any, inner: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inlined(one, inner) for one in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = inner[node["$ref"].rpartition("/")[2]]
        rest = {key: value for key, value in node.items() if key != "$ref"}
        return {**_inlined(target, inner), **rest}
    named = {key: _inlined(value, inner) for key, value in node.items() if key != "title"}
    return named | ({"title": named_title} if (named_title := _title(node)) is not None else {})


def _title(node: Mapping[str, Any]) -> Any:
    """A field that is called `title`; the titles that pydantic makes up say nothing."""
    title = node.get("title")
    return _inlined(title, {}) if isinstance(title, dict) else None


class _Notation:
    """Collects definitions; with `searched`, each leaf may be any form of the notation."""

    def __init__(self, *, searched: bool) -> None:
        self.searched = searched
        self.defs: dict[str, Schema] = {}

    def ref(self, name: str, make: Callable[[], Schema]) -> Schema:
        """A reference to a definition, made when it is first asked for."""
        if name not in self.defs:
            self.defs[name] = {}  # so that it may refer to itself
            self.defs[name] = make()
        return {"$ref": f"#/$defs/{name}"}

    def value(self, schema: Schema) -> Schema:
        """A value of a schema, or a form of the notation that gives one."""
        bare = {key: v for key, v in schema.items() if key not in SAID}
        said = {key: v for key, v in schema.items() if key in SAID}
        if not self.searched:
            return schema
        name = f"{_word(bare)}-{digest(bare, 8)}"
        return {**self.ref(name, lambda: self._forms(name, bare)), **said}

    def _forms(self, name: str, bare: Schema) -> Schema:
        me = {"$ref": f"#/$defs/{name}"}
        return {"anyOf": [self._inside(bare), *_ranges(_types(bare)), choice_of(me), case_of(me)]}

    def _inside(self, schema: Schema) -> Schema:
        """A schema whose own members may be searched, too."""
        found = dict(schema)
        if isinstance(schema.get("properties"), dict):
            found["properties"] = {k: self.value(v) for k, v in schema["properties"].items()}
        if isinstance(schema.get("items"), dict):
            found["items"] = self.value(schema["items"])
        if isinstance(schema.get("anyOf"), list):
            found["anyOf"] = [self._inside(one) for one in schema["anyOf"]]
        return found

    def settings(self, model: type[BaseModel], nested: Schema | None = None) -> Schema:
        """A typed configuration, each field of which may be searched."""
        schema = plain_schema(model)
        fields = {}
        for key, field in schema.get("properties", {}).items():
            free = field.get("type") == "object" and field.get("additionalProperties") is True
            said = {k: v for k, v in field.items() if k in SAID}
            fields[key] = {**nested, **said} if free and nested else self.value(field)
        return {"type": "object", "properties": fields, "additionalProperties": False}

    def part(self, kind: str) -> Schema:
        """A part of a kind, by its name, with the settings of that name."""
        return self.ref(f"{kind}-part", lambda: self._part(kind))

    def _part(self, kind: str) -> Schema:
        names: list[Schema] = [{"enum": list(TABLES[kind])}, OWN]
        if self.searched:
            names.append(choice_of({"type": "string"}))
        cases = [
            {"if": {"properties": {"name": {"const": name}}, "required": ["name"]}, "then": own}
            for name in TABLES[kind]
            for own in [self.ref(f"{kind}-{name}", lambda name=name: self._named(kind, name))]  # type: ignore[misc]
        ]
        return {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"anyOf": names}},
            "allOf": cases,
        }

    def _named(self, kind: str, name: str) -> Schema:
        from legoray.model.registry import part_class

        about = next(part for part in declared(kind) if part.name == name)
        nested = self.either(self.part("content")) if kind == "content" else None
        found = self.settings(part_class(kind, name).Config, nested)
        found["properties"] = {"name": {"const": name}, **found["properties"]}
        return {"description": " ".join(filter(None, (about.summary, about.paper))), **found}

    def either(self, part: Schema) -> Schema:
        """A part, or one of several."""
        return {"anyOf": [part, choice_of(part)]} if self.searched else part

    def train(self) -> Schema:
        return self.ref("train", lambda: self.settings(TrainConfig))

    def model(self, **more: Schema) -> Schema:
        """The three parts and their width."""
        width = {"type": "integer", "exclusiveMinimum": 0, "description": "of all vectors"}
        fields: dict[str, Schema] = {"hidden_size": self.value(width)}
        fields |= {kind: self.either(self.part(kind)) for kind in KINDS}
        every: dict[str, Any] = {**fields}
        every.update(more)
        return {"type": "object", "properties": every, "additionalProperties": False}


def choice_of(option: Schema) -> Schema:
    """`{choice: [...]}`."""
    options = {"type": "array", "minItems": 1, "items": option}
    return _braces({"choice": {**options, "description": "one of several"}}, ["choice"])


def case_of(line: Schema) -> Schema:
    """`{case: content, cnn: ..., else: ...}`."""
    path = {"type": "string", "description": "the value that decides, such as content.name"}
    found = _braces({"case": path}, ["case"])
    return {**found, "additionalProperties": line, "minProperties": 2}


def _braces(fields: Mapping[str, Schema], required: list[str]) -> Schema:
    return {
        "type": "object",
        "properties": dict(fields),
        "required": required,
        "additionalProperties": False,
    }


def _ranges(types: set[str]) -> list[Schema]:
    """The ranges that give a value of one of these types."""
    found = []
    if types & {"integer", "number"}:
        found.append(_range("int", "integer", "a whole number, both ends included", log=True))
    if "number" in types:
        found.append(_range("float", "number", "a number, uniform", log=True))
        found.append(_range("log", "number", "a number, uniform in its logarithm"))
    return found


def _range(word: str, kind: str, said: str, *, log: bool = False) -> Schema:
    end = {"anyOf": [{"type": kind}, {"type": "string", "description": "a formula"}]}
    ends = {"type": "array", "minItems": 2, "maxItems": 2, "items": end, "description": said}
    fields: dict[str, Schema] = {word: ends}
    if log:
        fields["step"] = {"type": kind, "exclusiveMinimum": 0}
        fields["log"] = {"type": "boolean"}
    return _braces(fields, [word])


def _types(schema: Schema) -> set[str]:
    """The JSON types of a value's forms."""
    inner = [found for one in schema.get("anyOf", ()) for found in _types(one)]
    return {*([schema["type"]] if isinstance(schema.get("type"), str) else []), *inner}


def _word(schema: Schema) -> str:
    return "-or-".join(sorted(_types(schema))) or "value"


def space_schema() -> Schema:
    """Of `search_spaces/*.yaml`."""
    from legoray.model.presets import names

    made = _Notation(searched=True)
    schema = plain_schema(SpaceConfig)
    named = {"enum": list(names()), "description": "a model of the literature"}
    free = {"type": "object"}
    own = {"name": named, "hidden_size": made.model()["properties"]["hidden_size"]}
    own |= dict.fromkeys(KINDS, free) | {"train": made.train()}
    preset = {"anyOf": [named, _braces(own, ["name"])]}
    model = made.ref("model", lambda: made.model(preset=made.either(preset)))
    fields = schema["properties"]
    fields["model"], fields["train"] = model, made.train()
    search = fields["search"]["properties"]
    search["start_with"]["items"] = _braces({"model": model, "train": made.train()}, [])
    search["start_from"]["items"] = named
    return {**schema, "title": "A search space of LegoRay", "$defs": made.defs}


def dataset_schema() -> Schema:
    """Of `datasets/*.yaml`."""
    from legoray.data.processors import PROCESSORS, processor_class

    schema = plain_schema(DatasetConfig)
    schema["properties"]["processor"] = {"anyOf": [{"enum": list(PROCESSORS)}, OWN]}
    schema["allOf"] = [
        {
            "if": {"properties": {"processor": {"const": name}}, "required": ["processor"]},
            "then": {"properties": {"options": plain_schema(processor_class(name).Options)}},
        }
        for name in PROCESSORS
    ]
    return {**schema, "title": "A data set of LegoRay"}


def preset_schema() -> Schema:
    """Of `legoray/presets/*.yaml`."""
    from legoray.model.presets import Preset

    made = _Notation(searched=False)
    schema = plain_schema(Preset)
    fields = {key: field for key, field in schema["properties"].items() if key != "name"}
    base = {"type": "string", "description": "another preset, of which this one changes something"}
    fields |= {"base": base, "train": made.train()}
    alone = {"properties": {"model": {**made.model(), "required": list(KINDS)}}}
    return {
        "title": "A preset of LegoRay",
        "type": "object",
        "properties": {**fields, "model": {"type": "object"}},
        "additionalProperties": False,
        "required": ["title"],
        "if": {"required": ["base"]},
        "else": {**alone, "required": ["paper", "model"]},
        "$defs": made.defs,
    }


SCHEMAS: Mapping[str, Callable[[], Schema]] = {
    "search-space": space_schema,
    "dataset": dataset_schema,
    "preset": preset_schema,
}
