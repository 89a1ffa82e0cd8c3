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

from legoray.config import DatasetConfig, ModelConfig, TrainConfig, TrialConfig, build
from legoray.data.recipes import Recipe, StateRecipe, leaves
from legoray.errors import InputError, Problem
from legoray.records import digest
from legoray.search.draw import Draw
from legoray.search.fits import Fits, part_names
from legoray.search.formula import Formula
from legoray.search.notation import KINDS
from legoray.search.places import PRESET
from legoray.search.tree import END, Choice, Group, Moved, Node, Pick, Range, Scalar, below
from legoray.search.walk import atoms, dependent
from legoray.spaceconfig import SpaceConfig
from legoray.yamlfile import Document, Keys

if TYPE_CHECKING:
    from legoray.search.cover import Cover

SHARE = "@share"  # of the way through a range that other values move, as the sampler's parameter


class Rejected(Exception):
    """A drawn configuration that is not valid; the message says why."""

    def __init__(self, message: str, picked: Mapping[str, Scalar] | None = None) -> None:
        super().__init__(message)
        self.picked = dict(picked or {})


@dataclass(frozen=True)
class Condition:
    """One line of `where`."""

    formula: Formula
    keys: Keys


@dataclass(frozen=True)
class Space:
    """A checked search space."""

    config: SpaceConfig
    document: Document
    dataset: Path
    dataset_config: DatasetConfig
    model: Group
    train: Group
    where: tuple[Condition, ...] = ()
    several: bool = False  # whether its file names a list of data sets, of which this is one

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
        of_parts = [c.formula for c in self.where] if self.presets is None else []
        return Fits({kind: tuple(dict.fromkeys(found)) for kind, found in names.items()}, of_parts)

    @cached_property
    def params(self) -> tuple[str, ...]:
        """The paths of everything that is searched."""
        found = (atom.path for tree in self.trees().items() for atom in atoms(tree[1], tree[0]))
        return tuple(dict.fromkeys(path.removesuffix(END) for path in found))

    @cached_property
    def moved(self) -> frozenset[str]:
        """The paths of the ranges that other values move."""
        found = (pair for path, tree in self.trees().items() for pair in dependent(tree, path))
        return frozenset(path for path, node in found if isinstance(node, Moved))

    def trees(self) -> dict[str, Group]:
        return {"model": self.model, "train": self.train}

    def sample(self, trial: Any) -> dict[str, Any]:
        """One trial's configuration, every value of it suggested by an Optuna trial.

        Raises:
            Rejected: values that are valid one by one do not go together.
        """
        return self.propose(trial)[0]

    def propose(self, trial: Any) -> tuple[dict[str, Any], dict[str, Scalar]]:
        """As `sample`, and what was picked for it, by path.

        Raises:
            Rejected: values that are valid one by one do not go together, or a condition does not
                hold; it has what was picked up to there.
        """
        draw = Draw(self, lambda path, node: suggest(trial, path, node), {})
        try:
            return draw.config().model_dump(), draw.picked
        except InputError as error:
            told = "; ".join(p.message for p in error.problems)
            raise Rejected(told, draw.picked) from None

    def draw(self, pick: Pick, pinned: Mapping[str, Scalar] | None = None) -> TrialConfig:
        """A configuration whose searched values `pick` chooses.

        Args:
            pick: called with a parameter's path and its node, once for each.
            pinned: paths that `pick` will answer in a known way; parts are then offered only if
                they fit the pinned ones.

        Raises:
            InputError: the values drawn do not go together; places are those of the space's file.
        """
        return Draw(self, pick, pinned or {}).config()

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
        from legoray.search.contents import content_settings

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
    if node.moved:  # the sampler sees a share of the way, whose own ends never move
        return node.at(trial.suggest_float(f"{path}{SHARE}", 0.0, 1.0, step=None, log=False))
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


def content_reads_states(content: Mapping[str, Any], text: tuple[str, ...]) -> bool:
    """Whether a content operator with these settings is, or holds, a language model."""
    return any(isinstance(leaf, StateRecipe) for leaf in leaves(recipe_of(content, text)))


def key_of(config: Mapping[str, Any]) -> str:
    """A hash that two trials share exactly when they train the same model in the same way."""
    return digest(config)


def read_space(path: str | Path) -> Space:
    """Read and check a search space; of one on several data sets, the first.

    Raises:
        InputError: with every mistake of the file, each with its line and path.
    """
    return read_spaces(path)[0]


def read_spaces(path: str | Path) -> list[Space]:
    """As `read_space`, one for each data set that the file names.

    Raises:
        InputError: with every mistake of the file, each with its line and path.
    """
    from legoray.search.reading import read

    return read(Path(path))
