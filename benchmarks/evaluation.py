"""How fast evaluation is: grouped metrics, and cached against uncached scoring.

    python benchmarks/evaluation.py              # sizes of MIND's dev sets, some minutes
    python benchmarks/evaluation.py --scale 0.1  # a tenth of them

All figures of a table are processor seconds of one run of one process on one thread. What would
take hours (a loop over groups, scoring without a cache) is timed on a part and scaled up; the part
is stated.

A run of the first command (processor without AMX, one thread, a machine busy with other work, so
that the ratios of two runs differ by up to a half):

auc, mrr, ndcg@5, ndcg@10 of 376,471 impressions, 13,907,920 rows
  loop over groups (from 5,000 of them)             1286.8 s       1 x
  all groups at once                                   6.0 s     213 x
attention+attention+dot on titles: 73,152 impressions, 2,697,943 rows, 42,416 items
  every occurrence encoded (from 160 impressions)    144.3 s     1.0 x
  each item once per batch of 16                     121.5 s     1.2 x
  cached, metrics included                             4.7 s    30.8 x
attention+attention+dot on titles with abstracts: 73,152 impressions, 2,697,943 rows, 42,416 items
  every occurrence encoded (from 160 impressions)    577.8 s     1.0 x
  each item once per batch of 16                     494.3 s     1.2 x
  cached, metrics included                             8.5 s    67.7 x

With the cache, a cheap content operator leaves little to save: more than half of the time goes to
the users' self-attention, which each distinct history needs once in any case.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import ndcg_score, roc_auc_score
from torch import Tensor

from legoray.config import EvaluateConfig, ModelConfig
from legoray.data.corpus import Corpus, Split
from legoray.data.recipes import InputSizes, Tokens
from legoray.data.tokens import TokenTable, gather_tokens, token_counts
from legoray.model.base import Batch, Shape
from legoray.model.inputs import Inputs
from legoray.model.recommender import Recommender, seeded
from legoray.train.batches import Numbering
from legoray.train.evaluate import evaluate
from legoray.train.metrics import grouped_metrics

NRMS = ModelConfig(
    hidden_size=64,
    content={"name": "attention"},
    behavior={"name": "attention"},
    predictor={"name": "dot"},
)
MAX_HISTORY = 50
VOCABULARY = 30_000
METRICS = ["auc", "mrr", "ndcg@5", "ndcg@10"]


@dataclass(frozen=True)
class RandomTexts:
    """Items with texts of random words."""

    table: TokenTable

    @classmethod
    def make(cls, rng: np.random.Generator, items: int, words: tuple[int, int]) -> RandomTexts:
        """Texts of `words[0]` to `words[1]` words, all lengths alike."""
        lengths = np.append(0, rng.integers(words[0], words[1] + 1, items))
        offsets = torch.from_numpy(np.append(0, np.cumsum(lengths)))
        ids = rng.integers(1, VOCABULARY, int(offsets[-1])).astype(np.int32)
        return cls(TokenTable(torch.from_numpy(ids), offsets))

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


def compare_metrics(split: Split, part: int) -> None:
    """All groups at once against a loop over groups."""
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
    print(f"  million rows/s {split.rows / at_once / 1e6:.1f}, largest difference {difference:.1e}")


@torch.no_grad()
def uncached(
    model: Recommender, texts: RandomTexts, corpus: Corpus, impressions: int, *, distinct: bool
) -> NDArray[np.float64]:
    """Scores of some impressions, 16 at a time, items encoded anew in each batch."""
    split, number = corpus.splits["valid"], Numbering(corpus.item_count)
    scores = []
    for start in range(0, impressions, 16):
        chosen = slice(start, min(start + 16, impressions))
        history = corpus.histories(split.history[chosen], split.history_end[chosen], MAX_HISTORY)
        size = np.diff(split.offsets)[chosen]
        column = np.arange(size.max())
        inside = column < size[:, None]
        rows = np.minimum(split.offsets[chosen][:, None] + column, split.rows - 1)
        candidates = np.where(inside, split.item[rows], 0).astype(np.int64)
        if distinct:
            items, (history, candidates) = number(history, candidates)
        else:
            both = np.concatenate([history.ravel(), candidates.ravel()])
            items = both[both > 0]
            both[both > 0] = np.arange(1, len(items) + 1)
            cut = history.size
            history = both[:cut].reshape(history.shape)
            candidates = both[cut:].reshape(candidates.shape)
        batch = Batch(
            texts.gather(torch.from_numpy(items)),
            torch.from_numpy(history),
            torch.from_numpy(candidates),
            torch.zeros(1),
        )
        scores.append(model(batch).numpy()[inside])
    return np.concatenate(scores).astype(np.float64)


def compare_caching(corpus: Corpus, texts: RandomTexts, name: str, part: int) -> None:
    """Evaluation with cached representations against without."""
    split = corpus.splits["valid"]
    shape = Shape(64, corpus.item_count, MAX_HISTORY, texts.sizes)
    model = seeded(NRMS, shape, 1).eval()
    config = EvaluateConfig(metrics=METRICS)
    cached, (_, scores) = seconds(
        lambda: evaluate(
            model, Inputs(texts), "valid", corpus, config=config, max_history=MAX_HISTORY
        )
    )
    print(f"\n{NRMS.label()} on {name}: {len(split):,} impressions, {split.rows:,} rows, ", end="")
    print(f"{corpus.item_count - 1:,} items")
    times = {}
    for distinct in (False, True):
        took, some = seconds(partial(uncached, model, texts, corpus, part, distinct=distinct))
        times[distinct] = took * len(split) / part
        difference = np.abs(some - scores[: split.offsets[part]]).max()
    rows = [
        (f"every occurrence encoded (from {part:,} impressions)", times[False]),
        ("each item once per batch of 16", times[True]),
        ("cached, metrics included", cached),
    ]
    for what, took in rows:
        print(f"  {what:48} {took:9.1f} s  {times[False] / took:6.1f} x")
    print(f"  largest difference of a score {difference:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of MIND's size")
    scale = parser.parse_args().scale
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    large = make_corpus(rng, int(72_000 * scale), int(376_471 * scale), int(255_990 * scale))
    compare_metrics(large.splits["valid"], part=int(5_000 * min(scale * 10, 1)))
    items = int(42_416 * scale)
    small = make_corpus(rng, items, int(73_152 * scale), int(50_000 * scale))
    for name, words in (("titles", (4, 20)), ("titles with abstracts", (20, 80))):
        compare_caching(small, RandomTexts.make(rng, items, words), name, part=160)


if __name__ == "__main__":
    main()
