"""Rows of like length together, in blocks that hold little padding and fit a processor's caches."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

# Places (rows times the longest of them) of a block. What a layer writes for so many stays in a
# core's cache until the next one reads it; a GPU wants work enough for all of its cores.
PLACES = {"cpu": 2**11}
_MOST = 2**17


def in_blocks(encode: Callable[[Tensor, int], Tensor], lengths: Tensor) -> Tensor:
    """What `encode` gives for all rows, asked for some rows of like length at a time.

    Args:
        encode: rows `[n]` of which none is longer than a width, and that width, to `[n, ...]`,
            each row on its own.
        lengths: `[N]` of all rows.

    Returns:
        `[N, ...]`, in the rows' own order.
    """
    blocks, back = blocks_of(lengths)
    return torch.cat([encode(rows, width) for rows, width in blocks]).index_select(0, back)


def blocks_of(lengths: Tensor) -> tuple[list[tuple[Tensor, int]], Tensor]:
    """Blocks of rows of like length with the longest of each, and where each row is in all blocks.

    Args:
        lengths: `[N]` of all rows; one of 0 counts as 1.
    """
    ordered, order = lengths.clamp(min=1).sort(descending=True, stable=True)
    places = PLACES.get(lengths.device.type, _MOST)
    blocks = [(order[a:b], width) for a, b, width in cuts(ordered.tolist(), places)]
    return blocks, torch.argsort(order)


def cuts(lengths: list[int], places: int) -> Iterator[tuple[int, int, int]]:
    """Start, stop and width of blocks of rows in falling order of length, of so many places each.

    A row that is longer than that is a block of its own.
    """
    start = 0
    while start < len(lengths):
        width = lengths[start]
        stop = min(start + max(places // width, 1), len(lengths))
        yield start, stop, width
        start = stop


def last_places(mask: Tensor) -> Tensor:
    """The place of the last True of each row, counted from 1; 0 where there is none."""
    return (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(dim=1)
