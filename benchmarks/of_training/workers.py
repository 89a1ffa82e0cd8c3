"""Two workers with one thread each against one, on the same global batches: wall-clock seconds."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from torch import distributed, multiprocessing

from legoray.train.batches import balanced, draw_samples, share
from of_training.common import Data, data_of, opened, table
from of_training.world import HISTORY, MODELS, Size, model_config, trial

STEPS, ROUNDS = 4, 3


def run(folder: Path, *, full: bool) -> dict[str, float]:
    """Print the table; name of a ratio -> value."""
    data = data_of(folder, Size() if full else Size(impressions=20_000))
    single, double = (_seconds(data, folder, world) for world in (1, 2))
    rows, found = [], {}
    for case, (name, size) in enumerate(_cases()):
        ratio = single[case] / double[case]
        found[f"workers/{name}/{size}"] = ratio
        per_second = [f"{size * STEPS / took[case]:,.0f}" for took in (single, double)]
        uneven = f"{100 * _uneven(data, size):.1f}"
        rows.append([name, str(size), *per_second, f"{ratio:.2f}", uneven])
    head = ["model", "batch", "1 worker, samples/s", "2 workers, samples/s", "x"]
    head += ["items of history beyond an equal share, %"]
    table("Two workers against one", head, rows)
    return found


def _cases() -> list[tuple[str, int]]:
    return [(name, size) for name in MODELS for size in (64, 512)]


def _seconds(data: Data, folder: Path, world: int) -> list[float]:
    """The least wall-clock seconds of some steps, for each case."""
    result = folder / f"{world}.npy"
    multiprocessing.spawn(_work, (world, data.size, folder, result), nprocs=world)
    return [float(value) for value in np.load(result)]


def _work(rank: int, world: int, size: Size, folder: Path, result: Path) -> None:
    torch.set_num_threads(1)
    if world > 1:
        meeting = f"file://{folder}/meeting"
        distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    data, least = data_of(folder, size), []
    for name, batch in _cases():
        own = opened(data, trial(model_config(name, 64), batch))
        samples = balanced(own.samples, own.lengths, size=batch, world=world)
        runner, taken = own.runner(rank=rank, world=world), []
        for _ in range(ROUNDS + 1):
            if world > 1:
                distributed.barrier()
            began = time.perf_counter()
            runner.steps(samples, 1, 0, STEPS)
            taken.append(time.perf_counter() - began)
        least.append(min(taken[1:]))
    if rank == 0:
        np.save(result, least)
    if world > 1:
        distributed.destroy_process_group()


def _uneven(data: Data, size: int) -> float:
    """What the busier of two workers reads of histories beyond half of them, as a share."""
    split = data.corpus.splits["train"]
    drawn = draw_samples(split, task="matching", negatives=4, seed=1, epoch=1)
    length = np.minimum(split.history_end, HISTORY).astype(np.int64)
    found = balanced(drawn, length[drawn.impression], size=size, world=2)
    read, most = length[found.impression], []
    for start in range(0, len(found) // size * size, size):
        parts = [read[slice(*share(start, start + size, rank, 2))].sum() for rank in (0, 1)]
        most.append(2 * max(parts) / max(sum(parts), 1))
    return float(np.mean(most)) - 1
