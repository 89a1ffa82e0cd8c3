"""Rules that decide what a number measures: splits by time or by place, and sampled negatives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from legoray.data.corpus import Int32, Int64
from legoray.data.ragged import distinct, expand, offsets_of, rows_of
from legoray.errors import InputError, Problem

CHUNK = 1 << 18  # clicks sampled at once; part of the rule, since each chunk has its own seed
STEP = 1 << 20  # draws looked at at once: only memory depends on it
ROUNDS = 12  # of drawing and throwing away, before the rest is looked at one by one


def temporal_split(time: Int64, shares: list[float]) -> list[Int64]:
    """Positions of the interactions of each period, earliest period first.

    A period holds the given share of the interactions, but for those that happened at the same
    second as its end: they all belong to the later period, so that no period overlaps another.

    Raises:
        InputError: a period would be empty.
    """
    ends = np.cumsum(shares)[:-1]
    ordered = np.sort(time)
    at = np.minimum((ends * len(time)).round().astype(np.int64), max(len(time) - 1, 0))
    period = np.searchsorted(ordered[at], time, side="right") if len(time) else time
    parts = [np.flatnonzero(period == number) for number in range(len(shares))]
    if any(len(part) == 0 for part in parts):
        sizes = ", ".join(str(len(part)) for part in parts)
        raise InputError(
            Problem(
                "temporal split",
                f"a period is empty: {len(time)} interactions at {len(np.unique(time))} different "
                f"times were split by {shares} into {sizes}",
                "give more data, other shares, or true times",
            )
        )
    return parts


def leave_last_out(offsets: Int64, *, min_length: int = 3) -> dict[str, Int64]:
    """The last element of each sequence is test, the one before it valid, earlier ones train.

    The first element of a sequence is in no split, since nothing lies before it.

    Args:
        offsets: `[U + 1]` where each sequence begins.
        min_length: shorter sequences give nothing; at least 3, so that valid has a history.

    Returns:
        Positions in all sequences one after another: split -> `[N]`, rising.
    """
    row = rows_of(offsets)
    length = np.diff(offsets)[row]
    place = np.arange(len(row)) - offsets[row]
    left = np.where(length >= max(min_length, 3), length - 1 - place, -1)
    return {
        "train": np.flatnonzero((left >= 2) & (place >= 1)),
        "valid": np.flatnonzero(left == 1),
        "test": np.flatnonzero(left == 0),
    }


LEAVE_LAST_OUT = "leave-last-out: of each user the last item is test, the one before it valid"
# What later splits hold is not known when an earlier one's negatives are drawn.
RATED = (
    "the items that somebody had rated at or before the click's time and that the user did not "
    "like until the end of the split's period"
)
UNSEEN = "the items that the user did not have, but for those of later splits"


@dataclass(frozen=True)
class NegativeRule:
    """How many negatives a click gets, from what pool and how."""

    count: int
    by: Literal["uniform", "popularity"]
    seed: int

    def protocol(self, pool: str = RATED) -> dict[str, str | int | float | bool]:
        """What is stamped on results; `pool` says from what negatives are drawn."""
        how = {
            "uniform": "uniformly",
            "popularity": "in proportion to the item's clicks in the train period, plus one",
        }[self.by]
        return {
            "negatives": f"{self.count} per click, sampled {how}, without repeats, from {pool}",
            "negatives_seed": self.seed,
        }


@dataclass(frozen=True)
class Pool:
    """Items in order of their first rating: what a negative may be at a time is a prefix."""

    item: Int32  # [P] in order of `since`
    since: Int64  # [P] when somebody first rated it
    liked: Int64  # sorted codes user * stride + item of all likes
    stride: int
    weight: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))  # [P] by popularity

    def sample(self, rule: NegativeRule, split: int, user: Int32, time: Int64) -> Sampled:
        """Negatives of each click. The same rule and clicks give the same negatives anywhere."""
        parts = list(self.samples(rule, split, user, time))
        count = np.concatenate([part.count for part in parts])
        return Sampled(np.concatenate([part.item for part in parts]), count)

    def samples(
        self, rule: NegativeRule, split: int, user: Int32, time: Int64
    ) -> Iterator[Sampled]:
        """The same, `CHUNK` clicks after `CHUNK` clicks; one empty piece where there are none."""
        for start in range(0, max(len(user), 1), CHUNK):
            yield self._chunk(
                rule, split, start // CHUNK, user[start : start + CHUNK], time[start:][:CHUNK]
            )

    def _chunk(
        self, rule: NegativeRule, split: int, chunk: int, user: Int32, time: Int64
    ) -> Sampled:
        """Draw, throw away what may not be, draw again for what is missing."""
        random = np.random.Generator(np.random.PCG64([rule.seed, split, chunk]))
        prefix = np.searchsorted(self.since, time, side="right")
        mass = np.append(0.0, np.cumsum(self.weight)) if rule.by == "popularity" else None
        wanted = np.where(prefix > 0, rule.count, 0)
        codes = np.zeros(0, np.int64)  # click * stride + item, sorted
        missing = wanted
        for _ in range(ROUNDS):
            click = np.repeat(np.arange(len(user)), missing)
            if not len(click):
                break
            uniform = random.random(len(click))
            allowed = [
                self._allowed(
                    uniform[some : some + STEP], click[some : some + STEP], prefix, mass, user
                )
                for some in range(0, len(click), STEP)
            ]
            fresh = distinct(np.concatenate(allowed))
            fresh = fresh[~_contains(codes, fresh)]
            codes = np.insert(codes, np.searchsorted(codes, fresh), fresh)
            missing = missing - _per_click(fresh, self, len(user))
        rest = self._rest(random, codes, prefix, missing, user, rule)
        codes = np.sort(np.concatenate([codes, rest]))
        return Sampled((codes % self.stride).astype(np.int32), _per_click(codes, self, len(user)))

    def _allowed(
        self,
        uniform: NDArray[np.float64],
        click: Int64,
        prefix: Int64,
        mass: NDArray[np.float64] | None,
        user: Int32,
    ) -> Int64:
        """Codes of what is drawn for some clicks, but for what their users liked."""
        drawn = self._draw(uniform, prefix[click], mass)
        liked = _contains(self.liked, user[click].astype(np.int64) * self.stride + drawn)
        return (click * self.stride + drawn)[~liked]

    def _rest(
        self,
        random: np.random.Generator,
        codes: Int64,
        prefix: Int64,
        missing: Int64,
        user: Int32,
        rule: NegativeRule,
    ) -> Int64:
        """What is left for clicks whose pool is almost used up: all of it is looked at.

        Items come in order of -log(u) / weight, which draws without replacement by weight
        (Efraimidis and Spirakis 2006).
        """
        click = np.flatnonzero(missing)
        row = np.repeat(click, prefix[click])
        at = expand(np.zeros(len(click), np.int64), prefix[click])
        item = self.item[at].astype(np.int64)
        code = row * self.stride + item
        free = ~_contains(codes, code)
        free &= ~_contains(self.liked, user[row].astype(np.int64) * self.stride + item)
        weight = self.weight[at[free]] if rule.by == "popularity" else 1.0
        key = -np.log1p(-random.random(int(free.sum()))) / weight
        order = np.lexsort((key, row[free]))
        row, code = row[free][order], code[free][order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        return code[rank < missing[row]]

    def _draw(
        self, uniform: NDArray[np.float64], prefix: Int64, mass: NDArray[np.float64] | None
    ) -> Int64:
        """One item of each prefix: `prefix` items long, by weight where there is a `mass`."""
        if mass is None:
            at = (uniform * prefix).astype(np.int64)
        else:
            at = np.searchsorted(mass, uniform * mass[prefix], side="right") - 1
        return self.item[np.minimum(at, prefix - 1)].astype(np.int64)


def sample_unseen_negatives(
    rule: NegativeRule,
    split: int,
    user: Int32,
    *,
    owner: Int32,
    owned: Int32,
    items: int,
    weight: NDArray[np.float64] | None = None,
) -> Sampled:
    """Negatives of each click, out of all items that its user never had.

    Args:
        rule: how many, how, and the seed.
        split: its number; each split draws for itself.
        user: `[N]` whose clicks these are.
        owner: `[T]` whose items those of `owned` are.
        owned: `[T]` all items that users had at any time, from 1.
        items: how many items there are.
        weight: `[items]` by which `popularity` draws.
    """
    pool = unseen_pool(owner=owner, owned=owned, items=items, weight=weight)
    return pool.sample(rule, split, user, np.zeros(len(user), np.int64))


def unseen_pool(
    *, owner: Int32, owned: Int32, items: int, weight: NDArray[np.float64] | None = None
) -> Pool:
    """The pool of `sample_unseen_negatives`; the time of a click is 0 or later."""
    stride = items + 1
    return Pool(
        item=np.arange(1, stride, dtype=np.int32),
        since=np.zeros(items, np.int64),
        liked=distinct(owner.astype(np.int64) * stride + owned),
        stride=stride,
        weight=np.ones(items) if weight is None else weight,
    )


@dataclass(frozen=True)
class Sampled:
    """Negatives of all clicks one after another, and how many each click has."""

    item: Int32
    count: Int64

    @property
    def offsets(self) -> Int64:
        return offsets_of(self.count)


def _per_click(codes: Int64, pool: Pool, clicks: int) -> Int64:
    return np.bincount(codes // pool.stride, minlength=clicks)


def _contains(ordered: NDArray[Any], values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which values stand in a sorted array."""
    if not len(ordered):
        return np.zeros(len(values), bool)
    at = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    found: NDArray[np.bool_] = ordered[at] == values
    return found
