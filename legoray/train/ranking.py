"""Full ranking: each click against all items, by counting how many score higher.

Items are encoded once and users once; then blocks of users meet all items. Of each block only
counts are kept, so that memory does not grow with the split, and nothing is sorted. What a click is
ranked against are all items but those of the user's history (all of it, not only the part that the
model reads) and the other clicks of the same impression.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from legoray.data.corpus import Corpus, Split
from legoray.data.ragged import expand, rows_of
from legoray.errors import InfeasibleError, Problem
from legoray.model.base import UserState
from legoray.model.inputs import Inputs
from legoray.model.recommender import Recommender
from legoray.train.memory import within_memory
from legoray.train.scoring import Float, Int, Scorer, Worker
from legoray.train.ties import TieBlocks, changes

BLOCK = {"cpu": 2**21, "cuda": 2**27}  # scores of users with all items that are held at once
UNDEFINED = {
    "logloss": "is of probabilities of listed candidates",
    "pooled_auc": "would compare the scores of different users",
}

Scores = Callable[[Int], Tensor]  # impressions [B] -> scores [B, N], item c in column c - 1


@dataclass(frozen=True)
class Ranks:
    """Where each click of a split stands among what it is ranked against."""

    score: Float  # [R] of the clicks
    above: Int  # [R] how many others score higher
    equal: Int  # [R] how many others score the same
    others: Int  # [I] how many others the clicks of an impression are ranked against


def ranking_problems(metrics: Sequence[str], group: str) -> list[Problem]:
    """What cannot be measured where clicks are ranked against all items."""
    hint = "leave it out, or prepare the data with candidates: sampled"
    problems = [
        Problem("evaluate.metrics", f"{name} {UNDEFINED[name]}: not defined for full ranking", hint)
        for name in metrics
        if name in UNDEFINED
    ]
    if group == "user":
        message = "is 'user', but full ranking measures each impression by itself"
        problems.append(Problem("evaluate.group", message, "set group: impression"))
    return problems


@torch.no_grad()
def rank_split(
    recommender: Recommender,
    inputs: Inputs,
    split: Split,
    corpus: Corpus,
    *,
    max_history: int,
    worker: Worker,
) -> Ranks:
    """Rank the clicks of a split; every worker gets the whole result.

    Each worker encodes a share of the items and ranks a share of the impressions.

    Raises:
        InfeasibleError: a score is NaN, or memory does not suffice.
    """
    training = recommender.training
    recommender.eval()
    try:
        scorer = Scorer(recommender, inputs, split, corpus, max_history, worker)
        scorer.encode_items(np.arange(1, corpus.item_count))
        cuts = np.linspace(0, len(split), worker.world + 1).astype(np.int64)
        mine = np.arange(cuts[worker.rank], cuts[worker.rank + 1])
        scores = _ModelScores(scorer, split, corpus, mine)
        return rank_impressions(scores, split, corpus, mine, worker)
    finally:
        recommender.train(training)


def rank_impressions(
    scores: Scores, split: Split, corpus: Corpus, impressions: Int, worker: Worker
) -> Ranks:
    """Rank the clicks of some neighbouring impressions; each worker has its own.

    Args:
        scores: gives the scores of impressions with all items.
        split: whose impressions these are.
        corpus: of the split.
        impressions: `[J]` of this worker, rising.
        worker: this worker, on whose device the scores are.

    Raises:
        InfeasibleError: a score is NaN, or memory does not suffice.
    """
    device = worker.device
    counts = torch.zeros(2, split.rows, dtype=torch.int64, device=device)
    others = torch.zeros(len(split), dtype=torch.int64, device=device)
    clicks = torch.zeros(split.rows, dtype=torch.float64, device=device)

    def rank(budget: int) -> None:
        size = max(budget // max(corpus.item_count - 1, 1), 1)
        for start in range(0, len(impressions), size):
            block = impressions[start : start + size]
            rows = slice(split.offsets[block[0]], split.offsets[block[-1] + 1])
            clicks[rows], counts[:, rows], number = _rank_block(scores(block), split, corpus, block)
            others[block[0] : block[-1] + 1] = number

    within_memory(rank, BLOCK.get(device.type, BLOCK["cuda"]), device)
    for values in (counts, others, clicks):
        worker.add_up(values)
    above, equal = counts.cpu().numpy()
    return Ranks(clicks.cpu().numpy(), above, equal, others.cpu().numpy())


def _rank_block(
    scores: Tensor, split: Split, corpus: Corpus, block: Int
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores `[C]` of a block's clicks, what is above and beside them `[2, C]`, others `[B]`.

    `scores [B, N]` is written to: what a click is not ranked against becomes NaN, which is neither
    higher than anything nor equal to it.
    """
    if bool(torch.isnan(scores.amax())):
        raise InfeasibleError("scores of items are NaN")
    number = np.diff(split.offsets)[block]
    owner = np.repeat(np.arange(len(block)), number)
    rows = slice(split.offsets[block[0]], split.offsets[block[-1] + 1])
    item = split.item[rows].astype(np.int64) - 1
    row, column = _left_out(split, corpus, block, owner, item)
    at = _on(scores, owner), _on(scores, item)
    click = scores[at]
    scores[_on(scores, row), _on(scores, column)] = torch.nan
    own = scores if len(owner) == len(block) and (number == 1).all() else scores[at[0]]
    above = (own > click[:, None]).sum(1)
    equal = (own == click[:, None]).sum(1)
    left = scores.shape[1] - np.bincount(row, minlength=len(block))
    return click.double(), torch.stack([above, equal]), _on(scores, left)


def _left_out(split: Split, corpus: Corpus, block: Int, owner: Int, item: Int) -> tuple[Int, Int]:
    """Rows and columns of what clicks are not ranked against: the histories, and all clicks."""
    end = split.history_end[block].astype(np.int64)
    past = expand(corpus.history_offsets[split.history[block]], end)
    row = np.concatenate([np.repeat(np.arange(len(block)), end), owner])
    column = np.concatenate([corpus.history_items[past].astype(np.int64) - 1, item])
    code = np.unique(row * (corpus.item_count - 1) + column)
    return code // (corpus.item_count - 1), code % (corpus.item_count - 1)


def _on(like: Tensor, values: Int) -> Tensor:
    return torch.from_numpy(values).to(like.device)


class _ModelScores:
    """A model's scores of impressions with all items."""

    def __init__(self, scorer: Scorer, split: Split, corpus: Corpus, impressions: Int) -> None:
        self._scorer, self._split = scorer, split
        self._items = np.arange(1, corpus.item_count)
        # item c in row c - 1
        order = torch.from_numpy(scorer.number[1:]).to(scorer.vectors.device)
        self._vectors = scorer.vectors[order]
        self._first = int(impressions[0]) if len(impressions) else 0
        self._someone, self._user = scorer.users(impressions)
        self._cache = scorer.cached_users(self._someone) if len(impressions) else None

    def __call__(self, block: Int) -> Tensor:
        scorer = self._scorer
        user = self._user[block - self._first]
        state = scorer.state(self._cache, self._someone, user)
        with scorer.worker.autocast():
            scores = scorer.model.score_all(state, self._vectors)
        return self._in_pieces(state, block) if scores is None else scores.float()

    def _in_pieces(self, state: UserState, block: Int) -> Tensor:
        """Scores by the predictor's own rule, of as many items at once as the budget allows."""
        scorer, total = self._scorer, len(self._items)
        out = torch.empty(len(block), total, device=self._vectors.device)
        size = max(scorer.budgets[1] // (len(block) * scorer.width(self._cache)), 1)
        for start in range(0, total, size):
            piece = slice(start, min(start + size, total))
            vectors = self._vectors[piece].expand(len(block), -1, -1)
            asked = np.broadcast_to(self._items[piece], (len(block), len(self._items[piece])))
            fields = scorer.inputs.of_fields(self._split, block, asked)
            fields = fields if fields is None else fields.to(out.device)
            with scorer.worker.autocast():
                out[:, piece] = scorer.model.score(state, vectors, fields).float()
        return out


def ranked_blocks(ranks: Ranks, split: Split) -> TieBlocks:
    """The ties in which the clicks of each impression stand.

    Those without a click are left out, which no metric looks at. Groups are impressions; of those
    whose clicks are ranked against nothing, none.
    """
    group = rows_of(split.offsets)
    order = np.lexsort((-ranks.score, group))
    group, score = group[order], ranks.score[order]
    new_group = changes(group)
    start = np.flatnonzero(new_group | changes(score))
    clicks = np.diff(np.append(start, len(group)))
    number = np.cumsum(new_group)[start] - 1
    first = np.flatnonzero(new_group)
    key = group[first]
    others, group_clicks = ranks.others[key], np.diff(split.offsets)[key]
    some = others > 0
    kept = some[number]
    start, clicks, number = start[kept], clicks[kept], number[kept]
    clicks_above = start - first[number]
    return TieBlocks(
        group=(np.cumsum(some) - 1)[number],
        above=ranks.above[order][start] + clicks_above,
        size=ranks.equal[order][start] + clicks,
        clicks=clicks,
        clicks_above=clicks_above,
        group_size=(others + group_clicks)[some],
        group_clicks=group_clicks[some],
        left_out=int((~some).sum()),
        key=key[some],
    )
