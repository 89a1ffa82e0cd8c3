"""Timed events -> one sequence per user, and how much of it lies before a moment."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from legoray.data.corpus import Int32, Int64
from legoray.data.ragged import distinct, offsets_of


def by_user_and_time(user: Int32, time: Int64) -> NDArray[np.int64]:
    """The order of events by user, then time, then as they stood."""
    return np.lexsort((time, user))


def user_offsets(user: Int32, users: int) -> Int64:
    """`[U + 1]` where each user's events begin, once sorted; users without events have none."""
    return offsets_of(np.bincount(user, minlength=users))


def strictly_before(
    event_user: Int32, event_time: Int64, user: Int32, time: Int64, users: int
) -> Int32:
    """How many of a user's events happened before a moment; those of the same second do not count.

    Args:
        event_user: `[E]` sorted by user, then time, as `event_time`.
        event_time: `[E]` seconds.
        user: `[N]` whose events are counted.
        time: `[N]` the moments.
        users: number of users.
    """
    offsets = user_offsets(event_user, users)
    # Ranks of all times make (user, time) one sortable number without overflow.
    moments = distinct(np.concatenate([event_time, time]))
    stride = len(moments) + 1
    events = event_user.astype(np.int64) * stride + np.searchsorted(moments, event_time)
    wanted = user.astype(np.int64) * stride + np.searchsorted(moments, time)
    return (np.searchsorted(events, wanted, side="left") - offsets[user]).astype(np.int32)


def places_of_times(user: Int32, time: Int64) -> Int32:
    """`[E]` how many events of the same user happened before each; events stand by user, then time.

    It is `strictly_before` of the events themselves, with one pass and little memory.
    """
    new_user, new_time = np.ones((2, len(user)), bool)
    np.not_equal(user[1:], user[:-1], out=new_user[1:])
    np.not_equal(time[1:], time[:-1], out=new_time[1:])
    moment = np.flatnonzero(new_user | new_time)  # where each user's each second begins
    first = np.flatnonzero(new_user)
    owner = np.searchsorted(first, moment, side="right") - 1
    place = (moment - first[owner]).astype(np.int32)
    return np.repeat(place, np.diff(np.append(moment, len(user))))
