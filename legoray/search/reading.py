"""Reads a space's file and finds everything that is wrong with it before anything is run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from legoray.config import ModelConfig, TrainConfig, build, problems_of
from legoray.errors import InputError, Problem
from legoray.search.datasets import Dataset, read_datasets
from legoray.search.dependence import (
    conditions_of,
    dependence_problems,
    known_parts,
    starting_problems,
)
from legoray.search.fits import Fits
from legoray.search.notation import KINDS, Reader, is_search
from legoray.search.objectives import objective_problems
from legoray.search.preset_tree import composition_problems, part_name, preset_choice
from legoray.search.space import Condition, Space
from legoray.search.tree import Choice, Const, Group, Moved, Node, Range, Resolved, Scalar, resolve
from legoray.search.walk import atoms, independent, ranges
from legoray.spaceconfig import SpaceConfig
from legoray.yamlfile import Document, Keys, read_yaml

TREES = ("model", "train")


def read(path: Path) -> list[Space]:
    """As `legoray.search.space.read_spaces`."""
    document = read_yaml(path)
    reader = Reader(document)
    model = _model_tree(reader)
    train = _plain_tree(reader, "train")
    where = conditions_of(reader)
    problems = [*_outer(document), *reader.problems]
    problems += _model_settings(document, model) if model else []
    problems += settings_problems(document, train, "train", TrainConfig)
    datasets, more = read_datasets(document)
    problems += [*more, *_metrics(document), *objective_problems(document)]
    if model is not None:
        problems += dependence_problems(reader, model, train, where)
        problems += _composed(reader, model, where)
        problems += starting_problems(reader, model, train)
    problems += _endless(document, {"model": model, "train": train})
    if problems or model is None or not datasets:
        raise InputError(*_in_order(problems, document))
    config = build(SpaceConfig, document.data, document)
    several = isinstance(document.data["data"], list)
    spaces = [
        Space(
            _config_of(config, one, document),
            one.of(document),
            one.path,
            one.config,
            model,
            train,
            where,
            several,
        )
        for one in datasets
    ]
    problems = [problem for space in spaces for problem in _together(space)]
    if problems:
        raise InputError(*_in_order(problems, document))
    return spaces


def _composed(reader: Reader, model: Group, where: tuple[Condition, ...]) -> list[Problem]:
    if "preset" in model.children:
        return composition_problems(reader, cast(Choice, model.children["preset"]))
    return _compositions(reader.document, model, where)


def _config_of(config: SpaceConfig, dataset: Dataset, document: Document) -> SpaceConfig:
    """The settings of the search on one data set: of several, each has a name of its own."""
    if isinstance(document.data["data"], str):
        return config
    tracking, name = config.tracking, f"{config.name}-{dataset.config.name}"
    own = {"experiment": tracking.experiment or config.name}
    if tracking.register_as:
        own["register_as"] = f"{tracking.register_as}-{dataset.config.name}"
    changes = {"name": name, "data": [dataset.given], "tracking": tracking.model_copy(update=own)}
    return config.model_copy(update=changes)


def _model_tree(reader: Reader) -> Group | None:
    """The model's tree; None where there is none to speak of."""
    data = reader.document.data.get("model")
    if not isinstance(data, dict):
        return None
    if is_search(data):
        reader.wrong(("model",), "cannot be a choice itself", "put choices below its keys")
        return None
    rest = reader.group({k: data[k] for k in data if k not in (*KINDS, "preset")}, ("model",))
    if "preset" in data:
        choice = preset_choice(reader)
        return Group({**rest.children, **({"preset": choice} if choice else {})}, ("model",))
    found = {kind: reader.part(data[kind], ("model", kind)) for kind in KINDS if kind in data}
    parts = {kind: node for kind, node in found.items() if node is not None}
    return Group({**rest.children, **parts}, ("model",))


def _plain_tree(reader: Reader, name: str) -> Group:
    data = reader.document.data.get(name)
    if not isinstance(data, dict):
        return Group({}, (name,))
    if is_search(data):
        reader.wrong((name,), "cannot be a choice itself", "put choices below its keys")
        return Group({}, (name,))
    return reader.group(data, (name,))


def _outer(document: Document) -> list[Problem]:
    """Mistakes outside of the trees, the searched values among them."""
    found = [
        keys for key in document.data if key not in TREES for keys in _searched_keys(document, key)
    ]
    problems = [
        Problem(
            document.where(keys), "cannot be searched", "only what stands below model and train"
        )
        for keys in found
    ]
    try:
        build(SpaceConfig, document.data, document)
    except InputError as error:
        said = tuple(document.where(keys) for keys in found)
        problems += [p for p in error.problems if not (said and p.where.startswith(said))]
    return problems


def _searched_keys(document: Document, key: str) -> Iterator[Keys]:
    """Where a searched form stands below a key."""
    stack: list[tuple[Keys, Any]] = [((key,), document.data[key])]
    while stack:
        keys, value = stack.pop()
        if is_search(value):
            yield keys
        elif isinstance(value, dict | list):
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            stack += [((*keys, name), child) for name, child in pairs]


def settings_problems(
    document: Document, node: Node, path: str, cls: type[BaseModel], skip: tuple[str, ...] = ()
) -> list[Problem]:
    """What a typed configuration says about the constants and every searched value of a tree.

    Every option and every end of a range is put in once, the rest as it comes first. Complaints
    about several fields together are left to the search for a valid combination.
    """
    problems: list[Problem] = []
    plain = independent(node)
    if plain is None:
        return []
    node = plain
    for pins in [{}, *(atom.pins() for atom in atoms(node, path))]:
        data, origin = _one(node, path, pins)
        data = {key: value for key, value in data.items() if key not in skip}
        try:
            cls.model_validate(data)
        except ValidationError as error:
            details = error.errors(include_url=False)
            for loc in [d["loc"] for d in details if d["type"] == "extra_forbidden"]:
                origin[loc] = (*origin.get(loc[:-1], node.keys), loc[-1])  # the key, not its value
            if any(detail["loc"] for detail in details):
                resolved = Resolved(document.path, data, document.lines, origin)
                problems += problems_of(error, cls, resolved)
    # both ends of a range are often wrong in the same way
    alike = {(p.where, p.message.partition(": ")[2] or p.message): p for p in reversed(problems)}
    return list(reversed(alike.values()))


def _one(node: Node, path: str, pins: dict[str, Scalar]) -> tuple[dict[str, Any], dict[Keys, Keys]]:
    """The tree's first values, the pinned ones aside, and where they stand."""
    origin: dict[Keys, Keys] = {}

    def pick(at: str, searched: Any) -> Scalar:
        if at in pins:
            return pins[at]
        first = searched.options[0].label if isinstance(searched, Choice) else searched.low
        return cast(Scalar, first)

    return cast(dict[str, Any], resolve(node, path, pick, origin)), origin


def _model_settings(document: Document, model: Group) -> list[Problem]:
    """Mistakes in the model's own keys and in each part's settings."""
    stand_in = {kind: Const({"name": "-"}, ("model", kind)) for kind in KINDS}
    said = KINDS if "preset" in document.data["model"] else document.data["model"]
    given = {kind: stand_in[kind] for kind in KINDS if kind in said}
    rest = {key: child for key, child in model.children.items() if key not in (*KINDS, "preset")}
    own = Group({**rest, **given}, ("model",))
    problems = settings_problems(document, own, "model", ModelConfig)
    for preset in _options(model.children.get("preset")):
        problems += _preset_settings(document, preset)
    for kind in KINDS:
        for group in _options(model.children.get(kind)):
            problems += _part_settings(document, kind, group)
    return problems


def _options(node: Node | None) -> list[Group]:
    """The parts that a node may become."""
    nodes = [option.node for option in node.options] if isinstance(node, Choice) else [node]
    return [found for found in nodes if isinstance(found, Group)]


def _preset_settings(document: Document, preset: Group) -> list[Problem]:
    """Mistakes in what the file changes of one preset."""
    problems: list[Problem] = []
    children = preset.children
    for kind in (kind for kind in KINDS if part_name(preset, kind)):
        problems += _part_settings(document, kind, cast(Group, children[kind]))
    if "train" in children:
        problems += settings_problems(document, children["train"], "train", TrainConfig)
    if "hidden_size" in children:
        parts = {kind: Const({"name": "-"}, preset.keys) for kind in KINDS}
        size = Group({**parts, "hidden_size": children["hidden_size"]}, preset.keys)
        problems += settings_problems(document, size, "model", ModelConfig)
    return problems


def _part_settings(document: Document, kind: str, group: Group) -> list[Problem]:
    from legoray.model.registry import part_class

    name = group.children["name"]
    assert isinstance(name, Const)
    try:
        cls: Any = part_class(kind, str(name.value), document.where(name.keys))
    except InputError as error:
        return error.problems
    return settings_problems(document, group, f"model/{kind}", cls.Config, skip=("name",))


def _compositions(document: Document, model: Group, where: tuple[Condition, ...]) -> list[Problem]:
    """Parts that fit with nothing, or a space in which nothing fits together."""
    known = {kind: known_parts(kind, model.children.get(kind)) for kind in KINDS}
    if not all(known.values()):
        return []
    fits = Fits(known, [condition.formula for condition in where])
    if not fits.triples:
        spot = document.where(("model",))
        return [Problem(spot, f"no composition of these parts is valid: {fits.why_not()}")]
    problems = []
    for kind in KINDS:
        for name, reason in fits.strangers(kind):
            keys = _keys_of(model.children[kind], name)
            message = f"'{name}' fits with none of the other parts here: {reason}"
            problems.append(Problem(document.where(keys), message))
    return problems


def _keys_of(node: Node, name: str) -> Keys:
    return node.option(name).node.keys if isinstance(node, Choice) else node.keys


def _endless(document: Document, trees: dict[str, Group | None]) -> list[Problem]:
    """Continuous ranges where a grid is asked for."""
    search = document.data.get("search")
    sampler = search.get("sampler") if isinstance(search, dict) else None
    if not isinstance(sampler, dict) or sampler.get("name") != "grid":
        return []
    hint = "write {choice: [...]} or give it a step, or take another sampler"
    found = [node for tree in trees.values() if tree for node in ranges(tree)]
    return [
        Problem(document.where(node.keys), "is continuous, so that the grid has no end", hint)
        for node in found
        if (isinstance(node, Moved) and node.kind == "float" and node.step is None)
        or (isinstance(node, Range) and node.count() is None)
    ]


def _metrics(document: Document) -> list[Problem]:
    """Unknown metrics, each with its line, and a `select` that is not measured."""
    from legoray.train.metrics import check_metrics

    data = document.data.get("evaluate", {})
    listed = data.get("metrics") if isinstance(data, dict) else None
    select = data.get("select") if isinstance(data, dict) else None
    problems: list[Problem] = []
    names = listed if isinstance(listed, list) else []
    for index, name in enumerate(names):
        where = document.where(("evaluate", "metrics", index))
        if isinstance(name, str):
            problems += check_metrics([name], where=where)
        if isinstance(name, str) and name in names[:index]:
            problems.append(Problem(where, f"'{name}' stands twice"))
    if isinstance(select, str):
        problems += _select(document, select, listed)
    return problems


def _select(document: Document, select: str, listed: Any) -> list[Problem]:
    from legoray.config import EvaluateConfig
    from legoray.train.metrics import check_metrics

    where = document.where(("evaluate", "select"))
    unknown = check_metrics([select], where=where)
    measured = listed if isinstance(listed, list) else build(EvaluateConfig, {}).metrics
    if unknown or select in measured:
        return unknown
    hint = f"add it to evaluate.metrics: {', '.join(map(str, measured))}"
    return [Problem(where, f"'{select}' is not measured", hint)]


def _together(space: Space) -> list[Problem]:
    """Values that go together with nothing, and impossible starting points."""
    from legoray.search.samplers import sampler_problems
    from legoray.search.start import start_problems

    if space.covering.problems:
        return space.covering.problems
    return [*_ungrouped(space), *start_problems(space), *sampler_problems(space)]


def _ungrouped(space: Space) -> list[Problem]:
    """Finals of each preset in a space without presets."""
    if space.config.final.each != "preset" or space.presets is not None:
        return []
    where = space.document.where(("final", "each"))
    return [Problem(where, "the space has no presets", "use `each: content` or `each: all`")]


def _in_order(problems: list[Problem], document: Document) -> list[Problem]:
    """Each problem once, in the order of the file's lines; those of other files come last."""

    def line(problem: Problem) -> float:
        number = problem.where.removeprefix(f"{document.path}:").partition(":")[0]
        return int(number) if number.isdigit() else math.inf

    return sorted(dict.fromkeys(problems), key=line)
