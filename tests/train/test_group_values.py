"""The metrics of each group by itself: as they are computed, and as they are kept."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from train_corpora import against_all, make_corpus, make_job, trial, write_tables

from legoray.config import EvaluateConfig
from legoray.errors import InputError
from legoray.train.baselines import baseline_groups, baseline_metrics, baseline_scores
from legoray.train.groupvalues import FILE, read_values, write_values
from legoray.train.job import Runtime
from legoray.train.loop import train

CONFIG = EvaluateConfig(metrics=["auc", "mrr", "ndcg@5", "pooled_auc"])


@pytest.fixture(scope="module")
def corpus():
    return make_corpus(3)


@pytest.mark.parametrize("kind", ["impression", "user"])
def test_each_group_has_what_scikit_learn_gives_it(corpus, kind):
    config = CONFIG.model_copy(update={"group": kind})
    test = corpus.splits["test"]
    found = baseline_groups("random", corpus, "test", config, 5)
    scores = baseline_scores("random", corpus, "test", 5)
    numbers = test.user if kind == "user" else np.arange(len(test))
    rows = np.repeat(numbers, np.diff(test.offsets))
    assert set(found.metrics) == {"auc", "mrr", "ndcg@5"}
    assert (np.diff(found.group) > 0).all()
    for place, group in enumerate(found.group):
        own = rows == group
        expected = roc_auc_score(test.label[own], scores[own])
        assert found.metrics["auc"][place] == pytest.approx(expected, abs=1e-6)
        assert found.user[place] == (group if kind == "user" else test.user[group])
    one_sided = [g for g in set(rows) - set(found.group) if len(set(test.label[rows == g])) == 2]
    assert not one_sided


@pytest.mark.parametrize("full", [False, True])
def test_their_mean_is_the_metric(corpus, full):
    data = against_all(corpus) if full else corpus
    config = EvaluateConfig(metrics=["auc", "mrr", "ndcg@5"])
    for name in ("random", "popularity"):
        values = baseline_groups(name, data, "test", config, 1)
        for metric, value in baseline_metrics(name, data, "test", config, 1).items():
            assert values.metrics[metric].mean(dtype=np.float64) == pytest.approx(value, abs=1e-6)


def test_a_final_training_keeps_them_with_its_model(corpus, tmp_path):
    tables = write_tables(tmp_path / "tables", corpus)
    outcomes = {}
    for folder, test in (("tested", True), ("searched", False)):
        job = make_job(tables, tmp_path / folder, trial(epochs=1), test=test)
        outcomes[folder] = train(job, Runtime(corpus), lambda metrics: None)
    assert read_values(tmp_path / "searched" / "best") is None
    values = read_values(tmp_path / "tested" / "best")
    assert values.origin.split == "test"
    assert values.origin.fingerprint == corpus.fingerprint
    for metric, column in values.metrics.items():
        expected = outcomes["tested"].test[metric]
        assert column.mean(dtype=np.float64) == pytest.approx(expected, abs=1e-6)
    assert values.matches(baseline_groups("random", corpus, "test", CONFIG, 1))


def test_a_damaged_file_is_told(corpus, tmp_path):
    write_values(tmp_path, baseline_groups("random", corpus, "test", CONFIG, 1))
    content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="is damaged"):
        read_values(tmp_path)


def test_other_data_do_not_match(corpus):
    found = baseline_groups("random", corpus, "test", CONFIG, 1)
    assert not found.matches(baseline_groups("random", make_corpus(4), "test", CONFIG, 1))
    assert not found.matches(baseline_groups("random", corpus, "valid", CONFIG, 1))
