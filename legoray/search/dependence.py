"""What in a space's file depends on something else: conditions, cases, ranges, starting points.

What could not be read is passed over here: it is told where it stands.
"""

from __future__ import annotations

from legoray.errors import InputError, Problem
from legoray.search.fits import part_names
from legoray.search.formula import Formula
from legoray.search.notation import KINDS, Reader, settings_of
from legoray.search.places import Places, case_problems, overlaps, unknown_paths
from legoray.search.space import Condition
from legoray.search.tree import Case, Group, Node
from legoray.search.walk import dependent
from legoray.yamlfile import Keys


def conditions_of(reader: Reader) -> tuple[Condition, ...]:
    """The lines of `where` that can be read."""
    given = reader.document.data.get("where", [])
    lines: list[tuple[Keys, str]] = [(("where",), given)] if isinstance(given, str) else []
    if isinstance(given, list):
        lines = [(("where", n), text) for n, text in enumerate(given) if isinstance(text, str)]
    found = []
    for keys, text in lines:
        formula = reader.formula(text, keys)
        if formula is not None and not formula.is_condition:
            hint = "such as behavior.heads divides hidden_size"
            reader.wrong(keys, f"'{text}' says nothing that is true or false", hint)
        elif formula is not None:
            found.append(Condition(formula, keys))
    return tuple(found)


def dependence_problems(
    reader: Reader, model: Group, train: Group, where: tuple[Condition, ...]
) -> list[Problem]:
    """What formulas name and is not there, and cases that never hold."""
    document, places = reader.document, Places(model, train)
    broken = _broken(reader, model)
    problems: list[Problem] = []
    for condition in where:
        spot = document.where(condition.keys)
        problems += unknown_paths(places, condition.formula, spot, broken)
    for path, tree in (("model", model), ("train", train)):
        for _, node in dependent(tree, path):
            spot = document.where(node.keys)
            formulas = [node.of] if isinstance(node, Case) else node.formulas()
            found = [p for f in formulas for p in unknown_paths(places, f, spot, broken)]
            problems += found
            if isinstance(node, Case) and not found and not _touches(node.of, broken):
                problems += case_problems(places, node, spot)
    return problems


def _touches(formula: Formula, broken: list[Keys]) -> bool:
    return any(overlaps(path, broken) for path, _ in formula.paths)


def _broken(reader: Reader, model: Group) -> list[Keys]:
    """The settings that could not be read, without the notation around them."""
    found = [settings_of(keys) for keys in reader.broken]
    for kind in KINDS if "preset" not in model.children else ():
        node = model.children.get(kind)
        if node is None or len(known_parts(kind, node)) < len(part_names(node)):
            found.append(("model", kind))
    return found


def starting_problems(reader: Reader, model: Group, train: Group) -> list[Problem]:
    """Starting points that do not match the trees; whether they are valid is told later."""
    from legoray.model.presets import preset
    from legoray.search.start import matching

    search = reader.document.data.get("search")
    search = search if isinstance(search, dict) else {}
    with_, from_ = search.get("start_with"), search.get("start_from")
    broken, problems = _broken(reader, model), []
    for index, given in enumerate(with_ if isinstance(with_, list) else ()):
        at: Keys = ("search", "start_with", index)
        match = matching(reader.document, model, train, given, at)
        told = zip(match.places, match.problems, strict=True)
        problems += [p for keys, p in told if not overlaps(settings_of(keys[3:]), broken)]
    for index, name in enumerate(from_ if isinstance(from_, list) else ()):
        where = reader.document.where(("search", "start_from", index))
        try:
            preset(name, where) if isinstance(name, str) else None
        except InputError as error:
            problems += error.problems
    return problems


def known_parts(kind: str, node: Node | None) -> tuple[str, ...]:
    """The parts of a node whose names exist."""
    from legoray.model.registry import part_class

    found = []
    for name in part_names(node) if node is not None else ():
        try:
            part_class(kind, name)
        except InputError:
            continue
        found.append(name)
    return tuple(found)
