"""Evaluation with cached representations: items once, histories once, then only the predictor.

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

from legoray.config import EvaluateConfig
from legoray.data.corpus import Corpus, Split
from legoray.data.recipes import ItemInput
from legoray.errors import InfeasibleError, InputError, Problem
from legoray.model.base import History, UserState
from legoray.model.features import Features
from legoray.model.inputs import Inputs, user_numbers
from legoray.model.recommender import Recommender
from legoray.train.memory import within_memory
from legoray.train.metrics import POOLED, metrics_of, tie_blocks

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


def evaluate(
    recommender: Recommender,
    inputs: Inputs,
    split: str,
    corpus: Corpus,
    *,
    config: EvaluateConfig,
    max_history: int,
    worker: Worker | None = None,
) -> tuple[dict[str, float], Float]:
    """Score a split and measure the scores; every worker gets the whole result.

    Args:
        recommender: the model, on the worker's device; its mode (training or not) is kept.
        inputs: what the model reads.
        split: name of a split of the corpus.
        corpus: histories and splits.
        config: metrics and grouping key.
        max_history: items of a history at most.
        worker: this worker; alone on the CPU where it is not given.

    Returns:
        The metrics (none where the split has no labels) and the raw scores `[rows]` in the order of
        the split.

    Raises:
        InputError: there is no such split, or it has no group with a click and a non-click.
        InfeasibleError: a score is NaN.
    """
    rows = split_of(corpus, split)
    scores = score_split(
        recommender, inputs, rows, corpus, max_history=max_history, worker=worker or Worker()
    )
    return measure(scores, split, corpus, config), scores


def split_of(corpus: Corpus, name: str) -> Split:
    """A split by name.

    Raises:
        InputError: the data set has none of that name, or it is empty.
    """
    split = corpus.splits.get(name)
    if split is None or not split.rows:
        known = ", ".join(name for name, one in corpus.splits.items() if one.rows) or "none"
        raise InputError(
            Problem(f"data set {corpus.name}", f"the split '{name}' is empty", f"it has: {known}")
        )
    return split


def groups_of(split: Split, group: str) -> Int:
    """The group of each row `[rows]`: its impression's or its user's number."""
    numbers = split.user.astype(np.int64) if group == "user" else np.arange(len(split))
    return np.repeat(numbers, np.diff(split.offsets))


def group_counts(split: Split, group: str) -> tuple[int, int]:
    """How many groups have both a click and a non-click, and how many are left out."""
    numbers = split.user if group == "user" else np.arange(len(split))
    clicks = np.bincount(numbers, weights=split.clicks)
    rows = np.bincount(numbers, weights=np.diff(split.offsets))
    both = int(((clicks > 0) & (clicks < rows)).sum())
    return both, int((rows > 0).sum()) - both


def measure(scores: Float, split: str, corpus: Corpus, config: EvaluateConfig) -> dict[str, float]:
    """The metrics of a split's raw scores; empty where the split has no labels.

    Raises:
        InputError: the split has no group with both a click and a non-click.
        InfeasibleError: a score is NaN.
    """
    rows = split_of(corpus, split)
    if not rows.labeled:
        return {}
    bad = int(np.isnan(scores).sum())
    if bad:
        raise InfeasibleError(f"{bad} of {len(scores)} scores of the {split} split are NaN")
    group = config.group or corpus.group
    blocks = tie_blocks(scores, rows.label, groups_of(rows, group))
    if not len(blocks) and any(name not in POOLED for name in config.metrics):
        raise InputError(
            Problem(
                f"data set {corpus.name}",
                f"the {split} split has no {group} with both a click and a non-click",
                "nothing can be measured on it",
            )
        )
    return metrics_of(blocks, scores, rows.label, config.metrics)


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
        scorer = _Scorer(recommender, inputs, split, corpus, max_history, worker)
        scorer.encode_items(inputs.items)
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


class _Scorer:
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
        self._model, self._split, self._corpus = recommender, split, corpus
        self._inputs, self._max_history, self._worker = inputs, max_history, worker
        self._budgets = BUDGETS.get(worker.device.type, BUDGETS["cuda"])
        self._number = np.zeros(corpus.item_count, dtype=np.int64)
        self._vectors = torch.empty(0)
        self._history_items: ItemInput | None = None
        behavior = recommender.behavior
        self._cacheable = behavior.produces != "sequence" and not behavior.looks_at_candidates

    # --- items

    def encode_items(self, features: Features) -> None:
        """Fill the table of item vectors `[N + 1, D]`, row 0 of which is padding."""
        items = needed_items(self._split, self._corpus, self._max_history)
        lengths = features.lengths(torch.from_numpy(items)).numpy()
        order = np.argsort(-lengths, kind="stable")
        items, lengths = items[order], lengths[order]
        self._number[items] = np.arange(1, len(items) + 1)
        self._vectors = within_memory(
            lambda budget: self._item_table(features, items, lengths, budget),
            self._budgets[0],
            self._worker.device,
        )
        self._worker.add_up(self._vectors)
        own = self._inputs.of_history(torch.from_numpy(items))
        self._history_items = own if own is None else own.to(self._worker.device)

    def _item_table(self, features: Features, items: Int, lengths: Int, budget: int) -> Tensor:
        """This worker's share of the vectors, and zeros for the others'."""
        rank, world = self._worker.rank, self._worker.world
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
        inputs = features.gather(torch.from_numpy(items)).to(self._worker.device)
        with self._worker.autocast():
            return self._model.encode_items(inputs).float()

    # --- users

    def _users(self, impressions: Int) -> tuple[Int, Int]:
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
        numbers = torch.from_numpy(self._number[history]).to(self._worker.device)
        with self._worker.autocast():
            return self._model.encode_users(
                History(
                    vectors=F.embedding(numbers, self._vectors),
                    mask=numbers > 0,
                    users=user_numbers(self._corpus, self._split, impressions).to(numbers.device),
                    inputs=self._history_items,
                    items=numbers,
                )
            )

    def _user_cache(self, impressions: Int, budget: int) -> UserState:
        """The states of one impression's user each, encoded in blocks of like length."""
        lengths = np.minimum(self._split.history_end[impressions], self._max_history)
        order = np.argsort(-lengths, kind="stable")
        width = max(self._vectors.shape[1], self._model.behavior.work())
        blocks = blocks_of(lengths[order] * width, budget, len(order))
        states = [self._encode_users(impressions[order[block]]) for block in blocks]
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return _joined(states).select(torch.from_numpy(back).to(self._worker.device))

    # --- scores

    def score(self, impressions: Int) -> Tensor:
        """Scores of all rows of neighbouring impressions, in their order."""
        device = self._worker.device
        if not len(impressions):
            return torch.zeros(0, device=device)
        someone, user = self._users(impressions)
        cache = None
        if self._cacheable:
            cache = within_memory(lambda b: self._user_cache(someone, b), self._budgets[1], device)
        return within_memory(
            lambda budget: self._score(impressions, someone, user, cache, budget),
            self._budgets[1],
            device,
        )

    def _score(
        self, impressions: Int, someone: Int, user: Int, cache: UserState | None, budget: int
    ) -> Tensor:
        offsets = self._split.offsets
        base = offsets[impressions[0]]
        total = int(offsets[impressions[-1] + 1] - base)
        out = torch.zeros(total + 1, device=self._worker.device)  # the last place is for padding
        start, count, owner = _pieces(offsets[impressions] - base, offsets[impressions + 1] - base)
        # Neighbours of one user share a block, so that its history is put together once.
        order = np.lexsort((user[owner], -count))
        start, count, owner = start[order], count[order], owner[order]
        user = user[owner]
        raw = self._split.item[base : base + total]
        items = self._number[raw]
        width = self._width(cache)
        for block in blocks_of(count * width, budget, len(count)):
            column = np.arange(count[block][0])
            inside = column < count[block][:, None]
            rows = np.where(inside, start[block][:, None] + column, total)
            numbers = np.where(inside, items[np.minimum(rows, total - 1)], 0)
            candidates = F.embedding(self._on_device(numbers), self._vectors)
            state = self._state(cache, someone, user[block])
            asked = np.where(inside, raw[np.minimum(rows, total - 1)], 0).astype(np.int64)
            fields = self._inputs.of_fields(self._split, impressions[owner[block]], asked)
            fields = fields if fields is None else fields.to(self._worker.device)
            with self._worker.autocast():
                scores = self._model.score(state, candidates, fields)
            out[self._on_device(rows)] = scores.float()
        return out[:-1]

    def _state(self, cache: UserState | None, someone: Int, user: Int) -> UserState:
        if cache is not None:
            return cache.select(self._on_device(user))
        distinct, inverse = np.unique(user, return_inverse=True)
        return self._encode_users(someone[distinct]).select(self._on_device(inverse))

    def _width(self, cache: UserState | None) -> int:
        """Numbers that scoring one candidate takes, roughly."""
        size = max(self._vectors.shape[1], self._model.predictor.work())
        if cache is None:
            return 4 * size * self._max_history
        return size if cache.kind == "vector" else size * cache.values.shape[1]

    def _on_device(self, values: Int) -> Tensor:
        return torch.from_numpy(values).to(self._worker.device)


def _joined(states: Sequence[UserState]) -> UserState:
    return UserState(states[0].kind, torch.cat([state.values for state in states]))


def _pieces(start: Int, end: Int) -> tuple[Int, Int, Int]:
    """Cut ranges of rows into pieces of at most `PIECE`: their starts, sizes and ranges."""
    parts = -(-(end - start) // PIECE)
    owner = np.repeat(np.arange(len(start)), parts)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(parts) - parts, parts)
    first = start[owner] + place * PIECE
    return first, np.minimum(end[owner] - first, PIECE), owner
