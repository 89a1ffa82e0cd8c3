"""Two workers with one thread each against one: wall-clock seconds, so the machine must be quiet.

Columns, all against the samples per second of one worker:

same each    both have the batch of the one, as is usual with data-parallel training
same in all  the two share the batch of the one
two alone    two workers that know nothing of each other: what two cores give at all

An item that both workers' samples hold is encoded by both: a batch that is shared holds fewer
samples for each of them, so that fewer occurrences of an item meet. `encoded by both` says how many
more items the two encode of the shared batch than one worker does.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from torch import distributed, multiprocessing

from legoray.data.corpus import Corpus
from legoray.train.batches import Samples, balanced, draw_samples, share
from of_training.common import Data, data_of, opened, table
from of_training.world import HISTORY, MODELS, Size, model_config, trial

STEPS, ROUNDS = 4, 3
ONE, EACH, SHARED, ALONE = "one", "same each", "same in all", "two alone"
WAYS = (EACH, SHARED, ALONE)


def run(folder: Path, *, full: bool) -> dict[str, float]:
    """Print the table; name of a ratio -> value."""
    data = data_of(folder, Size() if full else Size(impressions=20_000))
    rate = {way: _rates(data, folder, way) for way in (ONE, *WAYS)}
    rows, found = [], {}
    for case, (name, size) in enumerate(_cases()):
        ratios = [rate[way][case] / rate[ONE][case] for way in WAYS]
        for way, ratio in zip(WAYS, ratios, strict=True):
            found[f"workers/{way}/{name}/{size}"] = ratio
        uneven, more = (f"{100 * part:.1f}" for part in _shares(data, size))
        told = [f"{ratio:.2f}" for ratio in ratios]
        rows.append([name, str(size), f"{rate[ONE][case]:,.0f}", *told, more, uneven])
    head = ["model", "batch", "1 worker, samples/s", *(f"{way}, x" for way in WAYS)]
    head += ["encoded by both, %", "histories beyond an equal share, %"]
    table("Two workers against one", head, rows)
    return found


def _cases() -> list[tuple[str, int]]:
    return [(name, size) for name in MODELS for size in (64, 512)]


def _rates(data: Data, folder: Path, way: str) -> list[float]:
    """The most samples a second of all workers together, for each case."""
    result = folder / f"{way}.npy"
    multiprocessing.spawn(_work, (way, data.size, folder, result), nprocs=1 if way == ONE else 2)
    return [float(value) for value in np.load(result)]


def _work(rank: int, way: str, size: Size, folder: Path, result: Path) -> None:
    torch.set_num_threads(1)
    processes, world = 1 if way == ONE else 2, 2 if way in (EACH, SHARED) else 1
    if processes > 1:
        meeting = f"file://{folder}/{way}.meeting"
        distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    data, most = data_of(folder, size), []
    for name, batch in _cases():
        shared = 2 * batch if way == EACH else batch
        own = opened(data, trial(model_config(name, 64), shared))
        samples = balanced(own.samples, own.lengths, size=shared, world=world)
        runner, taken = own.runner(rank=rank if world > 1 else 0, world=world), []
        for _ in range(ROUNDS + 1):
            if processes > 1:
                distributed.barrier()
            began = time.perf_counter()
            runner.steps(samples, 1, 0, STEPS)
            if processes > 1:
                distributed.barrier()  # the slower one counts
            taken.append(time.perf_counter() - began)
        done = shared * STEPS * (2 if way == ALONE else 1)
        most.append(done / min(taken[1:]))
    if rank == 0:
        np.save(result, most)
    if processes > 1:
        distributed.destroy_process_group()


def _shares(data: Data, size: int) -> tuple[float, float]:
    """Of batches that two workers share: histories beyond an equal share, items encoded twice."""
    split = data.corpus.splits["train"]
    drawn = draw_samples(split, task="matching", negatives=4, seed=1, epoch=1)
    length = np.minimum(split.history_end, HISTORY).astype(np.int64)
    found = balanced(drawn, length[drawn.impression], size=size, world=2)
    read, most, more = length[found.impression], [], []
    for start in range(0, min(len(found) // size, 40) * size, size):
        parts = [share(start, start + size, rank, 2) for rank in (0, 1)]
        counts = [read[slice(*part)].sum() for part in parts]
        most.append(2 * max(counts) / max(sum(counts), 1))
        items = [_items(data.corpus, found, range(*part)) for part in parts]
        more.append(sum(map(len, items)) / len(items[0] | items[1]))
    return float(np.mean(most)) - 1, float(np.mean(more)) - 1


def _items(corpus: Corpus, samples: Samples, places: range) -> set[int]:
    """The items of some samples: candidates, and what is read of the histories."""
    split = corpus.splits["train"]
    rows = samples.rows[places.start : places.stop]
    seen: set[int] = set(split.item[rows].ravel().tolist())
    for impression in samples.impression[places.start : places.stop]:
        start = int(corpus.history_offsets[split.history[impression]])
        end = start + int(split.history_end[impression])
        seen.update(corpus.history_items[max(start, end - HISTORY) : end].tolist())
    return seen
