"""`model: {preset: {choice: [naml, {name: nrms, content: {...}}]}}`: a space made of presets.

Each preset is an option of one choice, `model/preset`, and what is searched of it stands below that
option: `model/preset.naml/content/kernel_size`. What the file says of all models (`model:
hidden_size`, `train`) goes before a preset's own word, and what it says of one preset before both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from legoray.errors import InputError, Problem, nearest
from legoray.model.presets import Preset, preset
from legoray.search.notation import KINDS, Reader, is_search
from legoray.search.tree import Choice, Const, Group, Node, Option, sort_key
from legoray.yamlfile import Keys

AT: Keys = ("model", "preset")
MAY_SAY = ("name", "hidden_size", *KINDS, "train")


def preset_choice(reader: Reader) -> Choice | None:
    """The choice among the presets of a document; None where none can be read."""
    data = reader.document.data["model"]
    for kind in KINDS:
        if kind in data:
            hint = f"write {{name: <preset>, {kind}: {{...}}}} in its place"
            reader.wrong(("model", kind), f"stands beside 'preset', which says the {kind}", hint)
    found = [_option(reader, value, keys) for keys, value in _listed(reader, data["preset"])]
    options: dict[str, Option] = {}
    for option in found:
        if option is None:
            continue
        if str(option.label) in options:
            hint = "join the two, with a choice inside"
            reader.wrong(option.node.keys, f"the preset '{option.label}' stands twice", hint)
        options.setdefault(str(option.label), option)
    return Choice(tuple(sorted(options.values(), key=sort_key)), AT) if options else None


def _listed(reader: Reader, data: Any) -> list[tuple[Keys, Any]]:
    """Each preset that is given, with its place."""
    if not is_search(data):
        return [(AT, data)]
    if set(data) != {"choice"} or not isinstance(data["choice"], list) or not data["choice"]:
        reader.wrong(AT, f"is {data!r}: {{choice: [names of presets]}} was expected")
        return []
    return [((*AT, "choice", index), value) for index, value in enumerate(data["choice"])]


def _option(reader: Reader, data: Any, keys: Keys) -> Option | None:
    """One preset with what the file changes of it."""
    given: dict[str, Any] = {"name": data} if isinstance(data, str) else data
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        hint = "such as naml, or {name: naml, content: {kernel_size: 5}}"
        reader.wrong(keys, f"is {data!r}: a preset's name was expected", hint)
        return None
    name_keys = keys if isinstance(data, str) else (*keys, "name")
    try:
        known = preset(given["name"], reader.document.where(name_keys))
    except InputError as error:
        reader.problems += error.problems
        return None
    for key in given:
        if key not in MAY_SAY:
            close = nearest(key, MAY_SAY)
            hint = f"did you mean '{close}'?" if close else f"may have: {', '.join(MAY_SAY)}"
            reader.wrong((*keys, key), "is nothing that a preset has", hint)
    children = _children(reader, known, given, keys)
    return Option(known.name, Group({"name": Const(known.name, keys), **children}, keys))


def _children(reader: Reader, known: Preset, given: dict[str, Any], keys: Keys) -> dict[Any, Node]:
    children: dict[Any, Node] = {}
    for kind in KINDS:
        part = _laid(reader, known.model[kind], given.get(kind, {}), keys, kind)
        if part is not None:
            children[kind] = part
    everywhere = reader.document.data["model"]
    if "hidden_size" in given:
        node = reader.node(given["hidden_size"], (*keys, "hidden_size"))
        if node is not None:
            children["hidden_size"] = node
    elif "hidden_size" in known.model and "hidden_size" not in everywhere:
        children["hidden_size"] = Const(known.model["hidden_size"], keys)
    all_train = reader.document.data.get("train")
    said = all_train if isinstance(all_train, dict) else {}
    own = {key: value for key, value in known.train.items() if key not in said}
    train = _laid(reader, own, given.get("train", {}), keys, "train")
    if train is not None:
        children["train"] = train
    return children


def _laid(
    reader: Reader, below: Mapping[str, Any], above: Any, keys: Keys, key: str
) -> Group | None:
    """A preset's settings with the file's laid over them; each knows where it stands."""
    at = (*keys, key)
    if not isinstance(above, dict) or is_search(above):
        reader.wrong(at, f"is {above!r}: settings to change were expected")
        return None
    name = above.get("name", below.get("name"))
    if not isinstance(name, str | None):
        reader.wrong((*at, "name"), f"is {name!r}: a part's name was expected")
        return None
    if name != below.get("name"):
        below = {}  # another part knows nothing of the old one's settings
    children: dict[Any, Node] = {
        k: Const(value, keys) for k, value in below.items() if k not in above
    }
    for k, value in above.items():
        old = below.get(k)
        if isinstance(value, dict) and isinstance(old, Mapping) and not is_search(value):
            node: Node | None = _laid(reader, old, value, at, k)
        else:
            node = reader.node(value, (*at, k))
        if node is not None:
            children[k] = node
    return Group(children, at if above else keys)


def composition_problems(reader: Reader, choice: Choice) -> list[Problem]:
    """Presets whose parts, after the file's changes, do not fit together."""
    from legoray.model.compose import explain

    problems = []
    for option in choice.options:
        names = [part_name(option.node, kind) for kind in KINDS]
        try:
            reason = explain(*names) if all(names) else None
        except InputError:
            continue  # an unknown part is told elsewhere
        if reason:
            problems.append(Problem(reader.document.where(option.node.keys), reason))
    return problems


def part_name(node: Node, kind: str) -> str:
    """The part of a kind that a preset's option has; empty where it is broken."""
    part = node.children.get(kind) if isinstance(node, Group) else None
    name = part.children.get("name") if isinstance(part, Group) else None
    return str(name.value) if isinstance(name, Const) else ""
