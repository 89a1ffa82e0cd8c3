"""What users gave to items (ratings, reviews, plays, purchases), as arrays, and steps over them.

Families of data sets differ in how these are written; from here on they are one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from legoray.data.corpus import Int32, Int64

UNKNOWN_TIME = -1
BLOCK = 1 << 20  # events that are compared at a time


@dataclass(frozen=True)
class Feedback:
    """One row per event, in order of the files."""

    user: Int32  # [E]
    item: Int32  # [E] place in a list of items, from 0
    time: Int64  # [E] seconds since 1970, UNKNOWN_TIME where unknown
    value: NDArray[np.float32]  # [E] a rating or a count; 1 where there is none

    def __len__(self) -> int:
        return len(self.user)

    def take(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> Feedback:
        """Some events, by position or by a mask."""
        return Feedback(self.user[which], self.item[which], self.time[which], self.value[which])

    @property
    def timed(self) -> bool:
        """Whether any event has a time."""
        return bool((self.time >= 0).any())


def coded(
    chunks: Iterable[pa.Table], keys: pa.Array, *, first: bool = False
) -> tuple[Feedback, pa.Array, int]:
    """Events with keys as numbers.

    Args:
        chunks: tables of `user` and `item` (strings), and maybe `time` (seconds, null where
            unknown) and `value`.
        keys: of the items.
        first: whether of each user's events with an item, in one piece of a chunk, only the first
            is kept, so that a log of a thousand listens to each artist needs little memory.

    Returns:
        The events of known items; the keys of all users, in order of first appearance; and how many
        events there were of items that are not among `keys`.
    """
    pieces = [_piece(b, first=first) for chunk in chunks for b in chunk.to_batches() if len(b)]
    if not pieces:
        none = np.zeros(0, np.int32)
        empty = Feedback(none, none, none.astype(np.int64), none.astype(np.float32))
        return empty, pa.array([], pa.string()), 0
    names, user = _one_dictionary([piece.user for piece in pieces])
    own, item = _one_dictionary([piece.item for piece in pieces])
    place = pc.fill_null(pc.index_in(own, value_set=keys), -1).to_numpy(zero_copy_only=False)
    time, value, rows = (
        np.concatenate([getattr(piece, name) for piece in pieces])
        for name in ("time", "value", "rows")
    )
    found = Feedback(user, place[item].astype(np.int32), time, value)
    known = found.item >= 0
    if known.all():
        return found, names, 0
    return found.take(known), names, int(rows[~known].sum())


@dataclass(frozen=True)
class _Piece:
    """A batch of events whose keys are numbered for themselves."""

    user: pa.DictionaryArray
    item: pa.DictionaryArray
    time: Int64
    value: NDArray[np.float32]
    rows: Int32  # for how many events each stands


def _piece(batch: pa.RecordBatch, *, first: bool) -> _Piece:
    user = batch["user"].dictionary_encode()
    item = pc.fill_null(batch["item"], "").dictionary_encode()
    time, value = _time(batch), _value(batch)
    if not first:
        return _Piece(user, item, time, value, np.ones(len(batch), np.int32))
    pair = user.indices.to_numpy().astype(np.int64) * len(item.dictionary) + item.indices.to_numpy()
    order = np.lexsort((time, pair))  # stable: as they stood where times are equal
    _, at, rows = np.unique(pair[order], return_index=True, return_counts=True)
    chosen = order[at]
    at = np.argsort(chosen)
    kept, taken = chosen[at], pa.array(chosen[at])
    counts: Int32 = rows[at].astype(np.int32)
    return _Piece(user.take(taken), item.take(taken), time[kept], value[kept], counts)


def _one_dictionary(keys: list[pa.DictionaryArray]) -> tuple[pa.Array, Int32]:
    """The distinct keys, and for each event the number of its own."""
    one = pa.chunked_array(keys).unify_dictionaries()
    codes = [chunk.indices.to_numpy(zero_copy_only=False) for chunk in one.chunks]
    return one.chunk(0).dictionary, np.concatenate(codes).astype(np.int32)


def _time(batch: pa.RecordBatch) -> Int64:
    if "time" not in batch.schema.names:
        return np.full(len(batch), UNKNOWN_TIME, np.int64)
    filled = pc.fill_null(batch["time"], UNKNOWN_TIME)
    time: Int64 = filled.to_numpy(zero_copy_only=False).astype(np.int64)
    return time


def _value(batch: pa.RecordBatch) -> NDArray[np.float32]:
    if "value" not in batch.schema.names:
        return np.ones(len(batch), np.float32)
    value: NDArray[np.float32] = batch["value"].to_numpy(zero_copy_only=False).astype(np.float32)
    return value


def users_in_time(events: Feedback, users: pa.Array) -> tuple[Feedback, pa.Array]:
    """Users numbered anew, by the time of their first event and then by key.

    A file may name users in an order that the future decides (each movie's ratings in a block of
    their own), and what is drawn for a click depends on its user's number.
    """
    if not events.timed:
        return events, users
    first = np.full(len(users), np.iinfo(np.int64).max)
    np.minimum.at(first, events.user, events.time)
    rank = pc.rank(users, sort_keys="ascending", tiebreaker="first").to_numpy()
    order = np.lexsort((rank, first))
    number = np.empty(len(users), np.int32)
    number[order] = np.arange(len(users), dtype=np.int32)
    return replace(events, user=number[events.user]), users.take(pa.array(order))


def in_order(events: Feedback, *, shuffled: int | None = None) -> Feedback:
    """Events by user and then by time, as they stood where times are equal.

    Args:
        events: in any order.
        shuffled: a seed, where nothing is known of the order and it is drawn instead.
    """
    if shuffled is not None:
        random = np.random.Generator(np.random.PCG64(shuffled))
        events = events.take(random.permutation(len(events)))
        events = replace(events, time=np.full(len(events), UNKNOWN_TIME, np.int64))
    return events.take(np.lexsort((events.time, events.user)))


def first_of_each(events: Feedback) -> Feedback:
    """The first event of each user with each item; events stand by user and time."""
    stride = int(events.item.max(initial=0)) + 1
    first = np.zeros(len(events), bool)
    for some in _of_whole_users(events.user):
        code = events.user[some].astype(np.int64) * stride + events.item[some]
        first[some][np.unique(code, return_index=True)[1]] = True
    return events if first.all() else events.take(first)


def _of_whole_users(user: Int32) -> Iterator[slice]:
    """Places of some users' events at a time, so that little memory is needed; users are sorted."""
    begin = np.searchsorted(user, user[::BLOCK])
    cuts = np.append(np.unique(begin), len(user))
    return (slice(start, end) for start, end in pairwise(cuts.tolist()))


def k_core(user: Int32, item: Int32, k: int) -> NDArray[np.bool_]:
    """Which clicks are left when users and items with fewer than k are taken out, until none is."""
    kept = np.ones(len(user), bool)
    while True:
        of_user = np.bincount(user[kept], minlength=int(user.max(initial=-1)) + 1)
        of_item = np.bincount(item[kept], minlength=int(item.max(initial=-1)) + 1)
        left = kept & (of_user[user] >= k) & (of_item[item] >= k)
        if left.sum() == kept.sum():
            return kept
        kept = left


def dense(numbers: NDArray[np.int32], size: int) -> tuple[Int32, Int32]:
    """The distinct numbers below `size` in rising order `[M]`, and new ones `[size]` for them.

    A number that is not among them has the new one -1.
    """
    present = np.zeros(size, bool)
    present[numbers] = True
    old = np.flatnonzero(present).astype(np.int32)
    new = np.full(size, -1, np.int32)
    new[old] = np.arange(len(old), dtype=np.int32)
    return old, new


def count_within(marked: NDArray[np.bool_], user: Int32) -> Int32:
    """`[E]` how many events of the same user are marked, up to each and with it.

    Args:
        marked: `[E]`.
        user: `[E]` sorted.
    """
    total = np.zeros(len(marked) + 1, np.int32)
    np.cumsum(marked, out=total[1:])
    new = np.ones(len(user), bool)
    np.not_equal(user[1:], user[:-1], out=new[1:])
    first = np.flatnonzero(new)
    before = np.repeat(total[first], np.diff(np.append(first, len(user))))
    return np.subtract(total[1:], before, out=before)
