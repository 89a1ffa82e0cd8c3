"""How fast evaluation is: grouped metrics, and cached against uncached scoring.

    python benchmarks/evaluation.py [--part metrics|cache|memory]   # sizes of MIND's dev sets
    python benchmarks/evaluation.py --scale 0.1                     # a tenth of them

All figures are processor seconds of one run of one process on one thread. What would take hours (a
loop over groups, scoring without a cache) is timed on a part and scaled up; the part is stated.
Without a cache, rows are scored in four ways, from what a loader of (user, item) rows does to
batches in which nothing is padded or encoded twice:

- each row with its own history, 64 rows at a time; texts padded to 30 words (120 with abstracts),
  histories to 50 items
- 16 impressions at a time, whose candidates share the history; padded likewise
- the same without padding
- the same, and an item that occurs twice among the 16 impressions is encoded once

The tables are in docs/performance.md.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from ratios import add_json, write_ratios
from sklearn.metrics import ndcg_score, roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from legoray.config import EvaluateConfig, ModelConfig
from legoray.data.corpus import Corpus, Split
from legoray.data.recipes import InputSizes, Tokens
from legoray.data.tokens import TokenTable, gather_tokens, token_counts
from legoray.model.base import Batch, History, Shape
from legoray.model.inputs import Inputs
from legoray.model.recommender import Recommender, seeded
from legoray.train.batches import Numbering
from legoray.train.evaluate import evaluate
from legoray.train.memory import PeakMemory
from legoray.train.metrics import grouped_metrics
from legoray.train.scoring import Worker, score_split

NRMS = ModelConfig(
    hidden_size=64,
    content={"name": "attention"},
    behavior={"name": "attention"},
    predictor={"name": "dot"},
)
CANDIDATE_AWARE = tuple(
    ModelConfig(
        hidden_size=64,
        content={"name": "attention"},
        behavior={"name": behavior},
        predictor={"name": predictor},
    )
    for behavior, predictor in (("candidate-attention", "dot"), ("none", "din"))
)
MAX_HISTORY = 50
VOCABULARY = 30_000
METRICS = ["auc", "mrr", "ndcg@5", "ndcg@10"]


@dataclass(frozen=True)
class RandomTexts:
    """Items with texts of random words; `longest` is what others would pad them to."""

    table: TokenTable
    longest: int

    @classmethod
    def make(cls, rng: np.random.Generator, items: int, words: tuple[int, int]) -> RandomTexts:
        """Texts of `words[0]` to `words[1]` words, all lengths alike."""
        lengths = np.append(0, rng.integers(words[0], words[1] + 1, items))
        offsets = torch.from_numpy(np.append(0, np.cumsum(lengths)))
        ids = rng.integers(1, VOCABULARY, int(offsets[-1])).astype(np.int32)
        return cls(TokenTable(torch.from_numpy(ids), offsets), words[1] * 3 // 2)

    @property
    def sizes(self) -> InputSizes:
        return InputSizes(vocabulary=VOCABULARY)

    @property
    def item_count(self) -> int:
        return len(self.table.offsets) - 1

    def gather(self, items: Tensor) -> Tokens:
        return gather_tokens([self.table], items)

    def lengths(self, items: Tensor) -> Tensor:
        return token_counts([self.table], items)

    def save_assets(self, folder: Path) -> None:
        raise NotImplementedError("random words are not kept")


def make_corpus(rng: np.random.Generator, items: int, impressions: int, users: int) -> Corpus:
    """Popular items occur more often; about 37 candidates and histories of up to 100."""
    weight = 1 / np.arange(1, items + 1) ** 0.8

    def choose(size: int) -> NDArray[np.int32]:
        return rng.choice(items, size, p=weight / weight.sum()).astype(np.int32) + 1

    lengths = np.minimum(rng.geometric(1 / 33, users), 100)
    sizes = np.minimum(rng.geometric(1 / 36, impressions) + 1, 295)
    offsets = np.append(0, np.cumsum(sizes))
    label = np.zeros(offsets[-1], dtype=np.int8)
    label[offsets[:-1]] = 1
    history = rng.integers(0, users, impressions).astype(np.int32)
    split = Split(
        impression=np.arange(impressions),
        history=history,
        history_end=lengths[history].astype(np.int32),
        user=history,
        time=np.full(impressions, -1),
        offsets=offsets,
        clicks=np.ones(impressions, dtype=np.int32),
        item=choose(int(offsets[-1])),
        label=label,
    )
    return Corpus(
        name="random",
        fingerprint="random",
        item_count=items + 1,
        history_items=choose(int(lengths.sum())),
        history_offsets=np.append(0, np.cumsum(lengths)),
        splits={"valid": split},
    )


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds (so that whatever else runs does not count) and the result."""
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def loop_over_groups(
    scores: NDArray[np.float32], split: Split, impressions: int
) -> dict[str, float]:
    """Four metrics of some impressions, one after another, mostly by scikit-learn."""
    rows = []
    for start, end in zip(split.offsets[:impressions], split.offsets[1:], strict=False):
        y, s = split.label[start:end], scores[start:end]
        ranks = np.flatnonzero(y[np.argsort(-s)]) + 1
        ndcg = [ndcg_score(y[None], s[None], k=k) for k in (5, 10)]
        rows.append([roc_auc_score(y, s), (1 / ranks).mean(), *ndcg])
    return dict(zip(METRICS, np.mean(rows, axis=0).tolist(), strict=True))


def compare_metrics(split: Split, part: int) -> dict[str, float]:
    """All groups at once against a loop over groups; the ratios by name."""
    scores = np.random.default_rng(1).normal(size=split.rows).astype(np.float32)
    groups = np.repeat(np.arange(len(split)), np.diff(split.offsets))
    first = split.offsets[part]
    looped, wanted = seconds(lambda: loop_over_groups(scores, split, part))
    few = grouped_metrics(scores[:first], split.label[:first], groups[:first], METRICS)
    difference = max(abs(few[name] - value) for name, value in wanted.items())
    at_once, _ = seconds(lambda: grouped_metrics(scores, split.label, groups, METRICS))
    whole = looped * len(split) / part
    print(f"\n{', '.join(METRICS)} of {len(split):,} impressions, {split.rows:,} rows")
    print(f"  loop over groups (from {part:,} of them)   {whole:9.1f} s     1 x")
    print(f"  all groups at once                      {at_once:9.2f} s  {whole / at_once:5,.0f} x")
    rate = split.rows / at_once / 1e6
    print(f"  million rows/s {rate:.1f}, largest difference {difference:.1e}")
    return {
        "evaluation/metrics/x-loop": whole / at_once,
        "evaluation/metrics/million-rows": rate,
        "evaluation/metrics/difference": difference,
    }


@dataclass(frozen=True)
class Way:
    """One way to evaluate without a cache."""

    words: str
    rows: bool = False  # every row has a history of its own, else an impression's rows share it
    padded: bool = (
        False  # texts and histories have one length each, else what is longest in a batch
    )
    distinct: bool = False  # an item that occurs twice in a batch is encoded once


WAYS = (
    Way("each row with its own history, padded", rows=True, padded=True),
    Way("each impression, padded", padded=True),
    Way("each impression, unpadded"),
    Way("each item once per batch of 16", distinct=True),
)


@torch.no_grad()
def uncached(
    model: Recommender, texts: RandomTexts, corpus: Corpus, impressions: int, way: Way
) -> NDArray[np.float64]:
    """Scores of some impressions, 16 at a time (64 rows), items encoded anew in each batch."""
    split, number = corpus.splits["valid"], Numbering(corpus.item_count)
    scores = []
    for rows in _batches(split, impressions, way):
        owner = np.searchsorted(split.offsets, rows[:, 0], side="right") - 1
        inside = rows >= 0
        history = corpus.histories(split.history[owner], split.history_end[owner], MAX_HISTORY)
        candidates = np.where(inside, split.item[rows], 0).astype(np.int64)
        if way.distinct:
            items, (history, candidates) = number(history, candidates)
        else:
            if way.padded:
                history = np.pad(history, ((0, 0), (0, MAX_HISTORY - history.shape[1])))
            both = np.concatenate([history.ravel(), candidates[inside]])
            there = both > 0
            items = both if way.padded else both[there]
            places = np.arange(1, len(both) + 1) if way.padded else np.cumsum(there)
            both = np.where(there, places, 0)
            history, found = both[: history.size].reshape(history.shape), both[history.size :]
            candidates[inside] = found
        scores.append(_scores(model, texts, items, history, candidates, way)[inside])
    return np.concatenate(scores).astype(np.float64)


def _batches(split: Split, impressions: int, way: Way) -> Iterator[NDArray[np.int64]]:
    """Rows of the split `[B, K]`, those of one history in a row; -1 where there are fewer."""
    if way.rows:
        every = np.arange(split.offsets[impressions])[:, None]
        yield from (every[start : start + 64] for start in range(0, len(every), 64))
        return
    for start in range(0, impressions, 16):
        chosen = slice(start, min(start + 16, impressions))
        size = np.diff(split.offsets)[chosen]
        column = np.arange(size.max())
        rows = split.offsets[:-1][chosen][:, None] + column
        yield np.where(column < size[:, None], rows, -1)


def _scores(
    model: Recommender,
    texts: RandomTexts,
    items: NDArray[np.int64],
    history: NDArray[np.int64],
    candidates: NDArray[np.int64],
    way: Way,
) -> NDArray[np.float32]:
    """Scores `[B, K]`; item n of history and candidates is `items[n - 1]`."""
    tokens = texts.gather(torch.from_numpy(items))
    numbers = torch.from_numpy(history), torch.from_numpy(candidates)
    if not way.padded:
        return model(Batch(tokens, *numbers, torch.zeros(1))).numpy()
    wide = (0, texts.longest - tokens.mask.shape[1])
    padded = Tokens(*(F.pad(t, wide) for t in (tokens.ids, tokens.mask, tokens.attribute)))
    content: Any = model.content
    embedded = content.embed(padded.ids, padded.mask)
    vectors = content._encode(embedded, padded)  # all of them at once, in their full width
    table = F.pad(vectors, (0, 0, 1, 0))
    own, asked = (F.embedding(number, table) for number in numbers)
    user = model.encode_users(History(own, numbers[0] > 0))
    return model.score(user, asked).numpy()


def compare_caching(
    config: ModelConfig, corpus: Corpus, texts: RandomTexts, name: str, parts: tuple[int, int]
) -> dict[str, float]:
    """Evaluation with cached representations against without; the ratios by name.

    Args:
        config: the model.
        corpus: what is scored.
        texts: of its items.
        name: what they are called.
        parts: impressions that are scored row by row, and otherwise.
    """
    split = corpus.splits["valid"]
    shape = Shape(64, corpus.item_count, MAX_HISTORY, texts.sizes)
    model = seeded(config, shape, 1).eval()
    measured = EvaluateConfig(metrics=METRICS)
    evaluated = partial(
        evaluate, model, Inputs(texts), "valid", corpus, config=measured, max_history=MAX_HISTORY
    )
    cached, (_, scores) = seconds(evaluated)
    print(
        f"\n{config.label()} on {name}: {len(split):,} impressions, {split.rows:,} rows, ", end=""
    )
    print(f"{corpus.item_count - 1:,} items")
    worst, times = 0.0, []
    for way in WAYS:
        part = parts[0] if way.rows else parts[1]
        took, some = seconds(partial(uncached, model, texts, corpus, part, way))
        worst = max(worst, float(np.abs(some - scores[: len(some)]).max()))
        times.append((f"{way.words} (from {part:,} impressions)", took * split.rows / len(some)))
    for what, took in [*times, ("cached, metrics included", cached)]:
        ratios = f"{took / cached:9.1f} x   {split.rows / took:12,.0f} rows/s"
        print(f"  {what:62} {took:10.1f} s  {ratios}")
    print(f"  largest difference of a score {worst:.1e}")
    what = f"evaluation/{config.label()}/{name.replace(' ', '-')}"
    ways = ("rows", "padded", "unpadded", "distinct")
    return {f"{what}/{way}": took / cached for way, (_, took) in zip(ways, times, strict=True)}


def show_memory(rng: np.random.Generator, scale: float) -> None:
    """The memory that scoring takes besides the corpus, as the split grows."""
    items, users = int(10_000 * scale), int(10_000 * scale)
    print(f"\nmemory of scoring, {items:,} items and {users:,} users each time")
    for times in (1, 2, 4, 8):
        corpus = make_corpus(rng, items, int(20_000 * scale) * times, users)
        texts = RandomTexts.make(rng, items, (4, 20))
        model = seeded(NRMS, Shape(64, items + 1, MAX_HISTORY, texts.sizes), 1)
        split, alone = corpus.splits["valid"], Worker()
        gc.collect()
        before = psutil.Process().memory_info().rss / 2**20
        peak = PeakMemory(alone.device)
        score_split(model, Inputs(texts), split, corpus, max_history=MAX_HISTORY, worker=alone)
        own, scores = peak.mib() - before, split.rows * 8 / 2**20
        print(f"  {split.rows:>10,} rows: {own:7.1f} MiB, of which the scores {scores:7.1f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of MIND's size")
    parser.add_argument("--part", choices=("metrics", "cache", "memory"), help="all if not given")
    add_json(parser)
    given = parser.parse_args()
    scale, found = given.scale, dict[str, float]()
    torch.set_num_threads(1)
    if given.part in ("metrics", None):
        rng = np.random.default_rng(0)
        large = make_corpus(rng, int(72_000 * scale), int(376_471 * scale), int(255_990 * scale))
        found |= compare_metrics(large.splits["valid"], part=int(5_000 * min(scale * 10, 1)))
    if given.part in ("cache", None):
        rng = np.random.default_rng(0)
        items = int(42_416 * scale)
        small = make_corpus(rng, items, int(73_152 * scale), int(50_000 * scale))
        titles = RandomTexts.make(rng, items, (4, 20))
        abstracts = RandomTexts.make(rng, items, (20, 80))
        found |= compare_caching(NRMS, small, titles, "titles", (8, 160))
        found |= compare_caching(NRMS, small, abstracts, "titles with abstracts", (2, 48))
        for config in CANDIDATE_AWARE:
            found |= compare_caching(config, small, titles, "titles", (8, 160))
    if given.part in ("memory", None):
        show_memory(np.random.default_rng(0), scale)
    write_ratios(given.json, found)


if __name__ == "__main__":
    main()
