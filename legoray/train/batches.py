"""Training batches out of whole-array gathers: no loop over rows, and each item read once.

What an epoch consists of depends on the seed and the epoch alone. Every worker draws the same
epoch and takes its own slice of each batch, so that any number of workers trains on the same
batches in the same order.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from legoray.data.corpus import Corpus, Split
from legoray.model.base import Batch
from legoray.model.inputs import Inputs, user_numbers

Int = NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True)
class Samples:
    """One epoch: `S` samples in training order.

    `rows [S, K]` are rows of the split. In matching, the click stands first and `K - 1` sampled
    non-clicks of the same impression follow; in ranking, `K = 1`.
    """

    impression: Int  # [S]
    rows: Int  # [S, K]
    dropped: int  # clicks left out because their impression has no non-click

    def __len__(self) -> int:
        return len(self.impression)


def draw_samples(
    split: Split, *, task: Literal["matching", "ranking"], negatives: int, seed: int, epoch: int
) -> Samples:
    """Every click of a split with `negatives` non-clicks of its impression, in random order.

    Non-clicks are drawn without replacement where the impression has enough of them, and with
    replacement otherwise; impressions without any are dropped and counted.
    """
    rng = np.random.default_rng([seed % 2**64, epoch])
    clicks = split.clicks.astype(np.int64)
    others = np.diff(split.offsets) - clicks
    kept = np.where(others > 0, clicks, 0)
    impression = np.repeat(np.arange(len(split)), kept)
    place = np.arange(len(impression)) - np.repeat(np.cumsum(kept) - kept, kept)
    click = split.offsets[impression] + place
    first_other = split.offsets[impression] + clicks[impression]
    drawn = first_other[:, None] + draw_distinct(rng, others[impression], negatives)
    rows = np.concatenate([click[:, None], drawn], axis=1)
    if task == "ranking":
        impression, rows = np.repeat(impression, rows.shape[1]), rows.reshape(-1, 1)
    order = rng.permutation(len(impression))
    return Samples(impression[order], rows[order], int((clicks - kept).sum()))


def balanced(samples: Samples, lengths: Int, *, size: int, world: int) -> Samples:
    """The same batches of `size` samples, in an order in which all workers' shares are like work.

    In each batch samples are dealt out by `lengths [S]`, those of their histories.
    """
    if world == 1:
        return samples
    batch, place = np.divmod(np.arange(len(samples)), size)
    by_length = np.lexsort((lengths, batch))
    order = by_length[np.lexsort((place, place % world, batch))]
    return Samples(samples.impression[order], samples.rows[order], samples.dropped)


def draw_distinct(rng: np.random.Generator, sizes: Int, count: int) -> Int:
    """`[C, count]` numbers below `sizes [C]`, distinct in each row where its size allows it.

    Floyd's algorithm on all rows at once: the j-th draw is from one number more than the draw
    before it, and a number that is there already gives way to the largest.
    """
    drawn = np.empty((len(sizes), count), dtype=np.int64)
    enough = sizes >= count
    for j in range(count):
        top = np.where(enough, sizes - count + j, sizes - 1)
        number = rng.integers(0, top + 1)
        repeated = enough & (drawn[:, :j] == number[:, None]).any(axis=1)
        drawn[:, j] = np.where(repeated, top, number)
    return drawn


class Numbering:
    """Numbers the distinct items of a batch from 1, in time proportional to the batch."""

    def __init__(self, item_count: int) -> None:
        self._slot = np.zeros(item_count, dtype=np.int64)

    def __call__(self, *arrays: Int) -> tuple[Int, list[Int]]:
        """The distinct items `[N]` in rising order, and the arrays with item n as its number.

        Item 0 is padding and stays 0.
        """
        flat = np.concatenate([array.ravel() for array in arrays])
        # Of equal items the last writer's mark stays: exactly one position finds its own mark.
        self._slot[flat] = np.arange(len(flat))
        items = flat[self._slot[flat] == np.arange(len(flat))]
        items = np.sort(items[items > 0])
        self._slot[items] = np.arange(1, len(items) + 1)
        self._slot[0] = 0
        return items, [self._slot[array] for array in arrays]


@dataclass(frozen=True)
class MicroBatch:
    """A part of a worker's share of a batch.

    A worker whose share is empty gets one sample all the same, with `count = 0`: it must not enter
    the loss.
    """

    batch: Batch
    count: int

    def to(self, device: torch.device) -> MicroBatch:
        return MicroBatch(self.batch.to(device), self.count)


class Collator:
    """Makes model input out of samples: gathers histories, candidates, and distinct items."""

    def __init__(self, corpus: Corpus, split: Split, inputs: Inputs, max_history: int) -> None:
        self._corpus, self._split = corpus, split
        self._inputs, self._max_history = inputs, max_history
        self._number = Numbering(corpus.item_count)

    def __call__(self, impression: Int, rows: Int) -> Batch:
        """The batch of samples `impression [B]`, `rows [B, K]`."""
        split = self._split
        history = self._corpus.histories(
            split.history[impression], split.history_end[impression], self._max_history
        )
        asked = split.item[rows].astype(np.int64)
        items, (history, candidates) = self._number(history, asked)
        distinct = torch.from_numpy(items)
        return Batch(
            items=self._inputs.items.gather(distinct),
            history=torch.from_numpy(history),
            candidates=torch.from_numpy(candidates),
            labels=torch.from_numpy(split.label[rows].astype(np.float32)),
            users=user_numbers(self._corpus, split, impression),
            history_items=self._inputs.of_history(distinct),
            fields=self._inputs.of_fields(split, impression, asked),
        )

    def parts(self, samples: Samples, start: int, stop: int, count: int) -> list[MicroBatch]:
        """Samples `start:stop` in `count` parts of nearly equal size, or one stand-in if none."""
        if start >= stop:
            one = slice(0, 1)
            return [MicroBatch(self(samples.impression[one], samples.rows[one]), 0)]
        cuts = np.linspace(start, stop, min(count, stop - start) + 1).astype(int)
        return [
            MicroBatch(self(samples.impression[a:b], samples.rows[a:b]), int(b - a))
            for a, b in itertools.pairwise(cuts)
        ]


def share(start: int, stop: int, rank: int, world: int) -> tuple[int, int]:
    """The part of `start:stop` that one of `world` workers takes; empty where there is too little.

    The shares of all workers are disjoint, in order, and make up the whole.
    """
    size = stop - start
    return start + size * rank // world, start + size * (rank + 1) // world


def ahead(source: Iterator[T], depth: int = 2) -> Generator[T, None, None]:
    """The same values, made by a thread that keeps up to `depth` of them ready."""
    ready: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(depth)
    stop = threading.Event()

    def put(kind: str, value: T | BaseException | None) -> None:
        while not stop.is_set():
            try:
                ready.put((kind, value), timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for value in source:
                put("value", value)
                if stop.is_set():
                    return
            put("end", None)
        except BaseException as error:
            put("error", error)

    threading.Thread(target=work, name="batches", daemon=True).start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if isinstance(value, BaseException):
                raise value
            yield value  # type: ignore[misc]
    finally:
        stop.set()
