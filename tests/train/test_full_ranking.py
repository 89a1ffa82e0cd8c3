"""Full ranking: counts over all items against materialized candidates, one impression at a time."""

import statistics
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import label_ranking_average_precision_score, roc_auc_score
from train_corpora import against_all, make_corpus, make_job, trial, with_slices, write_tables

from legoray.config import EvaluateConfig
from legoray.errors import InfeasibleError, InputError
from legoray.model.base import Batch
from legoray.train import ranking, scoring
from legoray.train.baselines import baseline_metrics
from legoray.train.evaluate import evaluate, group_counts, measure_ranks
from legoray.train.job import Runtime
from legoray.train.loop import open_model, train
from legoray.train.metrics import grouped_metrics
from legoray.train.ranking import rank_impressions
from legoray.train.scoring import Worker

METRICS = ["auc", "mrr", "mrr_first", "ndcg@1", "ndcg@10", "hit@1", "hit@10", "recall@5", "lrap"]
COMPOSITIONS = [
    ("id", "pooling", "dot"),
    ("pooling", "attention", "cosine"),
    ("cnn", "gru", "bilinear"),
    ("pooling", "additive", "dcn"),
    ("id", "none", "din"),
    ("id", "candidate-attention", "dot"),
    ("id", "poly-attention", "miner"),
    ("id", "pooling", {"name": "deepfm", "fields": ["item.title"]}),
]


def names(composition):
    return "+".join(part if isinstance(part, str) else part["name"] for part in composition)


@pytest.fixture(scope="module")
def corpus():
    return with_slices(against_all(make_corpus(3, impressions=120, shortest=1)))


@pytest.fixture(scope="module")
def tables(corpus, tmp_path_factory):
    return write_tables(tmp_path_factory.mktemp("ranking") / "tables", corpus, distinct=True)


def opened(corpus, tables, composition):
    config = trial(*composition, evaluate={"metrics": METRICS}, max_history=4)
    model = open_model(make_job(tables, tables / "unused", config), Runtime(corpus))
    return model, config


def evaluated(corpus, tables, composition, **more):
    model, config = opened(corpus, tables, composition)
    arguments = {"config": config.evaluate, "max_history": config.train.max_history, **more}
    return evaluate(model.recommender, model.inputs, "valid", corpus, **arguments)


def history_of(corpus, split, i):
    start = corpus.history_offsets[split.history[i]]
    return corpus.history_items[start : start + split.history_end[i]].tolist()


def candidates(corpus, split, i):
    """The clicks of an impression, then all items but those and the whole history."""
    clicks = split.item[split.offsets[i] : split.offsets[i + 1]].tolist()
    past = set(history_of(corpus, split, i)) | set(clicks)
    return clicks, [item for item in range(1, corpus.item_count) if item not in past]


@torch.no_grad()
def materialized(model, corpus, split, max_history):
    """Per impression the scores of its clicks and of its others, without any cache."""
    model.recommender.eval()
    found = []
    for i in range(len(split)):
        clicks, others = candidates(corpus, split, i)
        items, history = clicks + others, history_of(corpus, split, i)[-max_history:]
        occurring = torch.tensor([*history, *items])
        numbers = torch.arange(1, len(occurring) + 1)
        padded = torch.zeros(1, max(len(history), 1), dtype=torch.long)
        padded[0, : len(history)] = numbers[: len(history)]
        fields = model.inputs.of_fields(split, np.array([i]), np.array([items]))
        batch = Batch(
            items=model.inputs.items.gather(occurring),
            history=padded,
            candidates=numbers[len(history) :][None],
            labels=torch.zeros(1, len(items)),
            fields=fields,
        )
        scores = model.recommender(batch)[0].double().numpy()
        found.append((scores[: len(clicks)], scores[len(clicks) :]))
    return found


def plain(clicks, others):
    """The metrics of one impression whose scores all differ."""
    scores = np.concatenate([clicks, others])
    label = np.repeat([1, 0], [len(clicks), len(others)])
    ranks = sorted(1 + int((scores > click).sum()) for click in clicks)
    gain = lambda rank, k: 1 / np.log2(rank + 1) if rank <= k else 0.0  # noqa: E731
    found = {
        "auc": roc_auc_score(label, scores),
        "mrr": statistics.fmean(1 / rank for rank in ranks),
        "mrr_first": 1 / ranks[0],
        "lrap": label_ranking_average_precision_score(label[None], scores[None]),
    }
    for name in METRICS:
        base, _, k = name.partition("@")
        best = sum(gain(rank, int(k or 0)) for rank in range(1, len(ranks) + 1))
        if base == "ndcg":
            found[name] = sum(gain(rank, int(k)) for rank in ranks) / best
        elif base == "hit":
            found[name] = float(ranks[0] <= int(k))
        elif base == "recall":
            found[name] = statistics.fmean(rank <= int(k) for rank in ranks)
    return found


@pytest.mark.parametrize("composition", COMPOSITIONS, ids=names)
def test_metrics_and_slices_are_those_of_materialized_candidates(corpus, tables, composition):
    metrics, scores = evaluated(corpus, tables, composition, slices=True)
    model, config = opened(corpus, tables, composition)
    split = corpus.splits["valid"]
    rows = materialized(model, corpus, split, config.train.max_history)
    np.testing.assert_allclose(scores, np.concatenate([c for c, _ in rows]), atol=1e-5, rtol=1e-5)
    own = [plain(*row) for row in rows]
    for name in METRICS:
        assert metrics[name] == pytest.approx(statistics.fmean(m[name] for m in own), abs=1e-9)
        for one, marked in split.slices.items():
            inside = [m[name] for m, mark in zip(own, marked, strict=True) if mark]
            if not inside:
                assert f"{name}/{one}" not in metrics
                continue
            assert metrics[f"{name}/{one}"] == pytest.approx(statistics.fmean(inside), abs=1e-9)
            assert metrics[f"groups/{one}"] == len(inside)
    assert metrics["groups/all"] == len(split)
    assert not any(name.endswith("cold-item") for name in metrics)


def test_some_impressions_have_several_clicks_and_clicks_in_their_history(corpus):
    split = corpus.splits["valid"]
    past = [history_of(corpus, split, i) for i in range(len(split))]
    clicks = [candidates(corpus, split, i)[0] for i in range(len(split))]
    assert {len(own) for own in clicks} == {1, 2}
    assert any(set(own) & set(items) for own, items in zip(clicks, past, strict=True))
    assert any(len(set(items)) < len(items) for items in past)
    assert max(map(len, past)) > 4  # longer than what the models read


def ranks_of(table, corpus, split):
    """Ranks by a table of scores `[I, N]`."""
    return rank_impressions(
        lambda block: torch.from_numpy(table[block].copy()),
        split, corpus, np.arange(len(split)), Worker(),
    )  # fmt: skip


@pytest.mark.parametrize("levels", [1, 2, 5, 40])
def test_ties_share_their_expected_value(corpus, levels):
    split = corpus.splits["valid"]
    table = np.random.default_rng(levels).integers(0, levels, (len(split), corpus.item_count - 1))
    table = table.astype(np.float32)
    config = EvaluateConfig(metrics=METRICS)
    found = measure_ranks(ranks_of(table, corpus, split), "valid", corpus, config)
    scores, labels, groups, single = [], [], [], []
    for i in range(len(split)):
        clicks, others = candidates(corpus, split, i)
        own = table[i, np.array(clicks + others) - 1]
        scores += own.tolist()
        labels += [1] * len(clicks) + [0] * len(others)
        groups += [i] * len(own)
        if len(clicks) == 1:
            above, equal = int((own > own[0]).sum()), int((own == own[0]).sum())
            places = range(above + 1, above + equal + 1)
            single.append((i, statistics.fmean(1 / place for place in places)))
    assert found == pytest.approx(grouped_metrics(scores, labels, groups, METRICS), abs=1e-12)
    if levels == 1:
        assert found["auc"] == 0.5
    some = np.isin(np.arange(len(split)), [i for i, _ in single])
    marked = replace(split, slices={"one": some})
    own = replace(corpus, splits={**corpus.splits, "valid": marked})
    measured = measure_ranks(ranks_of(table, own, marked), "valid", own, config, slices=True)
    wanted = statistics.fmean(value for _, value in single)
    assert measured["mrr/one"] == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("composition", [COMPOSITIONS[i] for i in (0, 3, 4)], ids=names)
def test_small_blocks_change_nothing(corpus, tables, composition, monkeypatch):
    whole, scores = evaluated(corpus, tables, composition, slices=True)
    monkeypatch.setitem(ranking.BLOCK, "cpu", 150)
    monkeypatch.setitem(scoring.BUDGETS, "cpu", (16, 300))
    metrics, again = evaluated(corpus, tables, composition, slices=True)
    np.testing.assert_allclose(again, scores, atol=1e-6)
    assert metrics == pytest.approx(whole, abs=1e-9)


def test_running_out_of_memory_makes_blocks_smaller(corpus, tables):
    whole, _ = evaluated(corpus, tables, COMPOSITIONS[0])
    model, config = opened(corpus, tables, COMPOSITIONS[0])
    predictor, failures = model.recommender.predictor, []
    score_all = predictor.score_all

    def scarce(user, items):
        if len(user.values) > 10:
            failures.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return score_all(user, items)

    predictor.score_all = scarce
    found, _ = evaluate(
        model.recommender, model.inputs, "valid", corpus, config=config.evaluate, max_history=4
    )
    assert failures
    assert found == pytest.approx(whole, abs=1e-9)


def test_scores_that_are_nan_are_infeasible(corpus, tables):
    model, config = opened(corpus, tables, COMPOSITIONS[0])
    with torch.no_grad():
        next(model.recommender.content.parameters())[5] = float("nan")
    with pytest.raises(InfeasibleError, match="scores of items are NaN"):
        evaluate(
            model.recommender, model.inputs, "valid", corpus, config=config.evaluate, max_history=4
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": ["auc", "logloss"]}, r"evaluate.metrics: logloss .*not defined for full rank"),
        ({"metrics": ["pooled_auc"]}, r"pooled_auc would compare .*candidates: sampled"),
        ({"group": "user"}, r"evaluate.group: is 'user', but full ranking.*group: impression"),
    ],
)
def test_what_is_not_defined_is_refused_before_training(corpus, tables, tmp_path, change, message):
    config = trial(evaluate={"metrics": ["auc"], "select": "auc", **change})
    if "pooled_auc" in str(change):
        config = trial(evaluate={**change, "select": "pooled_auc"})
    with pytest.raises(InputError, match=message):
        train(make_job(tables, tmp_path / "job", config), Runtime(corpus), lambda metrics: None)
    model, _ = opened(corpus, tables, COMPOSITIONS[0])
    with pytest.raises(InputError, match=message):
        evaluate(
            model.recommender, model.inputs, "valid", corpus,
            config=config.evaluate, max_history=4,
        )  # fmt: skip


def test_training_selects_by_and_tests_with_full_ranking(corpus, tables, tmp_path):
    config = trial(evaluate={"metrics": ["auc", "ndcg@10"], "select": "ndcg@10"}, epochs=4)
    outcome = train(
        make_job(tables, tmp_path / "job", config, test=True), Runtime(corpus), lambda metrics: None
    )
    assert outcome.best["ndcg@10"] == max(epoch["ndcg@10"] for epoch in outcome.epochs)
    assert outcome.best["auc"] > 0.7  # readers click on one topic each
    assert not any("/" in name for epoch in outcome.epochs for name in epoch)
    assert {"ndcg@10", "ndcg@10/tail-item", "groups/tail-item", "groups/all"} <= set(outcome.test)
    assert outcome.costs["valid_groups"] == len(corpus.splits["valid"])
    assert group_counts(corpus.splits["valid"], "impression")[1] == 0


def test_baselines_are_ranked_against_all_items_too(corpus):
    split, train_split = corpus.splits["valid"], corpus.splits["train"]
    config = EvaluateConfig(metrics=["auc", "mrr"])
    found = baseline_metrics("popularity", corpus, "valid", config, 1, slices=True)
    clicks = np.bincount(train_split.item[train_split.label == 1], minlength=corpus.item_count)
    areas = []
    for i in range(len(split)):
        own, others = candidates(corpus, split, i)
        label = np.repeat([1, 0], [len(own), len(others)])
        areas.append(roc_auc_score(label, clicks[own + others]))
    assert found["auc"] == pytest.approx(statistics.fmean(areas), abs=1e-9)
    marked = split.slices["tail-item"]
    inside = [area for area, mark in zip(areas, marked, strict=True) if mark]
    assert found["auc/tail-item"] == pytest.approx(statistics.fmean(inside), abs=1e-9)
    first = baseline_metrics("random", corpus, "valid", config, 7)
    assert first == baseline_metrics("random", corpus, "valid", config, 7)
    assert first != baseline_metrics("random", corpus, "valid", config, 8)
    assert abs(first["auc"] - 0.5) < 0.15


def test_who_has_had_all_items_is_left_out(corpus):
    split = corpus.splits["valid"]
    everything = np.arange(1, corpus.item_count, dtype=np.int32)
    full = replace(
        corpus,
        history_items=np.concatenate([everything, corpus.history_items]),
        history_offsets=np.concatenate([[0], corpus.history_offsets + len(everything)]),
        splits={
            **corpus.splits,
            "valid": replace(
                split,
                history=np.where(np.arange(len(split)) < 3, 0, split.history + 1).astype(np.int32),
                history_end=np.where(
                    np.arange(len(split)) < 3, len(everything), split.history_end
                ).astype(np.int32),
            ),
        },
    )
    rows = full.splits["valid"]
    table = np.random.default_rng(0).random((len(rows), corpus.item_count - 1), np.float32)
    ranks = ranks_of(table, full, rows)
    assert ranks.others[:3].tolist() == [0, 0, 0]
    config = EvaluateConfig(metrics=["auc"])
    found = measure_ranks(ranks, "valid", full, config, slices=True)
    assert found["groups/all"] == len(rows) - 3
