"""Rows of several mapped blocks, gathered by item: a loop over blocks, never over rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from legoray.llm.blocks import Places


class MappedRows:
    """The states of n items, which lie in several blocks."""

    def __init__(self, blocks: Sequence[Tensor], places: Places) -> None:
        """Items whose rows lie in `blocks`, each `[T, H]`, at these places."""
        self.blocks = tuple(blocks)
        self.block, self.first, self.count = (
            torch.from_numpy(values) for values in (places.block, places.first, places.count)
        )

    def __len__(self) -> int:
        return len(self.block)

    @property
    def width(self) -> int:
        """H, the size of a state."""
        return self.blocks[0].shape[1]

    def gather(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """States `[N, L, H]` of `items [N]` (from 0), padded by zeros; their mask `[N, L]`."""
        block = self.block[items]
        count = self.count[items]
        width = int(count.max()) if len(items) else 1
        column = torch.arange(width)
        mask = column < count[:, None]
        # under the mask: the item's own last row, so that no page but its own is touched
        rows = self.first[items, None] + torch.minimum(column, count[:, None] - 1)
        hidden = torch.empty(len(items), width, self.width, dtype=self.blocks[0].dtype)
        for number, places in self._by_block(block):
            if len(places) == len(items):
                torch.index_select(
                    self.blocks[number], 0, rows.flatten(), out=hidden.view(-1, self.width)
                )
            else:
                own = self.blocks[number].index_select(0, rows[places].flatten())
                hidden.index_copy_(0, places, own.view(-1, width, self.width))
        if not bool(mask.all()):
            hidden.masked_fill_(~mask.unsqueeze(-1), 0)
        return hidden, mask

    @staticmethod
    def _by_block(block: Tensor) -> list[tuple[int, Tensor]]:
        """For each distinct block, which places of the batch are its."""
        order = block.argsort(stable=True)
        numbers, sizes = torch.unique_consecutive(block[order], return_counts=True)
        return list(zip(numbers.tolist(), order.split(sizes.tolist()), strict=True))
