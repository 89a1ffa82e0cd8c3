"""What of a language model's upper layers is trained: adapters, the layers themselves, or nothing.

`lora` trains adapters in them (`legoray.llm.lora`), `full` every weight above the split, the final
norm included, `head` leaves them as they are. The embeddings and the layers below the split are
frozen always: their results are stored and never computed again. So is what all layers share, such
as MPNet's and DeBERTa's tables of relative positions: changed, it would be another's below.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Literal

from torch import nn

from legoray.llm.split import layer_path, lower_view

Tune = Literal["lora", "full", "head"]
_FLOATS = ("float32", "bfloat16")


def tuning_problem(tune: Tune | None, precision: str) -> str | None:
    """Why weights of this precision cannot be trained so, if they cannot."""
    if tune != "full" or precision in _FLOATS:
        return None
    return (
        f"tune full does not work on {precision} weights, which are rounded and have no gradient: "
        f"take {' or '.join(_FLOATS)}, or adapters (tune: lora)"
    )


def unfreeze(view: nn.Module, shared: Set[str]) -> None:
    """Train the weights of a view that belongs to one operator alone, in float32, in place.

    Small steps would be lost in bfloat16; `legoray.llm.bfloat` computes in it.

    Args:
        view: an upper view.
        shared: names of those that stay as they are.
    """
    for name, parameter in view.float().named_parameters():
        parameter.requires_grad_(name not in shared)


def shared_weights(model: nn.Module, layers: int, first: int) -> set[str]:
    """The names of what layers from `first` on share with those below, of a model of `layers`."""
    if first == 0:
        return set()
    below = lower_view(model, layers, first)
    own = ".".join(layer_path(below, first)) + "."
    return {name for name, _ in below.named_parameters() if not name.startswith(own)}


def own_weights(view: nn.Module, count: int, first: int) -> dict[str, nn.Parameter]:
    """A view's trained parameters, by their names in the whole model.

    Args:
        view: an upper view of `count` layers (`legoray.llm.split`).
        count: see there.
        first: which layer of the whole model the view's first one is.
    """
    layers = ".".join(layer_path(view, count)) + "."
    found = {}
    for name, parameter in view.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith(layers):
            number, _, rest = name.removeprefix(layers).partition(".")
            name = f"{layers}{int(number) + first}.{rest}"
        found[name] = parameter
    return found
