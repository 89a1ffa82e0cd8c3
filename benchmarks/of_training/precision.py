"""bfloat16 against float32, and torch.compile with the step from which on it pays."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from of_training.common import Data, data_of, fastest, opened, table
from of_training.world import MODELS, Size, model_config, trial

BATCH, STEPS = 256, 2


def run(folder: Path, *, full: bool) -> dict[str, float]:
    """Print both tables; name of a ratio -> value."""
    data = data_of(folder, Size() if full else Size(impressions=20_000))
    found, rows = {}, []
    for name in MODELS if full else ("naml", "nrms", "dcn-text"):
        for hidden in (64, 256) if full else (64,):
            exact, rough, losses = compare(data, name, hidden, precision="bfloat16")
            found[f"bfloat16/{name}/{hidden}"] = exact / rough
            rows.append([name, str(hidden), f"{exact / rough:.2f}", *losses])
    head = ["model", "D", "x in bfloat16", "loss, float32", "loss, bfloat16"]
    table("Training steps in bfloat16 against float32", head, rows)
    rows = []
    for name in MODELS if full else ("dcn-text",):
        row, ratio = compiled(data, name)
        found[f"compile/{name}"] = ratio
        rows.append(row)
    head = ["model", "seconds to compile", "x per step", "pays after so many steps"]
    table("torch.compile", head, rows)
    return found


def _steps(data: Data, name: str, hidden: int, **train: object) -> Callable[[], torch.Tensor]:
    own = opened(data, trial(model_config(name, hidden), BATCH, **train))
    runner = own.runner()
    torch.manual_seed(0)
    return lambda: runner.steps(own.samples, 1, 0, STEPS)


def compare(data: Data, name: str, hidden: int, **train: object) -> tuple[float, float, list[str]]:
    """Processor seconds of float32 and of another way, and both losses after the same steps."""
    works = [_steps(data, name, hidden), _steps(data, name, hidden, **train)]
    first, second = fastest(4, *works)
    return first, second, [f"{float(work()[-1]):.4f}" for work in works]


def compiled(data: Data, name: str) -> tuple[list[str], float]:
    """A row of the second table, and how many times as fast a step is."""
    plain, quick = _steps(data, name, 64), _steps(data, name, 64, compile=True)
    began = time.process_time() + _children()
    quick()
    quick()
    spent = time.process_time() + _children() - began
    first, second = fastest(4, plain, quick)
    spent = max(spent - 2 * second, 0.0)
    gain = (first - second) / STEPS
    pays = f"{spent / gain:,.0f}" if gain > 0 else "never"
    return [name, f"{spent:.1f}", f"{first / second:.2f}", pays], first / second


def _children() -> float:
    """Processor seconds of child processes that have ended: the compiler's."""
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
