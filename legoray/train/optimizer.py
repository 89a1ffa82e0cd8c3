"""AdamW with a learning rate of its own for the language model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from legoray.config import TrainConfig
from legoray.errors import InfeasibleError
from legoray.model.recommender import Recommender
from legoray.train.rows import RowAdamW, row_tables

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


class Optimizer:
    """AdamW over everything that is trained; without weight decay it is Adam.

    Large tables of items or users are stepped row by row (`legoray.train.rows`).
    """

    def __init__(self, dense: torch.optim.Optimizer | None, tables: Mapping[int, RowAdamW]) -> None:
        self._dense = dense
        self._tables = tables  # by the identity of their weight
        self.sparse = [table.weight for table in tables.values()]  # whose gradients are rows

    def step(self) -> None:
        """One step with the gradients that are there."""
        if self._dense is not None:
            self._dense.step()
        for table in self._tables.values():
            table.step()

    def settle(self) -> None:
        """Make the moves that were put off: after it all weights are as they are read."""
        for table in self._tables.values():
            table.settle()

    def state(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        """Copies of the state on the CPU, as `<parameter>/<what>`; empty before the first step."""
        return {
            f"{name}/{key}": value.detach().to("cpu", copy=True).contiguous()
            for name, parameter in parameters.items()
            for key, value in self._state(parameter).items()
            if key in KEPT
        }

    def _state(self, parameter: nn.Parameter) -> Mapping[str, Tensor]:
        table = self._tables.get(id(parameter))
        if table is not None:
            return table.state()
        return {} if self._dense is None else self._dense.state.get(parameter, {})

    def load(self, parameters: Mapping[str, nn.Parameter], state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave.

        Raises:
            KeyError: a parameter's state is missing.
        """
        for name, parameter in parameters.items():
            own = {key: state[f"{name}/{key}"] for key in KEPT}
            if id(parameter) in self._tables:
                self._tables[id(parameter)].load(own)
            elif self._dense is not None:
                self._dense.state[parameter] = {
                    key: value.to(parameter.device, copy=True) for key, value in own.items()
                }


def build_optimizer(recommender: Recommender, config: TrainConfig) -> Optimizer:
    """A new one.

    `encoder_learning_rate` is for what the content operator names in `encoder_parameters()`.
    Weight decay leaves out biases and the like (all that has one dimension).
    """
    listed = getattr(recommender.content, "encoder_parameters", None)
    encoder = {id(parameter) for parameter in listed()} if listed else set()
    rates = (config.learning_rate, config.encoder_learning_rate or config.learning_rate)
    trained = list(trained_parameters(recommender).values())
    # a compiled forward cannot be told which rows it is about to read
    large = {} if config.compile else row_tables(recommender, trained)
    tables: dict[int, RowAdamW] = {}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in trained:
        decay = config.weight_decay if parameter.ndim > 1 else 0.0
        rate = rates[id(parameter) in encoder]
        if id(parameter) in large:
            tables[id(parameter)] = RowAdamW(large[id(parameter)], rate=rate, decay=decay)
        else:
            groups.setdefault((rate, decay), []).append(parameter)
    rest = [{"params": p, "lr": rate, "weight_decay": d} for (rate, d), p in groups.items()]
    return Optimizer(torch.optim.AdamW(rest, fused=True) if rest else None, tables)
