"""Several workers train as one: gradients are summed over all of them before each step.

This is distributed data parallel training with one buffer for all gradients, in place of torch's
wrapper, for two reasons. Every worker takes part in every step whatever happened in its own: it
may have no sample, run out of memory, or have parameters that its samples do not touch, and the
others neither hang nor fail. And the loss travels in the same buffer: all workers see the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch import distributed as dist


class Gradients:
    """The gradients of all trained parameters: views of one flat tensor per dtype, or sparse.

    Those of large tables, which backward gives as rows, stay rows.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        world: int = 1,
        rows: Sequence[nn.Parameter] = (),
    ) -> None:
        """Take all trained parameters; `rows` are those of them whose gradients are sparse."""
        self._world = world
        device = parameters[0].device
        self._sparse = rows
        sparse = {id(p) for p in rows}
        dense = [p for p in parameters if id(p) not in sparse]
        kinds = dict.fromkeys([torch.float32, *(p.dtype for p in dense)])
        self._flat: list[Tensor] = []
        self._gradients: list[Tensor] = []
        for dtype in kinds:
            own = [p for p in dense if p.dtype == dtype]
            size = sum(p.numel() for p in own)
            extra = 2 if dtype == torch.float32 else 0
            flat = torch.zeros(size + extra, dtype=dtype, device=device)
            sizes = [p.numel() for p in own]
            for parameter, view in zip(own, flat[:size].split(sizes), strict=True):
                parameter.grad = view.view_as(parameter)
            self._flat.append(flat)
            self._gradients.append(flat[:size])
        self.loss, self._failed = self._flat[0][-2], self._flat[0][-1]

    def clear(self) -> None:
        """Start a step: all gradients and the loss are 0."""
        for flat in self._flat:
            flat.zero_()
        for parameter in self._sparse:
            parameter.grad = None

    def sum_over_workers(self, *, failed: bool) -> bool:
        """Add up gradients and loss; whether the step failed on any worker."""
        if failed:
            self.clear()
        for parameter in self._sparse:
            parameter.grad = self._rows_of_all(parameter)
        if self._world == 1:
            return failed
        self._failed.fill_(float(failed))
        for flat in self._flat:
            dist.all_reduce(flat)
        return bool(self._failed > 0)

    def _rows_of_all(self, parameter: nn.Parameter) -> Tensor | None:
        """The sum over all workers of a sparse gradient, each row once; None without any."""
        own = None if parameter.grad is None else parameter.grad.coalesce()
        if self._world == 1:
            return own
        touched = torch.zeros(len(parameter), dtype=torch.uint8, device=parameter.device)
        if own is not None:
            touched[own.indices()[0]] = 1
        dist.all_reduce(touched, dist.ReduceOp.MAX)
        rows = touched.nonzero().flatten()
        values = parameter.new_zeros(len(rows), parameter.shape[1])
        if own is not None:
            values[torch.searchsorted(rows, own.indices()[0])] = own.values()
        dist.all_reduce(values)
        return torch.sparse_coo_tensor(rows[None], values, parameter.shape, is_coalesced=True)

    def clip(self, limit: float) -> None:
        """Scale all gradients so that their joint norm is at most `limit`."""
        sparse = [p.grad.values() for p in self._sparse if p.grad is not None]
        gradients = [*self._gradients, *sparse]
        norms = torch.stack([gradient.norm().float() for gradient in gradients])
        scale = (limit / (norms.norm() + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(scale.to(gradient.dtype))


def same_start(parameters: Sequence[nn.Parameter], world: int) -> None:
    """Give all workers the first one's weights."""
    if world > 1:
        for parameter in parameters:
            dist.broadcast(parameter.data, src=0)


class FirstFailed(RuntimeError):
    """The first worker failed at something that it did alone, and tells of it itself."""


def first_alone(work: Callable[[], bool], rank: int, world: int) -> bool:
    """Let the first worker alone do something, and tell all of them what came of it.

    Raises:
        FirstFailed: the first worker failed; there, its own error is raised.
    """
    done: list[bool | str] = [False]
    failure: BaseException | None = None
    if rank == 0:
        try:
            done[0] = work()
        except BaseException as error:
            failure, done[0] = error, f"{type(error).__name__}: {error}"
    if world > 1:
        dist.broadcast_object_list(done, src=0)
    if failure is not None:
        raise failure
    if isinstance(done[0], str):
        raise FirstFailed(f"the first worker failed: {done[0]}")
    return bool(done[0])
