"""Tags that people gave to items -> one text per item."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from legoray.data.corpus import Int64
from legoray.data.processors.base import as_array
from legoray.data.ragged import offsets_of


@dataclass(frozen=True)
class Tags:
    """Who has which tag, and how often it was given. A pair may stand several times."""

    item: Int64  # [T] place of the item, from 0
    tag: Int64  # [T] place of the tag in `names`
    count: Int64  # [T]
    names: pa.Array

    def top(self, items: int, most: int) -> pa.Array:
        """`[items]` each one's most given tags, joined by commas; equally given ones in order.

        Args:
            items: how many there are; those without tags have the empty text.
            most: how many tags one has at most.
        """
        stride = max(len(self.names), 1)
        pair, inverse = np.unique(self.item * stride + self.tag, return_inverse=True)
        total = np.bincount(inverse, weights=self.count, minlength=len(pair))
        item, tag = pair // stride, pair % stride
        order = np.lexsort((tag, -total, item))
        item, tag = item[order], tag[order]
        kept = np.arange(len(item)) - np.searchsorted(item, item) < most
        offsets = offsets_of(np.bincount(item[kept], minlength=items)).astype(np.int32)
        words = self.names.take(pa.array(tag[kept]))
        return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), words), ", ")


def joined(
    given: pa.Table, names: pa.Table, keys: pa.Array | pa.ChunkedArray
) -> tuple[Tags, dict[str, int]]:
    """Tags by their names and items by their places, and how many rows have unknown ones.

    Args:
        given: `item` and `tag` (keys), `count` (a number).
        names: `tag` (each key once) and `name`.
        keys: of the items.
    """
    item = pc.index_in(as_array(given["item"]), value_set=as_array(keys))
    tag = pc.index_in(as_array(given["tag"]), value_set=as_array(names["tag"]))
    known = pc.and_(pc.is_valid(item), pc.is_valid(tag))
    columns = [as_array(column.filter(known)) for column in (item, tag, given["count"])]
    at, which, count = (c.cast(pa.int64()).to_numpy(zero_copy_only=False) for c in columns)
    unknown_tags = pc.sum(pc.and_(pc.is_null(tag), pc.is_valid(item))).as_py()
    unknown = {"tags_of_unknown_items": item.null_count, "tags_without_a_name": unknown_tags or 0}
    counted = {name: count for name, count in unknown.items() if count}
    return Tags(at, which, count, as_array(names["name"])), counted
