"""Gathering one step's hidden states from 1, 16 and 160 mapped blocks, against one whole tensor.

    python benchmarks/state_gather.py

563 distinct items of 20 tokens on average, width 384, bfloat16, drawn from 16,000 items.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from legoray.data.ragged import offsets_of
from legoray.data.tensorfile import map_tensors, read_header, write_tensors
from legoray.llm.blocks import Places
from legoray.llm.mapped import MappedRows

ITEMS, DRAWN, WIDTH = 16_000, 563, 384


def stored(folder: Path, lengths: np.ndarray, count: int) -> MappedRows:
    """The same random states, cut into so many blocks."""
    cuts = np.array_split(np.arange(len(lengths)), count)
    blocks, first = [], []
    for number, cut in enumerate(cuts):
        offsets = offsets_of(lengths[cut])
        path = folder / f"{count}-{number}.safetensors"
        write_tensors(path, {"h": torch.randn(int(offsets[-1]), WIDTH).bfloat16()}, {})
        blocks.append(map_tensors(path, read_header(path, "states"))["h"])
        first.append(offsets[:-1])
    block = np.repeat(np.arange(count), [len(cut) for cut in cuts])
    return MappedRows(blocks, Places(block, np.concatenate(first), lengths))


def whole(rows: MappedRows) -> Callable[[Tensor], Tensor]:
    """One file's gather, as it was before blocks."""
    hidden = rows.blocks[0]
    offsets = torch.cat([rows.first, rows.first[-1:] + rows.count[-1:]])

    def gather(items: Tensor) -> Tensor:
        start, end = offsets[items], offsets[items + 1]
        column = torch.arange(int((end - start).max()))
        mask = column < (end - start)[:, None]
        at = torch.minimum(start[:, None] + column, end[:, None] - 1)
        found = hidden.index_select(0, at.flatten()).view(len(items), -1, WIDTH)
        return found.masked_fill_(~mask.unsqueeze(-1), 0)

    return gather


def milliseconds(gather: Callable[[Tensor], object], draws: list[Tensor]) -> float:
    """Median time of a gather, after one round that reads the files into memory."""
    times: list[float] = []
    for _ in range(2):
        times = []
        for items in draws:
            start = time.perf_counter()
            gather(items)
            times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.normal(20, 6, ITEMS).round(), 4, 32).astype(np.int64)
    draws = [torch.from_numpy(rng.choice(ITEMS, DRAWN, replace=False)) for _ in range(40)]
    with tempfile.TemporaryDirectory() as folder:
        for count in (1, 16, 160):
            rows = stored(Path(folder), lengths, count)
            if count == 1:
                base = milliseconds(whole(rows), draws)
                print(f"one file, as before   {base:8.2f} ms  1.00")
            took = milliseconds(rows.gather, draws)
            print(f"{count:4d} blocks           {took:8.2f} ms  {took / base:.2f}")


if __name__ == "__main__":
    main()
