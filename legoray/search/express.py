"""A configuration from elsewhere said in a space's own parameters, if the space can say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from legoray.errors import InputError
from legoray.search.space import PRESET, Space, suggest
from legoray.search.tree import Choice, Const, Range, Scalar, same, text_of
from legoray.zoo.fields import flatten


class NotInSpaceError(Exception):
    """Why a configuration cannot be said, in a few words."""


@dataclass
class Expressed:
    """Optuna's parameters of a configuration, with what they were drawn from."""

    params: dict[str, Scalar] = field(default_factory=dict)
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)


def express(space: Space, config: Mapping[str, Any], *, exactly: bool) -> Expressed:
    """The parameters that make a space draw a configuration.

    Args:
        space: whose parameters they are.
        config: a `TrialConfig` as plain data.
        exactly: whether what the space fixes must be as in `config`, its seed and its list of
            metrics aside; otherwise the searched values alone count.

    Raises:
        NotInSpaceError: the space cannot draw it.
    """
    teller = _Teller(config)
    try:
        drawn = space.draw(teller.pick).model_dump()
    except InputError as error:
        raise NotInSpaceError(error.problems[0].message) from None
    if exactly:
        _check_same(drawn, config)
    return teller.told


def _check_same(drawn: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    ours, theirs = (
        dict(flatten({"model": c["model"], "train": c["train"]})) for c in (drawn, config)
    )
    ours.pop("model.preset", None)
    theirs.pop("model.preset", None)
    for name in sorted({*ours, *theirs}):
        if ours.get(name) != theirs.get(name):
            there, here = theirs.get(name, "absent"), ours.get(name, "absent")
            raise NotInSpaceError(f"{name} is {there} there and {here} here")


class _Teller:
    """Answers a space that draws with what a configuration has, and notes what was asked."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self.told = Expressed()
        self._value: Scalar = ""

    def pick(self, path: str, node: Choice | Range) -> Scalar:
        """The configuration's value of a parameter."""
        place = place_of(path)
        found = _at(self._config, place)
        name = ".".join(place)
        if isinstance(node, Choice):
            self._value = _label(node, found, name)
        elif node.contains(found):
            self._value = cast(Scalar, found)
        else:
            span = f"{text_of(node.low)} to {text_of(node.high)}"
            raise NotInSpaceError(f"{name} is {found!r}, which is not in {span}")
        if isinstance(node, Range) and node.moved:
            share = node.share(cast(float, self._value))
            suggest(_Fixed(self, share), path, node)
        else:
            suggest(_Fixed(self, self._value), path, node)
        return self._value

    def note(self, name: str, value: Scalar, distribution: BaseDistribution) -> Scalar:
        self.told.params[name] = value
        self.told.distributions[name] = distribution
        return value


@dataclass(frozen=True)
class _Fixed:
    """Stands for Optuna's trial: gives one value, and notes its distribution."""

    teller: _Teller
    value: Any

    def suggest_categorical(self, name: str, choices: Any) -> Scalar:
        return self.teller.note(name, self.value, CategoricalDistribution(choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> Scalar:
        return self.teller.note(name, self.value, IntDistribution(low, high, log=log, step=step))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> Scalar:
        found = FloatDistribution(float(low), float(high), log=log, step=step)
        return self.teller.note(name, float(self.value), found)


def place_of(path: str) -> tuple[str, ...]:
    """Where a parameter's value stands in a configuration: `("model", "content", "heads")`.

    A preset's own settings stand where those of any model do.
    """
    keys = tuple(part.partition(".")[0] for part in path.split("/"))
    preset = tuple(PRESET.split("/"))
    if keys[: len(preset)] != preset or keys == preset:
        return keys
    own = keys[len(preset) :]
    return own if own[0] == "train" else ("model", *own)


def _at(config: Any, place: tuple[str, ...]) -> Any:
    """What stands at a place; None where there is nothing."""
    for key in place:
        if isinstance(config, Mapping):
            config = config.get(key)
        elif isinstance(config, list) and key.isdigit() and int(key) < len(config):
            config = config[int(key)]
        else:
            return None
    return config


def _label(node: Choice, found: Any, name: str) -> Scalar:
    """The label of the option that a value is."""
    wanted = found.get("name") if isinstance(found, Mapping) else found
    for option in node.options:
        value = option.node.value if isinstance(option.node, Const) else option.label
        if value == found or same(option.label, wanted):
            return option.label
    raise NotInSpaceError(f"{name} is {wanted!r}, which is no option here")
