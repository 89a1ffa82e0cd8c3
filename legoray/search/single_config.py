"""What `legoray train` trains: a preset or a file of one's own, with single settings changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from legoray.config import EvaluateConfig, ModelConfig, Strict, TrainConfig, TrialConfig, build
from legoray.errors import InputError, Problem, nearest
from legoray.model.presets import FOLDER, merged, preset
from legoray.yamlfile import Document, Keys, parse_yaml, read_yaml

TOP = ("model", "train", "evaluate", "seed")


class OwnFile(Strict):
    """`--config file.yaml`: a composition of one's own."""

    name: str = ""
    description: str = ""
    model: dict[str, Any]
    train: dict[str, Any] = Field(default_factory=dict)
    evaluate: dict[str, Any] = Field(default_factory=dict)
    seed: int = 1


class Single(Strict):
    """One model to train, and where its settings come from."""

    name: str
    file: str
    config: TrialConfig


def read_single(
    preset_name: str | None, file: Path | None, changes: Sequence[str], seed: int | None
) -> Single:
    """The configuration of one training, every setting of it filled in and checked.

    Args:
        preset_name: a preset, unless a file is given.
        file: a YAML file with `model` and, if wanted, `train`, `evaluate`, `name` and `seed`.
        changes: such as `train.epochs=3`; they go before everything else.
        seed: instead of the file's.

    Raises:
        InputError: with all that is wrong.
    """
    if (preset_name is None) == (file is None):
        raise InputError("give either --preset (see `legoray train --list`) or --config")
    asked, problems = read_changes(changes)
    try:
        document, name = _base(preset_name, file)
        data = _with_preset(merged(document.data, asked), document)
    except InputError as error:
        raise InputError(*error.problems, *problems) from None
    config, found = _checked(data, document)
    if problems or found or config is None:
        raise InputError(*problems, *found)
    if seed is not None:
        config = config.model_copy(update={"seed": seed})
    place = FOLDER / f"{name}.yaml" if file is None else file
    return Single(name=name, file=str(place), config=config)


def _with_preset(data: dict[str, Any], document: Document) -> dict[str, Any]:
    """What stands beside `model: {preset: naml}` in a file is laid over that preset."""
    model = data.get("model")
    name = model.get("preset") if isinstance(model, Mapping) else None
    if not name or not document.lines:
        return data
    known = preset(str(name), document.where(("model", "preset")))
    return merged(known.model_dump(include={"model", "train"}), data)


def _base(preset_name: str | None, file: Path | None) -> tuple[Document, str]:
    """The settings that the changes are laid over, and what to call the model."""
    if preset_name is not None:
        known = preset(preset_name, "--preset")
        data = {"model": {**known.model, "preset": known.name}, "train": known.train}
        return Document(Path(f"preset {known.name}"), data), known.name
    assert file is not None
    document = read_yaml(file)
    own = build(OwnFile, document.data, document)
    data = {key: value for key, value in document.data.items() if key in TOP}
    return Document(document.path, data, document.lines), own.name or file.stem


def read_changes(changes: Sequence[str]) -> tuple[dict[str, Any], list[Problem]]:
    """`["train.epochs=3"]` as `{"train": {"epochs": 3}}`, and what cannot be read."""
    found: dict[str, Any] = {}
    problems: list[Problem] = []
    for change in changes:
        path, equals, text = change.partition("=")
        keys = path.strip().split(".")
        where = f"--set {change}"
        if not equals or not all(keys):
            message = "a path and a value were expected"
            problems.append(Problem(where, message, "such as train.epochs=3"))
        elif keys[0] not in TOP:
            close = nearest(keys[0], TOP)
            hint = f"did you mean '{close}'?" if close else f"one of {', '.join(TOP)}"
            problems.append(Problem(where, f"there is no '{keys[0]}'", hint))
        else:
            try:
                value = parse_yaml(f"value: {text}").data["value"]
            except InputError as error:
                problems.append(Problem(where, str(error.problems[0].message)))
                continue
            for key in reversed(keys):
                value = {key: value}
            found = merged(found, value)
    return found, problems


def _checked(data: dict[str, Any], document: Document) -> tuple[TrialConfig | None, list[Problem]]:
    """The whole configuration, or everything that is wrong with it."""
    from legoray.train.losses import check_train
    from legoray.train.metrics import check_metrics

    model, problems = _model(data.get("model"), document)
    parts: dict[str, Any] = {"seed": data.get("seed", 1)}
    for key, cls in (("train", TrainConfig), ("evaluate", EvaluateConfig)):
        try:
            parts[key] = build(cls, data.get(key, {}), document, (key,))
        except InputError as error:
            problems += error.problems
    if "train" in parts:
        problems += check_train(parts["train"], document.where(("train",)))
    if "evaluate" in parts:
        settings = parts["evaluate"]
        where = document.where(("evaluate",))
        problems += check_metrics(settings.metrics, settings.select, where=where)
    if problems or model is None:
        return None, problems
    return build(TrialConfig, {**parts, "model": model}, document), []


def _model(data: Any, document: Document) -> tuple[ModelConfig | None, list[Problem]]:
    """The composition with all defaults filled in, or what is wrong with it."""
    from legoray.model.compose import check
    from legoray.model.registry import KINDS, parse_part

    at: Keys = ("model",)
    try:
        config = build(ModelConfig, data, document, at)
        if config.preset:
            preset(config.preset, document.where((*at, "preset")))
    except InputError as error:
        return None, error.problems
    problems = check(config, document, at)
    if problems:
        return None, problems
    filled: dict[str, Any] = {}
    for kind in KINDS:
        given = getattr(config, kind)
        settings = parse_part(kind, given, document=document, at=(*at, kind))[1]
        filled[kind] = {"name": given["name"], **settings.model_dump()}
    return config.model_copy(update=filled), []
