"""What needs no model: the rows that belong beneath every table of results."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from legoray.config import EvaluateConfig
from legoray.data.corpus import Corpus
from legoray.errors import InputError, unknown
from legoray.train.evaluate import group_values_of, measure, measure_ranks, split_of
from legoray.train.groupvalues import GroupValues
from legoray.train.ranking import Ranks, Scores, rank_impressions
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
    config = _without_logloss(evaluate_config)
    if config is None:
        return {}
    scored = _scored(name, corpus, split, seed)
    if isinstance(scored, Ranks):
        return measure_ranks(scored, split, corpus, config, slices=slices)
    return measure(scored, split, corpus, config, slices=slices)


def baseline_groups(
    name: str, corpus: Corpus, split: str, evaluate_config: EvaluateConfig, seed: int
) -> GroupValues | None:
    """A baseline's metrics of each group; None where there is nothing to measure.

    Raises:
        InputError: as `baseline_metrics`.
    """
    config = _without_logloss(evaluate_config)
    if config is None:
        return None
    return group_values_of(_scored(name, corpus, split, seed), split, corpus, config)


def _without_logloss(config: EvaluateConfig) -> EvaluateConfig | None:
    """The same without what baselines are not measured by; None if nothing is left."""
    metrics = [metric for metric in config.metrics if metric != "logloss"]
    return config.model_copy(update={"metrics": metrics}) if metrics else None


def _scored(name: str, corpus: Corpus, split: str, seed: int) -> NDArray[np.float64] | Ranks:
    """A baseline's scores, or the ranks of clicks."""
    rows = split_of(corpus, split)
    if not rows.full_ranking:
        return baseline_scores(name, corpus, split, seed)
    everyone = np.arange(len(rows))
    return rank_impressions(_scores_of_all(name, corpus, seed), rows, corpus, everyone, Worker())


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
