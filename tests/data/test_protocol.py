"""Splits by time, sampled negatives, and how much of a sequence lies before a moment."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from legoray.data.protocol import NegativeRule, Pool, temporal_split
from legoray.data.sequences import by_user_and_time, strictly_before
from legoray.errors import InputError


@pytest.mark.parametrize("seed", range(5))
def test_periods_follow_each_other_and_hold_their_shares(seed):
    time = np.random.default_rng(seed).integers(0, 400, 1000)
    parts = temporal_split(time, [0.8, 0.1, 0.1])
    assert sorted(np.concatenate(parts).tolist()) == list(range(1000))
    for early, late in pairwise(parts):
        assert time[early].max() < time[late].min()
    assert abs(len(parts[0]) - 800) < 10
    assert abs(len(parts[1]) - 100) < 10


def test_equal_times_are_never_parted():
    parts = temporal_split(np.array([1, 5, 5, 5, 5, 9]), [0.5, 0.5])
    assert [part.tolist() for part in parts] == [[0], [1, 2, 3, 4, 5]]
    with pytest.raises(InputError, match=r"a period is empty"):
        temporal_split(np.array([5, 5, 5, 5]), [0.8, 0.1, 0.1])


@pytest.mark.parametrize("seed", range(3))
def test_strictly_before_counts_as_a_loop_does(seed):
    random = np.random.default_rng(seed)
    user, time = random.integers(0, 6, 80).astype(np.int32), random.integers(0, 20, 80)
    order = by_user_and_time(user, time)
    who, when = random.integers(0, 8, 50).astype(np.int32), random.integers(-2, 22, 50)
    found = strictly_before(user[order], time[order], who, when, 8)
    expected = [sum((user == u) & (time < t)) for u, t in zip(who, when, strict=True)]
    assert found.tolist() == expected


def pool(weight=None):
    """Items 1 to 50, item n first rated at time n; user 0 likes the even ones."""
    item = np.arange(1, 51, dtype=np.int32)
    return Pool(
        item=item,
        since=item.astype(np.int64),
        liked=np.arange(2, 51, 2, dtype=np.int64),
        stride=51,
        weight=np.ones(50) if weight is None else weight,
    )


@pytest.mark.parametrize("by", ["uniform", "popularity"])
def test_negatives_keep_the_rule(by):
    user = np.zeros(200, np.int32)
    time = np.tile(np.array([0, 1, 10, 50]), 50)
    sampled = pool().sample(NegativeRule(count=5, by=by, seed=3), 0, user, time)
    assert sampled.count.tolist() == [0, 1, 5, 5] * 50
    for click in range(200):
        items = sampled.item[sampled.offsets[click] : sampled.offsets[click + 1]]
        assert len(set(items.tolist())) == len(items)
        assert all(item % 2 == 1 and item <= time[click] for item in items)


def test_uniform_negatives_are_uniform_and_seeded():
    user, time = np.ones(20000, np.int32), np.full(20000, 50)
    rule = NegativeRule(count=1, by="uniform", seed=3)
    one, two = pool().sample(rule, 0, user, time), pool().sample(rule, 0, user, time)
    assert np.array_equal(one.item, two.item)
    assert not np.array_equal(one.item, pool().sample(rule, 1, user, time).item)
    share = np.bincount(one.item, minlength=51)[1:] / 20000
    assert np.abs(share - 0.02).max() < 0.006


def test_popular_negatives_follow_their_weights():
    user, time = np.ones(40000, np.int32), np.full(40000, 3)
    rule = NegativeRule(count=1, by="popularity", seed=3)
    weight = np.arange(50.0) + 1
    sampled = pool(weight).sample(rule, 0, user, time)
    share = np.bincount(sampled.item, minlength=4)[1:] / 40000
    assert np.abs(share - np.array([1, 2, 3]) / 6).max() < 0.01
