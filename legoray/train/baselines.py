"""What needs no model: the rows that belong beneath every table of results."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from legoray.config import EvaluateConfig
from legoray.data.corpus import Corpus
from legoray.errors import InputError, unknown
from legoray.train.evaluate import measure, measure_ranks, split_of
from legoray.train.ranking import Scores, rank_impressions
from legoray.train.scoring import Worker

BASELINES = ("random", "popularity")


def baseline_metrics(
    name: str,
    corpus: Corpus,
    split: str,
    evaluate_config: EvaluateConfig,
    seed: int,
    *,
    slices: bool = False,
) -> dict[str, float]:
    """The metrics of a baseline on a split; empty where it has no labels.

    `random` draws a score for each row from the seed. (Its expected values are those of a constant
    score, ties sharing their value; a draw is shown because that is what models are compared to.)
    `popularity` scores an item with its number of clicks in the train split, whoever clicked and
    whenever; items without any tie with each other. `logloss` is left out, since neither score is
    meant as a probability. With `slices`, these are measured too (see `measure`).

    Raises:
        InputError: there is no such baseline or split, or nothing can be measured on it.
    """
    metrics = [metric for metric in evaluate_config.metrics if metric != "logloss"]
    if not metrics:
        return {}
    config = evaluate_config.model_copy(update={"metrics": metrics})
    rows = split_of(corpus, split)
    if not rows.full_ranking:
        scores = baseline_scores(name, corpus, split, seed)
        return measure(scores, split, corpus, config, slices=slices)
    everyone = np.arange(len(rows))
    scores_of_all = _scores_of_all(name, corpus, seed)
    ranks = rank_impressions(scores_of_all, rows, corpus, everyone, Worker())
    return measure_ranks(ranks, split, corpus, config, slices=slices)


def baseline_scores(name: str, corpus: Corpus, split: str, seed: int) -> NDArray[np.float64]:
    """The scores `[rows]` of a baseline.

    Raises:
        InputError: there is no such baseline or split.
    """
    rows = split_of(corpus, split)
    if name == "random":
        return np.random.default_rng(seed % 2**64).random(rows.rows)
    if name == "popularity":
        return _clicks(corpus)[rows.item]
    raise InputError(unknown("baseline", name, BASELINES, "final.baselines"))


def _scores_of_all(name: str, corpus: Corpus, seed: int) -> Scores:
    """A baseline's scores of impressions with all items."""
    items = corpus.item_count - 1
    if name == "random":
        random = np.random.default_rng(seed % 2**64)
        return lambda block: torch.from_numpy(random.random((len(block), items), np.float32))
    if name == "popularity":
        clicks = torch.from_numpy(_clicks(corpus)[1:])
        return lambda block: clicks.repeat(len(block), 1)
    raise InputError(unknown("baseline", name, BASELINES, "final.baselines"))


def _clicks(corpus: Corpus) -> NDArray[np.float64]:
    """`[item_count]` how often each item was clicked in the train split."""
    train = split_of(corpus, "train")
    clicks = np.bincount(train.item[train.label == 1], minlength=corpus.item_count)
    return clicks.astype(np.float64)
