"""Scores with cached representations: items once, histories once, then only the predictor.

Every item that a split needs is encoded once, in blocks of like length, and shared out among the
workers. Every distinct history is encoded once where the user state is small (`vector`,
`interests`); a `sequence` is put together from the item vectors block by block, because all of them
at once would not fit. Then the predictor scores blocks of impressions with like numbers of
candidates. All blocks are bounded by a budget of numbers, which falls where memory runs out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from legoray.data.corpus import Corpus, Split
from legoray.data.recipes import ItemInput
from legoray.model.base import History, UserState
from legoray.model.features import Features
from legoray.model.inputs import Inputs, user_numbers
from legoray.model.recommender import Recommender
from legoray.train.memory import within_memory

Int = NDArray[np.int64]
Float = NDArray[np.float64]

# Tokens that are encoded at once, and numbers in the largest tensor of a block, roughly. On a CPU
# blocks that fit its caches are fastest; a GPU wants work enough for all of its cores.
BUDGETS = {"cpu": (2**14, 2**19), "cuda": (2**17, 2**24)}
PIECE = 512  # candidates of one impression that are scored at once
MOST_ITEMS = 2**13


@dataclass(frozen=True)
class Worker:
    """Which of how many workers this is, and how it computes."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "float32"

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """bfloat16 where the precision asks for it."""
        enabled = self.precision == "bfloat16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)

    def add_up(self, values: Tensor) -> Tensor:
        """The sum over all workers, in place."""
        if self.world > 1:
            torch.distributed.all_reduce(values)
        return values


@torch.no_grad()
def score_split(
    recommender: Recommender,
    inputs: Inputs,
    split: Split,
    corpus: Corpus,
    *,
    max_history: int,
    worker: Worker,
) -> Float:
    """Raw scores `[rows]` of a split, in its order, on every worker.

    Each worker encodes a share of the items and scores a share of the impressions.
    """
    training = recommender.training
    recommender.eval()
    try:
        scorer = Scorer(recommender, inputs, split, corpus, max_history, worker)
        scorer.encode_items(needed_items(split, corpus, max_history))
        scores = torch.zeros(split.rows, device=worker.device)
        cuts = np.linspace(0, split.rows, worker.world + 1)
        first, last = np.searchsorted(split.offsets, cuts)[worker.rank : worker.rank + 2]
        start, end = split.offsets[first], split.offsets[last]
        scores[start:end] = scorer.score(np.arange(first, last))
        return worker.add_up(scores).double().cpu().numpy()
    finally:
        recommender.train(training)


def needed_items(split: Split, corpus: Corpus, max_history: int) -> Int:
    """The distinct items `[N]` among a split's candidates and the histories that are read."""
    end = corpus.history_offsets[split.history] + split.history_end
    start = np.maximum(corpus.history_offsets[split.history], end - max_history)
    size = len(corpus.history_items) + 1
    open_at = np.cumsum(np.bincount(start, minlength=size) - np.bincount(end, minlength=size))
    mark = np.zeros(corpus.item_count, dtype=bool)
    mark[corpus.history_items[open_at[:-1] > 0]] = True
    mark[split.item] = True
    return np.flatnonzero(mark)


def blocks_of(lengths: Int, budget: int, most: int) -> Iterator[slice]:
    """Cut rows that stand in falling order of length, so that rows x longest fits the budget."""
    start = 0
    while start < len(lengths):
        size = min(max(budget // max(int(lengths[start]), 1), 1), most)
        yield slice(start, start + size)
        start += size


class Scorer:
    """The caches of one evaluation."""

    def __init__(
        self,
        recommender: Recommender,
        inputs: Inputs,
        split: Split,
        corpus: Corpus,
        max_history: int,
        worker: Worker,
    ) -> None:
        self.model, self._split, self._corpus = recommender, split, corpus
        self.inputs, self._max_history, self.worker = inputs, max_history, worker
        self.budgets = BUDGETS.get(worker.device.type, BUDGETS["cuda"])
        self.number = np.zeros(corpus.item_count, dtype=np.int64)
        self.vectors = torch.empty(0)
        self._history_items: ItemInput | None = None
        behavior = recommender.behavior
        self.cacheable = behavior.produces != "sequence" and not behavior.looks_at_candidates

    # --- items

    def encode_items(self, items: Int) -> None:
        """Fill the table of vectors `[N + 1, D]` of these items, row 0 of which is padding."""
        features = self.inputs.items
        lengths = features.lengths(torch.from_numpy(items)).numpy()
        order = np.argsort(-lengths, kind="stable")
        items, lengths = items[order], lengths[order]
        self.number[items] = np.arange(1, len(items) + 1)
        self.vectors = within_memory(
            lambda budget: self._item_table(features, items, lengths, budget),
            self.budgets[0],
            self.worker.device,
        )
        self.worker.add_up(self.vectors)
        own = self.inputs.of_history(torch.from_numpy(items))
        self._history_items = own if own is None else own.to(self.worker.device)

    def _item_table(self, features: Features, items: Int, lengths: Int, budget: int) -> Tensor:
        """This worker's share of the vectors, and zeros for the others'."""
        rank, world = self.worker.rank, self.worker.world
        mine = np.arange(len(items)) % world == rank  # of every length as many
        places = np.flatnonzero(mine) if mine.any() else np.zeros(1, dtype=np.int64)
        table = torch.empty(0)
        for block in blocks_of(lengths[places], budget, MOST_ITEMS):
            vectors = self._encode(features, items[places[block]])
            if not table.numel():
                table = vectors.new_zeros(len(items) + 1, vectors.shape[1])
            table[torch.from_numpy(places[block] + 1).to(table.device)] = vectors
        return table if mine.any() else torch.zeros_like(table)

    def _encode(self, features: Features, items: Int) -> Tensor:
        inputs = features.gather(torch.from_numpy(items)).to(self.worker.device)
        with self.worker.autocast():
            return self.model.encode_items(inputs).float()

    # --- users

    def users(self, impressions: Int) -> tuple[Int, Int]:
        """One impression of each distinct (history, end) `[U]`, and which of them each has."""
        ends = self._split.history_end[impressions].astype(np.int64)
        key = self._split.history[impressions].astype(np.int64) * (ends.max(initial=0) + 1) + ends
        _, first, user = np.unique(key, return_index=True, return_inverse=True)
        return impressions[first], user

    def _encode_users(self, impressions: Int) -> UserState:
        history = self._corpus.histories(
            self._split.history[impressions],
            self._split.history_end[impressions],
            self._max_history,
        )
        numbers = torch.from_numpy(self.number[history]).to(self.worker.device)
        with self.worker.autocast():
            return self.model.encode_users(
                History(
                    vectors=F.embedding(numbers, self.vectors),
                    mask=numbers > 0,
                    users=user_numbers(self._corpus, self._split, impressions).to(numbers.device),
                    inputs=self._history_items,
                    items=numbers,
                )
            )

    def cached_users(self, someone: Int) -> UserState | None:
        """The states of one impression's user each; None where they are too big to keep."""
        if not self.cacheable:
            return None
        return within_memory(
            lambda budget: self._user_cache(someone, budget), self.budgets[1], self.worker.device
        )

    def _user_cache(self, impressions: Int, budget: int) -> UserState:
        """They are encoded in blocks of like length."""
        lengths = np.minimum(self._split.history_end[impressions], self._max_history)
        order = np.argsort(-lengths, kind="stable")
        width = max(self.vectors.shape[1], self.model.behavior.work())
        blocks = blocks_of(lengths[order] * width, budget, len(order))
        states = [self._encode_users(impressions[order[block]]) for block in blocks]
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return _joined(states).select(torch.from_numpy(back).to(self.worker.device))

    # --- scores

    def score(self, impressions: Int) -> Tensor:
        """Scores of all rows of neighbouring impressions, in their order."""
        device = self.worker.device
        if not len(impressions):
            return torch.zeros(0, device=device)
        someone, user = self.users(impressions)
        cache = self.cached_users(someone)
        return within_memory(
            lambda budget: self._score(impressions, someone, user, cache, budget),
            self.budgets[1],
            device,
        )

    def _score(
        self, impressions: Int, someone: Int, user: Int, cache: UserState | None, budget: int
    ) -> Tensor:
        offsets = self._split.offsets
        base = offsets[impressions[0]]
        total = int(offsets[impressions[-1] + 1] - base)
        out = torch.zeros(total + 1, device=self.worker.device)  # the last place is for padding
        start, count, owner = _pieces(offsets[impressions] - base, offsets[impressions + 1] - base)
        # Neighbours of one user share a block, so that its history is put together once.
        order = np.lexsort((user[owner], -count))
        start, count, owner = start[order], count[order], owner[order]
        user = user[owner]
        raw = self._split.item[base : base + total]
        items = self.number[raw]
        width = self.width(cache)
        for block in blocks_of(count * width, budget, len(count)):
            column = np.arange(count[block][0])
            inside = column < count[block][:, None]
            rows = np.where(inside, start[block][:, None] + column, total)
            numbers = np.where(inside, items[np.minimum(rows, total - 1)], 0)
            candidates = F.embedding(self._on_device(numbers), self.vectors)
            state = self.state(cache, someone, user[block])
            asked = np.where(inside, raw[np.minimum(rows, total - 1)], 0).astype(np.int64)
            fields = self.inputs.of_fields(self._split, impressions[owner[block]], asked)
            fields = fields if fields is None else fields.to(self.worker.device)
            with self.worker.autocast():
                scores = self.model.score(state, candidates, fields)
            out[self._on_device(rows)] = scores.float()
        return out[:-1]

    def state(self, cache: UserState | None, someone: Int, user: Int) -> UserState:
        """The states of some users, as `users` numbers them."""
        if cache is not None:
            return cache.select(self._on_device(user))
        distinct, inverse = np.unique(user, return_inverse=True)
        return self._encode_users(someone[distinct]).select(self._on_device(inverse))

    def width(self, cache: UserState | None) -> int:
        """Numbers that scoring one candidate takes, roughly."""
        size = max(self.vectors.shape[1], self.model.predictor.work())
        if cache is None:
            return 4 * size * self._max_history
        return size if cache.kind == "vector" else size * cache.values.shape[1]

    def _on_device(self, values: Int) -> Tensor:
        return torch.from_numpy(values).to(self.worker.device)


def _joined(states: Sequence[UserState]) -> UserState:
    return UserState(states[0].kind, torch.cat([state.values for state in states]))


def _pieces(start: Int, end: Int) -> tuple[Int, Int, Int]:
    """Cut ranges of rows into pieces of at most `PIECE`: their starts, sizes and ranges."""
    parts = -(-(end - start) // PIECE)
    owner = np.repeat(np.arange(len(start)), parts)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(parts) - parts, parts)
    first = start[owner] + place * PIECE
    return first, np.minimum(end[owner] - first, PIECE), owner
