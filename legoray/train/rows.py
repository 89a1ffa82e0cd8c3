"""AdamW for tables of which a step reads a few rows: the others are brought up to date when read.

A step of plain AdamW writes every row, also those without a gradient: their moments decay, and they
go on moving by what is left of them. So a step's time grows with the number of items. Here such
moves are put off until a row is read or the epoch ends, and are then made at once by a closed form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from legoray.model.layers import RowTable

LEAST = 2**14  # rows; a smaller table is written as a whole in less time
_AT_ONCE = 2**16  # rows that are brought up to date at once when all of them are
Float = NDArray[np.float64]


class RowAdamW:
    """AdamW over one table, row by row.

    What comes out is torch's AdamW but for rounding, with one exception: moves without a gradient,
    `sum_j w_j m / (sqrt(v) b_j + eps)`, are `A m / (sqrt(v) A / H + eps)` with `A = sum_j w_j` and
    `H = sum_j w_j / b_j`. That is exact where sqrt(v) is far above eps (1e-8) or far below it; in
    between, the b_j (which lie close together after the first steps) count as one.
    """

    def __init__(
        self,
        table: RowTable,
        *,
        rate: float,
        decay: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        assert isinstance(table.weight, nn.Parameter)
        self.weight = table.weight
        self._rate, self._shrink, self._betas, self._eps = rate, 1 - rate * decay, betas, eps
        self._first = torch.zeros_like(self.weight)
        self._second = torch.zeros_like(self.weight)
        self._at = torch.zeros(len(self.weight), dtype=torch.int64)  # the step a row is up to
        self._step = 0
        table.before = self.catch_up

    @torch.no_grad()
    def catch_up(self, rows: Tensor) -> None:
        """Make the moves of some rows (in any shape, repeated or not) that were put off."""
        rows = rows.flatten()
        rows = rows[self._at[rows] < self._step]
        if not len(rows):
            return
        rows = rows.unique()
        for some in rows.split(_AT_ONCE):
            self._move(some)

    def _move(self, rows: Tensor) -> None:
        gap = self._step - self._at[rows]
        scales = _put_off(self._step, int(gap.max()), self._betas, self._shrink)
        moved, spread, kept, first, second = (
            torch.from_numpy(values).float()[gap].unsqueeze(1) for values in scales
        )
        mean, square = self._first[rows], self._second[rows]
        change = self._rate * moved * mean / (square.sqrt() * spread + self._eps)
        self.weight[rows] = self.weight[rows] * kept - change
        self._first[rows], self._second[rows] = mean * first, square * second
        self._at[rows] = self._step

    @torch.no_grad()
    def step(self) -> None:
        """One step with the weight's sparse gradient, or without any."""
        gradient = self.weight.grad
        rows = torch.zeros(0, dtype=torch.int64)
        if gradient is not None:
            gradient = gradient.coalesce()
            rows = gradient.indices()[0]
            self.catch_up(rows)
        self._step += 1
        if gradient is None:
            return
        one, two = self._betas
        mean = self._first[rows].lerp(gradient.values(), 1 - one)
        square = (
            self._second[rows]
            .mul_(two)
            .addcmul_(gradient.values(), gradient.values(), value=1 - two)
        )
        self._first[rows], self._second[rows] = mean, square
        spread = square.sqrt().div_(math.sqrt(1 - two**self._step)).add_(self._eps)
        change = mean.div_(spread).mul_(self._rate / (1 - one**self._step))
        self.weight[rows] = self.weight[rows] * self._shrink - change
        self._at[rows] = self._step

    def settle(self) -> None:
        """Bring all rows up to date."""
        self.catch_up(torch.arange(len(self.weight)))

    def state(self) -> dict[str, Tensor]:
        """The state as torch's AdamW has it, after `settle`; empty before the first step."""
        if not self._step:
            return {}
        self.settle()
        step = torch.tensor(float(self._step))
        return {"step": step, "exp_avg": self._first, "exp_avg_sq": self._second}

    def load(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` gave."""
        self._step = int(state["step"])
        self._first.copy_(state["exp_avg"])
        self._second.copy_(state["exp_avg_sq"])
        self._at.fill_(self._step)


def _put_off(
    step: int, longest: int, betas: tuple[float, float], shrink: float
) -> tuple[Float, Float, Float, Float, Float]:
    """What becomes of a row that had no gradient in the last n steps, for n of 0 to `longest`.

    Returns:
        Per n: `A`, `A / H`, and by what the weight and both moments are multiplied.
    """
    one, two = betas
    n = np.arange(1, longest + 1)
    number = step - n + 1.0  # of the first step without a gradient
    bias, later = 1 - one**number, np.sqrt(1 - two**number)
    # A_n = sum_j one^j shrink^(n - j) / bias_j: its first term, and all others as those of n - 1
    moved = _decayed(shrink ** (n - 1.0) / bias, one)
    harmonic = _decayed(shrink ** (n - 1.0) * later / bias, one / math.sqrt(two))
    spread = moved / harmonic
    powers = np.arange(longest + 1.0)
    zero, unit = np.zeros(1), np.ones(1)
    return (
        np.concatenate([zero, moved]),
        np.concatenate([unit, spread]),
        shrink**powers,
        one**powers,
        two**powers,
    )


def _decayed(values: Float, factor: float) -> Float:
    """`y_n = factor (x_n + y_(n-1))`."""
    from scipy.signal import lfilter

    result: Float = lfilter([factor], [1.0, -factor], values)
    return result


def row_tables(model: nn.Module, parameters: Sequence[nn.Parameter]) -> dict[int, RowTable]:
    """The large tables of a model on a CPU that are trained, by the identity of their weight."""
    trained = {id(parameter) for parameter in parameters}
    return {
        id(module.weight): module
        for module in model.modules()
        if isinstance(module, RowTable)
        and module.num_embeddings >= LEAST
        and module.weight.device.type == "cpu"
        and id(module.weight) in trained
    }
