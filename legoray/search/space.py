"""A search space: a checked YAML file that trials are drawn from.

`read_space` reports all mistakes of a file at once. `Space.sample` draws one trial from Optuna,
`Space.corners` is a small set of trials in which every option and both ends of every range appear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from legoray.config import DatasetConfig, ModelConfig, SpaceConfig, TrainConfig, TrialConfig, build
from legoray.data.recipes import Recipe, StateRecipe, leaves
from legoray.errors import InputError, Problem
from legoray.records import digest
from legoray.search.fits import Fits, part_names
from legoray.search.notation import KINDS
from legoray.search.tree import (
    Choice,
    Group,
    Node,
    Pick,
    Range,
    Resolved,
    Scalar,
    atoms,
    below,
    resolve,
    searched,
)
from legoray.yamlfile import Document, Keys

if TYPE_CHECKING:
    from legoray.search.cover import Cover

ENCODER_RATE = "encoder_learning_rate"
PRESET = "model/preset"


class Rejected(Exception):
    """A drawn configuration that is no valid model; the message says why."""


@dataclass(frozen=True)
class Space:
    """A checked search space."""

    config: SpaceConfig
    document: Document
    dataset: Path
    dataset_config: DatasetConfig
    model: Group
    train: Group

    @cached_property
    def presets(self) -> Choice | None:
        """The choice among presets, in a space that is made of presets."""
        node = self.model.children.get("preset")
        return node if isinstance(node, Choice) else None

    def parts(self, kind: str) -> list[tuple[str, Node]]:
        """Where the parts of a kind stand: paths and nodes, one for each preset."""
        if self.presets is None:
            return [(f"model/{kind}", self.model.children[kind])]
        return [
            (f"{below(PRESET, option.label)}/{kind}", cast(Group, option.node).children[kind])
            for option in self.presets.options
        ]

    @cached_property
    def fits(self) -> Fits:
        names = {k: [n for _, node in self.parts(k) for n in part_names(node)] for k in KINDS}
        return Fits({kind: tuple(dict.fromkeys(found)) for kind, found in names.items()})

    @cached_property
    def params(self) -> tuple[str, ...]:
        """The paths of everything that is searched."""
        found = (atom.path for tree in self.trees().items() for atom in atoms(tree[1], tree[0]))
        return tuple(dict.fromkeys(found))

    def trees(self) -> dict[str, Group]:
        return {"model": self.model, "train": self.train}

    def sample(self, trial: Any) -> dict[str, Any]:
        """One trial's configuration, every value of it suggested by an Optuna trial.

        Raises:
            Rejected: values that are valid one by one do not go together.
        """
        try:
            return self.draw(lambda path, node: suggest(trial, path, node)).model_dump()
        except InputError as error:
            raise Rejected("; ".join(p.message for p in error.problems)) from None

    def draw(self, pick: Pick, pinned: Mapping[str, Scalar] | None = None) -> TrialConfig:
        """A configuration whose searched values `pick` chooses.

        Args:
            pick: called with a parameter's path and its node.
            pinned: paths that `pick` will answer in a known way; parts are then offered only if
                they fit the pinned ones.

        Raises:
            InputError: the values drawn do not go together; places are those of the space's file.
        """
        origin: dict[Keys, Keys] = {(): ()}
        if self.presets is None:
            model, own, at = self._draw_model(pick, pinned or {}, origin), Group({}, ()), ""
        else:
            model, own, at = self._draw_preset(self.presets, pick, origin)
        resolved = Resolved(self.document.path, model, self.document.lines, origin)
        config = check_model(model, resolved)
        drawn = self._draw_train(self.train, "train", pick, config, origin)
        drawn |= self._draw_train(own, at, pick, config, origin)
        train = check_train(drawn, resolved)
        data: dict[str, Any] = {"model": config, "train": train}
        data |= {"evaluate": self.config.evaluate, "seed": self.config.seed}
        return TrialConfig.model_validate(data)

    def _draw_model(
        self, pick: Pick, pinned: Mapping[str, Scalar], origin: dict[Keys, Keys]
    ) -> dict[str, Any]:
        names = {k: str(pinned[f"model/{k}"]) for k in KINDS if f"model/{k}" in pinned}
        drawn: dict[str, Any] = {}
        for key in _ordered(self.model):
            node = self.model.children[key]
            if key in KINDS:
                node = self._narrow(str(key), node, names)
            at: Keys = ("model", key)
            drawn[str(key)] = resolve(node, f"model/{key}", pick, origin, at)
            if key in KINDS:
                names[str(key)] = drawn[str(key)]["name"]
        return drawn

    def _narrow(self, kind: str, node: Node, names: Mapping[str, str]) -> Node:
        """A part's choice without the options that do not fit what is drawn already."""
        if not isinstance(node, Choice):
            return node
        offered = self.fits.offered(kind, names)
        if not offered:
            raise InputError(Problem(self.document.where(node.keys), self.fits.why_not(names)))
        if len(offered) == len(node.options):
            return node
        before = [other for other in KINDS[: KINDS.index(kind)] if other not in names]
        return node.only(offered, "" if before else self.fits.suffix(kind, names))

    def _draw_preset(
        self, presets: Choice, pick: Pick, origin: dict[Keys, Keys]
    ) -> tuple[dict[str, Any], Group, str]:
        """A preset's model; what it says of the training, and the path of that."""
        label = pick(PRESET, presets)
        path, own = below(PRESET, label), cast(Group, presets.option(label).node)
        drawn: dict[str, Any] = {"preset": str(label)}
        for key in (name for name in self.model.children if name != "preset"):
            node = self.model.children[key]
            drawn[key] = resolve(node, f"model/{key}", pick, origin, ("model", key))
        for key in (name for name in own.children if name not in ("name", "train")):
            drawn[key] = resolve(own.children[key], f"{path}/{key}", pick, origin, ("model", key))
        return drawn, cast(Group, own.children["train"]), f"{path}/train"

    def _draw_train(
        self, tree: Group, path: str, pick: Pick, model: ModelConfig, origin: dict[Keys, Keys]
    ) -> dict[str, Any]:
        """The training's settings; a language model's learning rate only where there is one."""
        children = dict(tree.children)
        rate = children.get(ENCODER_RATE)
        if rate is not None and searched(rate) and not reads_states(model, self.text):
            del children[ENCODER_RATE]
        return {
            key: resolve(child, f"{path}/{key}", pick, origin, ("train", key))
            for key, child in children.items()
        }

    @property
    def text(self) -> tuple[str, ...]:
        """The data set's default text attributes."""
        return tuple(self.dataset_config.text)

    @cached_property
    def covering(self) -> Cover:
        """The covering set, and what no valid configuration holds."""
        from legoray.search.cover import cover

        return cover(self)

    def corners(self) -> list[TrialConfig]:
        """A small covering set: every option, and both ends of every range, at least once."""
        return list(self.covering.configs)

    def recipes(self) -> list[Recipe]:
        """What the space's content operators may read, as far as it can be listed beforehand."""
        from legoray.search.cover import content_settings

        found = {
            leaf
            for settings in content_settings(self)
            for leaf in leaves(recipe_of(settings, self.text))
        }
        return sorted(found, key=repr)


def suggest(trial: Any, path: str, node: Choice | Range) -> Scalar:
    """One value from Optuna."""
    if isinstance(node, Choice):
        name = f"{path}@{node.suffix}" if node.suffix else path
        return cast(Scalar, trial.suggest_categorical(name, node.labels()))
    if node.kind == "int":
        step = int(node.step or 1)
        return cast(int, trial.suggest_int(path, node.low, node.high, step=step, log=node.log))
    return cast(float, trial.suggest_float(path, node.low, node.high, step=node.step, log=node.log))


def check_model(model: dict[str, Any], document: Document) -> ModelConfig:
    """A drawn model with every part's defaults filled in, once it is known to be valid.

    Raises:
        InputError: a part's settings are wrong, or the parts do not go together.
    """
    from legoray.model.compose import check
    from legoray.model.registry import parse_part

    parts: dict[str, Any] = {}
    for kind in KINDS:
        settings = parse_part(kind, model[kind], document=document, at=("model", kind))[1]
        parts[kind] = {"name": model[kind]["name"], **settings.model_dump()}
    config = build(ModelConfig, {**model, **parts}, document, ("model",))
    problems = check(config, document, ("model",))
    if problems:
        raise InputError(*problems)
    return config


def check_train(train: dict[str, Any], document: Document) -> TrainConfig:
    """Drawn settings of the training, once they are known to go together.

    Raises:
        InputError: they do not.
    """
    from legoray.train import losses

    config = build(TrainConfig, train, document, ("train",))
    problems = losses.check_train(config, document.where(("train",)))
    if problems:
        raise InputError(*problems)
    return config


def recipe_of(content: Mapping[str, Any], text: tuple[str, ...]) -> Recipe:
    """What a content operator with these settings reads of an item."""
    from legoray.model.registry import parse_part

    cls, settings = parse_part("content", dict(content))
    try:
        found = cast(Any, cls).recipe(settings, text)
    except Exception as error:
        if isinstance(error, InputError) or cls.__module__.startswith("legoray."):
            raise
        message = f"the recipe of '{content['name']}' raises {type(error).__name__}: {error}"
        raise InputError(Problem("model.content", message)) from None
    if not isinstance(found, Recipe):
        message = f"'{content['name']}' gives {found!r} as its recipe"
        hint = "expected one of legoray.data.recipes, such as TokenRecipe"
        raise InputError(Problem("model.content", message, hint))
    return cast(Recipe, found)


def reads_states(model: ModelConfig, text: tuple[str, ...]) -> bool:
    """Whether a language model is, or is a part of, the content operator."""
    return any(isinstance(leaf, StateRecipe) for leaf in leaves(recipe_of(model.content, text)))


def key_of(config: Mapping[str, Any]) -> str:
    """A hash that two trials share exactly when they train the same model in the same way."""
    return digest(config)


def read_space(path: str | Path) -> Space:
    """Read and check a search space.

    Raises:
        InputError: with every mistake of the file, each with its line and path.
    """
    from legoray.search.reading import read

    return read(Path(path))


def _ordered(model: Group) -> list[str | int]:
    """A model's keys with the parts last, in the order in which they are drawn."""
    rest = [key for key in model.children if key not in KINDS]
    return [*rest, *(kind for kind in KINDS if kind in model.children)]
