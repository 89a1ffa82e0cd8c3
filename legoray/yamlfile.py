"""YAML as people mean it: strict, with line numbers.

Differences from plain `yaml.safe_load`, each because the plain behaviour loses something silently:
`1e-3` is a number, `no`/`on`/`yes` are words, a key that stands twice is refused, and each value's
line is kept so that an error can name it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from legoray.errors import InputError, Problem

Keys = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's floats and booleans."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, rx) for tag, rx in rules if not tag.endswith((":float", ":bool", ":timestamp"))]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


@dataclass(frozen=True)
class Document:
    """A parsed file: its data and the line (from 1) on which each path of keys stands."""

    path: Path
    data: Any
    lines: dict[Keys, int] = field(default_factory=dict)

    def where(self, keys: Keys) -> str:
        """`file:line: a.b[0]` of a path of keys, or of its nearest parent that the file has."""
        known = keys
        while known and known not in self.lines:
            known = known[:-1]
        line = self.lines.get(known)
        spot = f"{self.path}:{line}" if line else str(self.path)
        return f"{spot}: {dotted(keys)}" if keys else spot


def dotted(keys: Keys) -> str:
    """`('model', 'content', 0)` as `model.content[0]`."""
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else (f".{key}" if text else str(key))
    return text


def read_yaml(path: str | os.PathLike[str]) -> Document:
    """Read one YAML mapping from a file.

    Raises:
        InputError: the file is missing, a folder, not UTF-8, empty, not YAML, not a mapping, or
            holds a key twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(Problem(str(path), "no such file")) from None
    except IsADirectoryError:
        raise InputError(Problem(str(path), "is a folder, a YAML file was expected")) from None
    except UnicodeDecodeError as error:
        raise InputError(Problem(str(path), f"is not UTF-8 text ({error.reason})")) from None
    except OSError as error:
        raise InputError(Problem(str(path), f"cannot be read: {error.strerror}")) from None
    return parse_yaml(text, path)


def parse_yaml(text: str, path: str | os.PathLike[str] = "<text>") -> Document:
    """As `read_yaml`, for text that is already in memory; `path` is what errors call it."""
    path = Path(path)
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise InputError(Problem(str(path), "is empty, a mapping of keys was expected"))
        if not isinstance(node, yaml.MappingNode):
            raise InputError(Problem(f"{path}:1", "a mapping of keys was expected at the top"))
        lines: dict[Keys, int] = {}
        _note_lines(node, (), lines, path)
        return Document(path, loader.construct_document(node), lines)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(Problem(f"{path}:{line}", f"not valid YAML: {error.problem}")) from None
    except yaml.YAMLError as error:
        raise InputError(Problem(str(path), f"not valid YAML: {error}")) from None
    finally:
        loader.dispose()


def scalar(text: str) -> Any:
    """What a plain word is in YAML: `64` a number, `true` a truth value, `cnn` a word."""
    loader = _Loader("")
    try:
        tag = loader.resolve(yaml.ScalarNode, text, (True, False))
        return loader.construct_object(yaml.ScalarNode(tag, text))
    finally:
        loader.dispose()


def _plain_cases(node: yaml.MappingNode) -> None:
    """Beside `case`, keys are values of what it names: `64: ...` stays as it is written."""
    if any(key.value == "case" for key, _ in node.value):
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and not key.tag.endswith(":merge"):
                key.tag = "tag:yaml.org,2002:str"


def _note_lines(node: yaml.Node, keys: Keys, lines: dict[Keys, int], path: Path) -> None:
    """Record the line of every value below `node`, and refuse keys that stand twice."""
    if isinstance(node, yaml.MappingNode):
        _plain_cases(node)
        for key_node, value in node.value:
            line = key_node.start_mark.line + 1
            if not key_node.tag.endswith((":str", ":merge")):
                shown = key_node.value if isinstance(key_node.value, str) else "[...]"
                raise InputError(
                    Problem(f"{path}:{line}", f"not valid here: the key {shown} is not a word")
                )
            key = key_node.value
            if (*keys, key) in lines:
                first = lines[(*keys, key)]
                raise InputError(
                    Problem(
                        f"{path}:{line}: {dotted((*keys, key))}",
                        "stands twice",
                        f"first on line {first}",
                    )
                )
            lines[(*keys, key)] = line
            _note_lines(value, (*keys, key), lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*keys, index)] = value.start_mark.line + 1
            _note_lines(value, (*keys, index), lines, path)
