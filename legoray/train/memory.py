"""What a training takes of memory, and what running out of it looks like."""

from __future__ import annotations

import contextlib
import gc
import resource
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from legoray.errors import InfeasibleError

T = TypeVar("T")
MIB = 2**20


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on the device or on the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text or "out of memory" in text
    )


def release(device: torch.device) -> None:
    """Give back what the failed attempt held."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def within_memory(work: Callable[[int], T], budget: int, device: torch.device) -> T:
    """`work(budget)`, again with a quarter of the budget whenever memory runs out.

    Raises:
        InfeasibleError: it runs out with a budget of 1, which means one row at a time.
    """
    while budget:
        try:
            return work(budget)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        budget //= 4
        release(device)
    raise InfeasibleError("out of memory in evaluation, with one row at a time")


class PeakMemory:
    """The most memory that is held from now on: on the device, or by this process on a CPU.

    Where the system cannot restart its count for a process, it is the peak since its start.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def mib(self) -> float:
        """MiB at most so far."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / MIB
        with contextlib.suppress(OSError, StopIteration, ValueError):
            lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
            return int(next(x for x in lines if x.startswith("VmHWM")).split()[1]) / 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
