"""Places of words among keys, for block after block of them.

Arrow's `index_in` makes a hash table of all keys at each call, so that blocks times keys grow with
the square of a data set's size. Most owners number their items (N123, 123): then a table by that
number, made once, answers in a time that depends on the words alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from numpy.typing import NDArray

Int64 = NDArray[np.int64]

SPARSE = 16  # numbers per key at most, or the table would be larger than the keys are
_POWERS = 10 ** np.arange(1, 19, dtype=np.int64)


@dataclass(frozen=True)
class KeyIndex:
    """Distinct keys, of which many words are asked."""

    keys: pa.Array
    prefix: str = ""
    places: NDArray[np.int32] | None = None  # of the key with each number, -1 where there is none

    @classmethod
    def of(cls, keys: pa.Array) -> KeyIndex:
        """An index of these keys: by number if all of them are one prefix and a number."""
        prefix = ""
        if len(keys) and not pt.is_integer(keys.type):
            prefix = re.sub(r"\d+$", "", str(keys[0].as_py()))
        number = _numbers(keys, prefix) if len(keys) else None
        if number is None or number.min() < 0 or number.max() > SPARSE * len(keys) + 1024:
            return cls(keys)
        places = np.full(int(number.max()) + 1, -1, np.int32)
        places[number] = np.arange(len(keys), dtype=np.int32)
        return cls(keys, prefix, places)

    def find(self, words: pa.Array) -> pa.Array:
        """Each word's place among the keys, null where it is none of them."""
        number = None if self.places is None else _numbers(words, self.prefix)
        if self.places is None or number is None:
            return pc.index_in(words, value_set=self.keys)
        inside = (number >= 0) & (number < len(self.places))
        found = np.where(inside, self.places[np.where(inside, number, 0)], -1)
        return pa.array(found, mask=found < 0)


def _numbers(words: pa.Array, prefix: str) -> Int64 | None:
    """The numbers `[N]` behind the prefix, -1 for other words; None where one is no number.

    A number with leading zeros or a sign is another word than the number alone.
    """
    if words.null_count:
        return None
    if pt.is_integer(words.type):
        return words.cast(pa.int64()).to_numpy() if words.type != pa.uint64() else None
    try:
        rest = pc.utf8_slice_codeunits(words, len(prefix)) if prefix else words
        number: Int64 = rest.cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid:
        return None
    length = pc.binary_length(words).to_numpy() - len(prefix.encode())
    plain = (number >= 0) & (np.searchsorted(_POWERS, number, "right") + 1 == length)
    if prefix:
        plain &= pc.starts_with(words, prefix).to_numpy(zero_copy_only=False)
    return np.where(plain, number, -1)
