"""How fast full ranking is, against scoring the same candidates as listed ones.

    python benchmarks/full_ranking.py                  # the sizes of MovieLens-25M, some minutes
    python benchmarks/full_ranking.py --users 5000 --items 10000

Each user has one click, to be ranked against all items but those of the user's history. Listed
means what a data set without full ranking would need: every candidate of every click as a row,
scored and sorted by the ordinary evaluation. That is timed on a part of the users and scaled up.
All figures are processor seconds of one process on one thread.

A run of the first command (other work on the machine; ratios of two runs differ by up to a half):

id+pooling+dot: 20,000 clicks against 62,423 items
  listed (from 60 users)        339.3 s      1 x
  full ranking                    5.6 s   61.1 x
  million pairs/s 225, 171 MiB more memory at the peak
id+pooling+dcn: 200 clicks against 62,423 items
  listed (from 60 users)         11.7 s      1 x
  full ranking                   10.2 s    1.1 x
  million pairs/s 1, 0 MiB more memory at the peak

The metrics of both ways are equal. A predictor that is a product of two vectors is one matrix
product here; what computes anew for each pair, such as dcn, gains nothing but the memory.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from legoray.config import EvaluateConfig, ModelConfig
from legoray.data.corpus import Corpus, Split
from legoray.data.ragged import expand
from legoray.model.features import IdFeatures
from legoray.model.inputs import Inputs
from legoray.model.recommender import Recommender, new_model
from legoray.train.evaluate import evaluate

PREDICTORS = ("dot", "dcn")
METRICS = ["auc", "mrr", "ndcg@10", "hit@10", "recall@50"]
MAX_HISTORY = 50
HIDDEN = 64
OF_IMPRESSIONS = ("impression", "history", "history_end", "user", "time", "clicks")


def make_corpus(rng: np.random.Generator, items: int, users: int) -> Corpus:
    """Users with histories of up to 300 items, and one click each beyond them."""
    weight = 1 / np.arange(1, items + 1) ** 0.8
    weight /= weight.sum()
    lengths = np.minimum(rng.geometric(1 / 80, users), 300)
    offsets = np.append(0, np.cumsum(lengths))

    def draw(size: int) -> NDArray[np.int32]:
        return rng.choice(items, size, p=weight).astype(np.int32) + 1

    split = Split(
        impression=np.arange(users),
        history=np.arange(users, dtype=np.int32),
        history_end=lengths.astype(np.int32),
        user=np.arange(users, dtype=np.int32),
        time=np.full(users, -1),
        offsets=np.arange(users + 1),
        clicks=np.ones(users, np.int32),
        item=draw(users),
        label=np.ones(users, np.int8),
        full_ranking=True,
    )
    return Corpus(
        name="random",
        fingerprint="random",
        item_count=items + 1,
        history_items=draw(int(offsets[-1])),
        history_offsets=offsets,
        splits={"valid": split},
    )


def listed(corpus: Corpus, users: int) -> Corpus:
    """The first users, every candidate of theirs as a row of its own."""
    split = corpus.splits["valid"]
    items = corpus.item_count - 1
    free = np.ones((users, items), bool)
    start, end = corpus.history_offsets[:users], split.history_end[:users].astype(np.int64)
    past = corpus.history_items[expand(start, end)]
    free[np.repeat(np.arange(users), end), past - 1] = False
    free[np.arange(users), split.item[:users] - 1] = False
    owner, item = np.nonzero(free)
    sizes = np.bincount(owner, minlength=users) + 1
    offsets = np.append(0, np.cumsum(sizes))
    rows, label = np.empty(offsets[-1], np.int32), np.zeros(offsets[-1], np.int8)
    rows[offsets[:-1]], label[offsets[:-1]] = split.item[:users], 1
    rows[label == 0] = item + 1
    few = {name: getattr(split, name)[:users] for name in OF_IMPRESSIONS}
    part = replace(split, **few, offsets=offsets, item=rows, label=label, full_ranking=False)
    return replace(corpus, splits={"valid": part})


def first(corpus: Corpus, users: int) -> Corpus:
    """The first users alone, still against all items."""
    split = corpus.splits["valid"]
    few = {name: getattr(split, name)[:users] for name in (*OF_IMPRESSIONS, "item", "label")}
    return replace(corpus, splits={"valid": replace(split, **few, offsets=np.arange(users + 1))})


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds (so that whatever else runs does not count) and the result."""
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def measure(model: Recommender, inputs: Inputs, corpus: Corpus) -> tuple[float, dict[str, float]]:
    """Processor seconds of an evaluation, and its metrics."""
    config = EvaluateConfig(metrics=METRICS)
    took, (metrics, _) = seconds(
        lambda: evaluate(model, inputs, "valid", corpus, config=config, max_history=MAX_HISTORY)
    )
    return took, metrics


def compare(corpus: Corpus, predictor: str, users: int, part: int) -> None:
    """Full ranking of some users, and of a part of them with their candidates listed."""
    config = ModelConfig(
        hidden_size=HIDDEN,
        content={"name": "id"},
        behavior={"name": "pooling"},
        predictor={"name": predictor},
    )
    inputs = Inputs(items=IdFeatures(corpus.item_count))
    model, _ = new_model(config, inputs, max_history=MAX_HISTORY, seed=1)
    whole = first(corpus, users)
    pairs = users * (corpus.item_count - 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counted, _ = measure(model, inputs, whole)
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    _, found = measure(model, inputs, first(corpus, part))
    took, wanted = measure(model, inputs, listed(corpus, part))
    difference = max(abs(found[name] - wanted[name]) for name in METRICS)
    scaled = took * users / part
    print(f"\n{config.label()}: {users:,} clicks against {corpus.item_count - 1:,} items")
    print(f"  listed (from {part:,} users)    {scaled:9.1f} s      1 x")
    print(f"  full ranking             {counted:9.1f} s  {scaled / counted:5.1f} x")
    print(f"  million pairs/s {pairs / counted / 1e6:.0f}, {more:.0f} MiB more memory at the peak")
    print(f"  largest difference of a metric on the part {difference:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=62_423)
    parser.add_argument("--part", type=int, default=60, help="users whose candidates are listed")
    given = parser.parse_args()
    torch.set_num_threads(1)
    corpus = make_corpus(np.random.default_rng(0), given.items, given.users)
    for predictor in PREDICTORS:
        users = given.users if predictor == "dot" else given.users // 100
        compare(corpus, predictor, users, min(given.part, users))


if __name__ == "__main__":
    main()
