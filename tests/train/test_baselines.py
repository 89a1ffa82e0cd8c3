"""Baselines by plain loops."""

from collections import Counter

import numpy as np
import pytest
from train_corpora import make_corpus

from legoray.config import EvaluateConfig
from legoray.errors import InputError
from legoray.train.baselines import baseline_metrics, baseline_scores
from legoray.train.metrics import grouped_metrics

CONFIG = EvaluateConfig()


@pytest.fixture(scope="module")
def corpus():
    return make_corpus(2, impressions=600)


def test_popularity_counts_the_clicks_of_train(corpus):
    train, test = corpus.splits["train"], corpus.splits["test"]
    clicks = Counter(i for i, y in zip(train.item, train.label, strict=True) if y)
    scores = baseline_scores("popularity", corpus, "test", 1)
    assert scores.tolist() == [clicks[item] for item in test.item]
    groups = np.repeat(np.arange(len(test)), np.diff(test.offsets))
    found = baseline_metrics("popularity", corpus, "test", CONFIG, 1)
    assert found == grouped_metrics(scores, test.label, groups, CONFIG.metrics)


def test_random_is_near_a_constant_score_and_depends_on_the_seed(corpus):
    test = corpus.splits["test"]
    groups = np.repeat(np.arange(len(test)), np.diff(test.offsets))
    constant = grouped_metrics(np.zeros(test.rows), test.label, groups, CONFIG.metrics)
    seeds = [baseline_metrics("random", corpus, "test", CONFIG, seed) for seed in range(30)]
    assert len({row["auc"] for row in seeds}) == 30
    assert seeds[3] == baseline_metrics("random", corpus, "test", CONFIG, 3)
    for name, value in constant.items():
        values = [row[name] for row in seeds]
        assert np.mean(values) == pytest.approx(value, abs=4 * np.std(values) / np.sqrt(30)), name


def test_what_is_no_probability_has_no_logloss(corpus):
    config = EvaluateConfig(metrics=["auc", "logloss"])
    assert list(baseline_metrics("popularity", corpus, "valid", config, 1)) == ["auc"]


def test_unknown_baselines_are_refused(corpus):
    with pytest.raises(InputError, match="did you mean 'popularity'"):
        baseline_metrics("popularty", corpus, "test", CONFIG, 1)
