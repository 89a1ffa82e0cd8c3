"""What of a language model's upper layers is trained: adapters, the layers themselves, or nothing.

`lora` trains adapters in them (`legoray.llm.lora`), `full` every weight above the split, the final
norm included, `head` leaves them as they are. The embeddings and the layers below the split are
frozen always: their results are stored and never computed again.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from legoray.llm.split import layer_path

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


def unfreeze(view: nn.Module) -> None:
    """Train all weights of a view that belongs to one operator alone, in float32, in place.

    Small steps would be lost in bfloat16; `legoray.llm.bfloat` computes in it.
    """
    view.float().requires_grad_(True)


def own_weights(view: nn.Module, count: int, first: int) -> dict[str, nn.Parameter]:
    """A view's parameters, by their names in the whole model.

    Args:
        view: an upper view of `count` layers (`legoray.llm.split`).
        count: see there.
        first: which layer of the whole model the view's first one is.
    """
    layers = ".".join(layer_path(view, count)) + "."
    found = {}
    for name, parameter in view.named_parameters():
        if name.startswith(layers):
            number, _, rest = name.removeprefix(layers).partition(".")
            name = f"{layers}{int(number) + first}.{rest}"
        found[name] = parameter
    return found
