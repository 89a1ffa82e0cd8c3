"""One pass over each split's interactions, and one over the histories."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from legoray.data.corpus import Int32, Int64
from legoray.data.inspecting.result import ColdFacts, Distribution, Sparsity, SplitFacts
from legoray.data.inspecting.rows import Block, blocks_of, histories_of
from legoray.data.inspecting.tally import SparseTally, Tally
from legoray.data.schema import Manifest
from legoray.data.slices import Seen
from legoray.errors import DamagedError, Problem

Mask = NDArray[np.bool_]
HOUR = 3600


@dataclass
class SplitPass:
    """What one pass over a split gathers; arrays over users, items and histories are bounded."""

    name: str
    user_of: Int32  # [H] whose history each is
    users: int
    items: int
    clicks: Tally = field(default_factory=Tally)
    candidates: Tally = field(default_factory=Tally)
    past: Tally = field(default_factory=Tally)
    hours: SparseTally = field(default_factory=SparseTally)
    first: int | None = None
    last: int | None = None
    untimed: int = 0
    one_sided: int = 0
    pairs: list[Int64] = field(default_factory=list)  # user x items + item, of clicks

    def __post_init__(self) -> None:
        self.shown: Mask = np.zeros(self.items + 1, bool)
        self.clicked: Int64 = np.zeros(self.items + 1, np.int64)
        self.by_user: Int64 = np.zeros(self.users, np.int64)  # impressions

    def add(self, block: Block) -> None:
        """Gather some impressions."""
        clicks, shown = block.clicks, np.diff(block.offsets)
        self.clicks.add(clicks)
        self.candidates.add(shown)
        self.past.add(block.end)
        self.one_sided += int(((clicks == 0) | (clicks == shown)).sum())
        user = self.user_of[block.history]
        self.by_user += np.bincount(user, minlength=self.users)
        self.shown[block.item] = True
        liked = np.flatnonzero(block.label)
        self.clicked += np.bincount(block.item[liked], minlength=self.items + 1)
        whose = np.repeat(user, shown)[liked].astype(np.int64)
        self.pairs.append(np.unique(whose * (self.items + 1) + block.item[liked]))
        self._add_times(block.time)

    def _add_times(self, time: Int64) -> None:
        known = time[time >= 0]
        self.untimed += len(time) - len(known)
        if not len(known):
            return
        first, last = int(known.min()), int(known.max())
        self.first = first if self.first is None else min(first, self.first)
        self.last = last if self.last is None else max(last, self.last)
        self.hours.add(known // HOUR)

    def facts(self, manifest: Manifest) -> SplitFacts:
        """What is told of the split."""
        clicks, shown = self.clicks.distribution(), self.candidates.distribution()
        labeled = manifest.labeled[self.name]
        return SplitFacts(
            name=self.name,
            labeled=labeled,
            alone=self.name in manifest.full_ranking,
            impressions=shown.count,
            candidates=shown.total,
            clicks=clicks.total,
            users=int((self.by_user > 0).sum()),
            items_shown=int(self.shown.sum()),
            items_clicked=int((self.clicked > 0).sum()),
            one_sided=self.one_sided if labeled else 0,
            clicks_each=clicks,
            candidates_each=shown,
            history=self.past.distribution(),
            first=self.first,
            last=self.last,
            untimed=self.untimed,
        )


@dataclass(frozen=True)
class Histories:
    """What a pass over the histories gathers."""

    user: Int32  # [H]
    lengths: Distribution


def pass_histories(tables: Path, manifest: Manifest) -> Histories:
    """Whose histories there are, and how long they are."""
    users, lengths = [np.zeros(0, np.int32)], Tally()
    for user, offsets, _ in histories_of(tables, manifest):
        users.append(user)
        lengths.add(np.diff(offsets))
    return Histories(np.concatenate(users), lengths.distribution())


def pass_split(tables: Path, manifest: Manifest, split: str, user_of: Int32) -> SplitPass:
    """One pass over the interactions of a split.

    Raises:
        DamagedError: they are not what the manifest says.
    """
    users, items = manifest.counts["users"], manifest.counts["items"]
    gathered = SplitPass(split, user_of, users, items)
    for block in blocks_of(tables, manifest, split):
        gathered.add(block)
    shown = gathered.candidates.distribution()
    found = (shown.count, shown.total)
    expected = (manifest.counts[f"impressions/{split}"], manifest.counts[f"rows/{split}"])
    if found != expected:
        where = f"{tables}/interactions/{split}"
        message = f"impressions and their rows are {found}, by the manifest {expected}"
        hint = "delete the prepared folder and prepare again"
        raise DamagedError(Problem(where, message, hint))
    return gathered


def cold_of(split: SplitPass, seen: Seen, manifest: Manifest) -> ColdFacts:
    """What a later split has that train had not."""
    users, clicked, labeled = split.by_user > 0, split.clicked > 0, manifest.labeled[split.name]
    return ColdFacts(
        split=split.name,
        users=int(users.sum()),
        new_users=int((users & ~seen.users).sum()),
        items=int(split.shown.sum()),
        new_items=int((split.shown & ~seen.items).sum()),
        clicked=int(clicked.sum()) if labeled else None,
        new_clicked=int((clicked & ~seen.items).sum()) if labeled else None,
    )


def sparsity_of(passes: list[SplitPass], manifest: Manifest) -> Sparsity:
    """How many pairs of users and items there are a click of."""
    pairs = [part for one in passes for part in one.pairs]
    distinct = len(np.unique(np.concatenate(pairs))) if pairs else 0
    return Sparsity(users=manifest.counts["users"], items=manifest.counts["items"], pairs=distinct)
