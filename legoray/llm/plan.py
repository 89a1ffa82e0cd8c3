"""Which texts are still to be computed, cut into blocks.

A text is known by a digest of its token ids: equal texts are stored once, whatever list they stand
in. The texts that a unit lacks are put in one order (longest first, then by digest) and cut every
so many, so that a run that was killed cuts what is left into the blocks that it would have made,
and the numbers are the same to the bit.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from legoray.data.ragged import expand, offsets_of
from legoray.llm.text import Encoded

MOST_TEXTS = 1_024  # of a block: a kill loses seconds of work
_MOST_BYTES = 48 << 20
_LEAST_TEXTS = 8
Digests = NDArray[np.bytes_]  # [n] of 16 bytes each


@dataclass(frozen=True)
class Job:
    """One block to compute."""

    units: tuple[int, ...]  # the units that lack it, by their place in the plan
    texts: NDArray[np.int64]  # [n] numbers of its texts, in the block's order


def text_digests(encoded: Encoded) -> Digests:
    """`[n]` BLAKE2b digests of 16 bytes of the texts' token ids."""
    raw = memoryview(np.ascontiguousarray(encoded.ids, "<i8").tobytes())
    ends = (encoded.offsets * 8).tolist()
    found = b"".join(
        hashlib.blake2b(raw[start:end], digest_size=16).digest()
        for start, end in itertools.pairwise(ends)
    )
    return np.frombuffer(found, "S16")


def block_size(length: int, width: int) -> int:
    """Texts per block, from what decides a text's largest size alone."""
    return min(max(_MOST_BYTES // (length * width * 2), _LEAST_TEXTS), MOST_TEXTS)


def plan_blocks(
    encoded: Encoded, digests: Digests, known: Sequence[Digests], size: int
) -> list[Job]:
    """The blocks that are missing; units that lack the same texts share them.

    Args:
        encoded: the tokens of n texts.
        digests: `[n]` of these.
        known: per unit, the digests of the texts that it has.
        size: texts per block.
    """
    distinct, first = np.unique(digests, return_index=True)
    lacking = np.stack([~np.isin(distinct, has) for has in known])  # [units, distinct]
    patterns, pattern = np.unique(lacking, axis=1, return_inverse=True)
    jobs = []
    for number, wanting in enumerate(patterns.T):
        if wanting.any():
            mine = np.flatnonzero(pattern.ravel() == number)  # by digest
            order = np.argsort(-encoded.lengths[first[mine]], kind="stable")
            texts = first[mine[order]]
            units = tuple(np.flatnonzero(wanting).tolist())
            jobs += [Job(units, cut) for cut in np.split(texts, range(size, len(texts), size))]
    return jobs


def part_of(encoded: Encoded, texts: NDArray[np.int64]) -> Encoded:
    """The tokens of some of the texts."""
    lengths = encoded.lengths[texts]
    return Encoded(encoded.ids[expand(encoded.offsets[texts], lengths)], offsets_of(lengths))
