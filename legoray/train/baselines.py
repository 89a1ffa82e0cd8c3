"""What needs no model: the rows that belong beneath every table of results."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from legoray.config import EvaluateConfig
from legoray.data.corpus import Corpus
from legoray.errors import InputError, unknown
from legoray.train.evaluate import measure, split_of

BASELINES = ("random", "popularity")


def baseline_metrics(
    name: str, corpus: Corpus, split: str, evaluate_config: EvaluateConfig, seed: int
) -> dict[str, float]:
    """The metrics of a baseline on a split; empty where it has no labels.

    `random` draws a score for each row from the seed. (Its expected values are those of a constant
    score, ties sharing their value; a draw is shown because that is what models are compared to.)
    `popularity` scores an item with its number of clicks in the train split, whoever clicked and
    whenever; items without any tie with each other. `logloss` is left out, since neither score is
    meant as a probability.

    Raises:
        InputError: there is no such baseline or split, or nothing can be measured on it.
    """
    metrics = [metric for metric in evaluate_config.metrics if metric != "logloss"]
    if not metrics:
        return {}
    config = evaluate_config.model_copy(update={"metrics": metrics})
    return measure(baseline_scores(name, corpus, split, seed), split, corpus, config)


def baseline_scores(name: str, corpus: Corpus, split: str, seed: int) -> NDArray[np.float64]:
    """The scores `[rows]` of a baseline.

    Raises:
        InputError: there is no such baseline or split.
    """
    rows = split_of(corpus, split)
    if name == "random":
        return np.random.default_rng(seed % 2**64).random(rows.rows)
    if name == "popularity":
        train = split_of(corpus, "train")
        clicks = np.bincount(train.item[train.label == 1], minlength=corpus.item_count)
        return clicks[rows.item].astype(np.float64)
    raise InputError(unknown("baseline", name, BASELINES, "final.baselines"))
