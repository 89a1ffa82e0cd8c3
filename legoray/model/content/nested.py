"""Operators that are made of other content operators: their settings, sizes, and what is saved."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from legoray.errors import InputError
from legoray.llm.lora import copy_into
from legoray.model.base import Shape
from legoray.model.registry import parse_part


def nested_problems(settings: dict[str, Any], hidden_size: int, where: str) -> list[str]:
    """What is wrong with a nested content operator's settings, its own checks included."""
    try:
        part, config = parse_part("content", settings, where)
    except InputError as error:
        return [str(problem) for problem in error.problems]
    ask = getattr(part, "problems", None)
    return [f"{where}: {text}" for text in ask(config, hidden_size)] if ask else []


def nested_part(settings: dict[str, Any], shape: Shape, place: int) -> nn.Module:
    """A new content operator for the input number `place` of several."""
    part, config = parse_part("content", settings)
    operator: nn.Module = part(config, dataclasses.replace(shape, input=shape.input.parts[place]))
    return operator


def saved_state(whole: nn.Module, parts: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The state of a module whose submodules `parts` may have their own say in what is saved.

    What several submodules share is in it once.
    """
    state = _own_state(whole, parts)
    for name, part in _special(parts).items():
        own: dict[str, Tensor] = part.saved_state()
        state |= {f"{name}.{key}": value for key, value in own.items()}
    return state


def load_saved_state(
    whole: nn.Module, parts: Mapping[str, nn.Module], state: dict[str, Tensor]
) -> None:
    """Put back what `saved_state` gave.

    Raises:
        ValueError: names or shapes are not this module's.
    """
    rest = dict(state)
    for name, part in _special(parts).items():
        prefix = f"{name}."
        part.load_saved_state(
            {key.removeprefix(prefix): rest.pop(key) for key in state if key.startswith(prefix)}
        )
    copy_into(_own_state(whole, parts), rest)


def encoder_parameters(parts: Mapping[str, nn.Module]) -> list[nn.Parameter]:
    """What the parts name as a language model's own, for a learning rate of its own."""
    listed = [getattr(part, "encoder_parameters", list) for part in parts.values()]
    return [parameter for own in listed for parameter in own()]


def _special(parts: Mapping[str, nn.Module]) -> dict[str, Any]:
    """The parts that say themselves what is saved of them."""
    return {name: part for name, part in parts.items() if hasattr(part, "saved_state")}


def _own_state(whole: nn.Module, parts: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Parameters and buffers, those of special parts aside."""
    outside = tuple(f"{name}." for name in _special(parts))
    named = [*whole.named_parameters(), *whole.named_buffers()]
    return {name: value.detach() for name, value in named if not name.startswith(outside)}
