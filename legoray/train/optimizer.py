"""AdamW with a learning rate of its own for the language model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from legoray.config import TrainConfig
from legoray.errors import InfeasibleError
from legoray.model.recommender import Recommender

KEPT = ("step", "exp_avg", "exp_avg_sq")


def trained_parameters(recommender: Recommender) -> dict[str, nn.Parameter]:
    """What is trained, by name."""
    return {name: p for name, p in recommender.named_parameters() if p.requires_grad}


def check_trained(recommender: Recommender) -> dict[str, nn.Parameter]:
    """`trained_parameters`, if there are any.

    Raises:
        InfeasibleError: there are none.
    """
    found = trained_parameters(recommender)
    if not found:
        raise InfeasibleError("the model has nothing to train: all of its weights are frozen")
    return found


def build_optimizer(recommender: Recommender, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over everything that is trained; without weight decay it is Adam.

    `encoder_learning_rate` is for what the content operator names in `encoder_parameters()`.
    Weight decay leaves out biases and the like (all that has one dimension).
    """
    listed = getattr(recommender.content, "encoder_parameters", None)
    encoder = {id(parameter) for parameter in listed()} if listed else set()
    rates = (config.learning_rate, config.encoder_learning_rate or config.learning_rate)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in trained_parameters(recommender).values():
        decay = config.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rates[id(parameter) in encoder], decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": p, "lr": rate, "weight_decay": decay} for (rate, decay), p in groups.items()],
        fused=True,
    )


def optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Copies of the state on the CPU, as `<parameter>/<what>`; empty before the first step."""
    return {
        f"{name}/{key}": value.detach().to("cpu", copy=True).contiguous()
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
        if key in KEPT
    }


def load_optimizer_state(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    state: Mapping[str, Tensor],
) -> None:
    """Put back what `optimizer_state` gave.

    Raises:
        KeyError: a parameter's state is missing.
    """
    for name, parameter in parameters.items():
        optimizer.state[parameter] = {
            key: state[f"{name}/{key}"].to(parameter.device, copy=True) for key in KEPT
        }
