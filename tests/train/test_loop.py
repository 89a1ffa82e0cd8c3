"""Training from end to end: it learns, ends when it should, and goes on where it was."""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from train_corpora import make_corpus, make_job, trial, write_tables

from legoray.data.load import load_corpus
from legoray.errors import InfeasibleError, InputError
from legoray.model.io import load_model, model_state
from legoray.train import loop
from legoray.train.cache import shared_inputs
from legoray.train.checkpoint import FILE, read_checkpoint, read_epochs
from legoray.train.evaluate import evaluate
from legoray.train.job import Runtime, Stopped
from legoray.train.loop import train

DROPOUT = {"name": "attention", "dropout": 0.2}


class Crash(Exception):
    """The process ends here."""


@pytest.fixture(scope="module")
def corpus():
    return make_corpus()


@pytest.fixture(scope="module")
def tables(corpus, tmp_path_factory):
    return write_tables(tmp_path_factory.mktemp("loop") / "tables", corpus)


@pytest.fixture
def run(corpus, tables, tmp_path):
    """Train a configuration in a folder of its own; what was reported stands in `reports`."""

    def start(config, folder="job", report=None, **job):
        start.reports = []
        listener = report or start.reports.append
        return train(make_job(tables, tmp_path / folder, config, **job), Runtime(corpus), listener)

    return start


def crash_in(epoch):
    def report(metrics):
        if metrics["epoch"] == epoch:
            raise Crash

    return report


def stop_in(epoch):
    def report(metrics):
        if metrics["epoch"] == epoch:
            raise Stopped

    return report


def without_times(rows):
    return [
        {k: v for k, v in row.items() if "seconds" not in k and "second" not in k} for row in rows
    ]


@pytest.mark.parametrize("task", ["matching", "ranking"])
def test_a_tiny_set_is_memorised(tmp_path, task):
    corpus = make_corpus(5, users=8, impressions=12, shortest=2)
    tables = write_tables(tmp_path / "tables", corpus)
    content, predictor = {"name": "pooling", "dropout": 0.0}, {"name": "din", "dropout": 0.0}
    settings = {"epochs": 40, "patience": 40, "batch_size": 8, "learning_rate": 0.005}
    config = trial(content, "none", predictor, task=task, **settings)
    job = make_job(tables, tmp_path / "job", config)
    losses = [row["loss"] for row in train(job, Runtime(corpus), lambda metrics: None).epochs]
    assert losses[-1] < 0.1 * losses[0]


def test_a_text_model_learns_the_sample_corpus(sample_tables, tmp_path):
    config = trial("pooling", "additive", "dot", epochs=2, batch_size=64, learning_rate=0.01)
    corpus = load_corpus(sample_tables)
    job = make_job(sample_tables, tmp_path / "job", config, test=True)
    outcome = train(job, Runtime(corpus), lambda metrics: None)
    losses = [row["loss"] for row in outcome.epochs]
    assert losses[1] < losses[0]
    assert outcome.best["auc"] > 0.53
    assert outcome.test["auc"] > 0.53


def test_reports_follow_the_checkpoint(run, tmp_path):
    seen = []

    def report(metrics):
        on_disk = read_epochs(tmp_path / "job")
        seen.append(metrics)
        assert on_disk == seen

    outcome = run(trial(), report=report)
    assert seen == outcome.epochs
    assert [row["epoch"] for row in seen] == [1, 2, 3]
    wanted = {"epoch", "loss", "auc", "mrr", "mrr_first", "ndcg@5", "ndcg@10", "train_seconds"}
    assert set(seen[0]) == wanted | {"evaluate_seconds", "samples_per_second"}
    assert not (tmp_path / "job" / "last").exists()


def test_the_outcome_has_the_costs(run):
    outcome = run(trial(), test=True)
    costs = outcome.costs
    for name in ("train_seconds", "evaluate_seconds", "memory_mb", "latency_ms", "start_seconds"):
        assert 0 < costs[name] < 10_000, name
    assert costs["parameters"] == costs["trainable"] == 60 * 16
    assert costs["seconds"] >= costs["train_seconds"] + costs["evaluate_seconds"]
    assert costs["valid_groups"] + costs["valid_groups_left_out"] == 40
    assert set(outcome.test) == {"auc", "mrr", "mrr_first", "ndcg@5", "ndcg@10", "groups/all"}


def test_the_best_epoch_is_kept_and_tested(run, corpus, tables, tmp_path):
    outcome = run(trial(epochs=4, patience=4), test=True)
    loaded = load_model(tmp_path / "job" / "best")
    assert loaded.extra["metrics"] == outcome.best
    assert loaded.extra["fingerprint"] == corpus.fingerprint
    assert loaded.extra["protocol"] == {"split": "made by hand"}
    assert loaded.extra["config"] == trial(epochs=4, patience=4).model_dump()
    for split, wanted in (("valid", outcome.best), ("test", outcome.test)):
        found, _ = evaluate(
            loaded.recommender,
            shared_inputs(loaded.recipes, tables, tmp_path, corpus),
            split,
            corpus,
            config=trial().evaluate,
            max_history=8,
        )
        assert found == {name: wanted[name] for name in found}


def test_a_seed_decides_everything(run, tmp_path):
    first = run(trial("id", DROPOUT), "a")
    second = run(trial("id", DROPOUT), "b")
    other = run(trial("id", DROPOUT, seed=2), "c")
    assert without_times(first.epochs) == without_times(second.epochs)
    assert without_times(first.epochs) != without_times(other.epochs)
    files = [tmp_path / name / "best" / "model.safetensors" for name in "abc"]
    assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()


@pytest.mark.parametrize("composition", [("id", DROPOUT, "dot"), ("pooling", "none", "din")])
def test_going_on_after_a_crash_gives_the_same_weights(run, tmp_path, composition):
    config = trial(*composition, epochs=4, patience=4)
    whole = run(config, "whole", keep_last=True)
    for epoch in (1, 3):
        with pytest.raises(Crash):
            run(config, "broken", crash_in(epoch))
    resumed = run(config, "broken", keep_last=True)
    assert without_times(resumed.epochs) == without_times(whole.epochs)
    assert without_times([resumed.best]) == without_times([whole.best])
    for name in ("last/checkpoint", "best/model"):
        first = load_file(tmp_path / "whole" / f"{name}.safetensors")
        second = load_file(tmp_path / "broken" / f"{name}.safetensors")
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_only_new_epochs_are_reported_again(run):
    with pytest.raises(Crash):
        run(trial(epochs=4, patience=4), report=crash_in(2))
    outcome = run(trial(epochs=4, patience=4))
    assert [row["epoch"] for row in run.reports] == [3, 4]
    assert [row["epoch"] for row in outcome.epochs] == [1, 2, 3, 4]


def test_more_epochs_go_on_from_a_kept_checkpoint(run):
    run(trial(epochs=2), keep_last=True)
    longer = run(trial(epochs=4, patience=4))
    assert [row["epoch"] for row in run.reports] == [3, 4]
    assert without_times(longer.epochs) == without_times(
        run(trial(epochs=4, patience=4), "b").epochs
    )


def test_a_training_whose_outcome_was_lost_is_not_trained_again(run, tmp_path):
    first = run(trial(epochs=2), keep_last=True)
    again = run(trial(epochs=2), keep_last=True)
    assert run.reports == []
    assert again.epochs == first.epochs
    assert again.best == first.best
    assert read_checkpoint(tmp_path / "job")[0].epochs == first.epochs


def test_what_the_scheduler_stopped_leaves_no_checkpoint(run, tmp_path):
    assert run(trial(epochs=2), report=stop_in(1), keep_last=True).stopped
    assert not (tmp_path / "job" / "last").exists()


KILLED = """
import sys, time
sys.path.insert(0, {here!r})
from train_corpora import make_corpus, make_job, trial
from legoray.train.job import Runtime
from legoray.train.loop import train

def report(metrics):
    print("epoch", metrics["epoch"], flush=True)
    if metrics["epoch"] == 2:
        time.sleep(600)

config = trial("id", {behavior!r}, "dot", epochs=4, patience=4)
train(make_job({tables!r}, {folder!r}, config), Runtime(make_corpus()), report)
"""


def test_a_killed_process_loses_no_finished_epoch(run, tables, tmp_path):
    script = KILLED.format(
        here=str(Path(__file__).parent),
        behavior=DROPOUT,
        tables=str(tables),
        folder=str(tmp_path / "job"),
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        while process.stdout.readline() != b"epoch 2\n":
            assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
    config = trial("id", DROPOUT, "dot", epochs=4, patience=4)
    resumed = run(config)
    assert [row["epoch"] for row in run.reports] == [3, 4]
    whole = run(config, "whole")
    assert without_times(resumed.epochs) == without_times(whole.epochs)
    files = [tmp_path / name / "best" / "model.safetensors" for name in ("job", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_patience_ends_it_early(run):
    outcome = run(trial(epochs=30, patience=2, learning_rate=0.5))
    best = int(outcome.best["epoch"])
    assert len(outcome.epochs) == best + 2 < 30
    assert outcome.reason == "auc has not improved in the last 2 epochs"
    assert not outcome.stopped


def test_less_is_better_for_some_metrics(run):
    measured = {"metrics": ["auc", "logloss"], "select": "logloss"}
    outcome = run(trial(epochs=4, patience=4, learning_rate=0.1, evaluate=measured))
    assert outcome.best["logloss"] == min(row["logloss"] for row in outcome.epochs)


def test_the_scheduler_may_stop_it(run, tmp_path):
    outcome = run(trial(), report=stop_in(2), test=True)
    assert outcome.stopped
    assert len(outcome.epochs) == 2
    assert outcome.test == {}
    assert outcome.reason == "stopped by the scheduler"
    assert not (tmp_path / "job" / "last").exists()


def test_a_loss_that_is_not_finite_is_infeasible(run, tmp_path):
    config = trial("id", "pooling", "dnn", learning_rate=1.0, clip_norm=None, weight_decay=1e30)
    with pytest.raises(InfeasibleError, match=r"the loss is (nan|inf) in epoch 1, step \d+"):
        run(config)
    assert not (tmp_path / "job" / "last").exists()


def test_accumulating_changes_only_the_memory(run):
    whole = run(trial(learning_rate=0.01), "a").epochs
    parts = run(trial(learning_rate=0.01, accumulate=4), "b").epochs
    for first, second in zip(whole, parts, strict=True):
        assert second["loss"] == pytest.approx(first["loss"], abs=1e-4)
        assert second["auc"] == pytest.approx(first["auc"], abs=5e-3)


@pytest.fixture
def scarce_memory(monkeypatch):
    """Memory for a training forward of `limit` samples, on every model that is opened."""
    largest = []

    def set_limit(limit):
        opened = loop.open_model

        def open_model(job, runtime):
            model = opened(job, runtime)
            forward = model.recommender.scores_and_penalty

            def scarce(batch):
                if len(batch.candidates) > limit:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                largest.append(len(batch.candidates))
                return forward(batch)

            model.recommender.scores_and_penalty = scarce
            return model

        monkeypatch.setattr(loop, "open_model", open_model)
        return largest

    return set_limit


def test_out_of_memory_makes_micro_batches_smaller(run, scarce_memory):
    plenty = run(trial(), "a").epochs
    largest = scarce_memory(5)
    scarce = run(trial(), "b").epochs
    assert max(largest) == 4
    for first, second in zip(plenty, scarce, strict=True):
        assert second["loss"] == pytest.approx(first["loss"], abs=1e-4)


def test_no_memory_for_one_sample_is_infeasible(run, scarce_memory):
    scarce_memory(0)
    with pytest.raises(InfeasibleError, match="out of memory with one sample at a time"):
        run(trial())


def test_other_errors_are_not_taken_for_memory(run, monkeypatch):
    def broken(*args):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr("legoray.train.steps.summed_loss", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run(trial())


def test_nothing_to_train_is_infeasible(run, corpus, tmp_path):
    file = tmp_path / "vectors.npy"
    np.save(file, np.ones((corpus.item_count - 1, 16), np.float32))
    with pytest.raises(InfeasibleError, match="nothing to train"):
        run(trial({"name": "vector", "file": str(file), "use": "frozen"}))


def test_a_damaged_checkpoint_is_reported_with_the_folder_to_delete(run, tmp_path):
    with pytest.raises(Crash):
        run(trial(), report=crash_in(1))
    file = tmp_path / "job" / "last" / FILE
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="delete the folder"):
        run(trial())


def test_wrong_settings_are_refused_before_anything_is_built(run, tmp_path):
    config = trial(
        task="ranking", loss="cross-entropy", evaluate={"metrics": ["acu"], "select": "mrr"}
    )
    with pytest.raises(InputError) as caught:
        run(config)
    assert len(caught.value.problems) == 3
    assert not (tmp_path / "job").exists()


def test_bfloat16_learns_too(run):
    exact = run(trial("pooling", "attention", "dot"), "a").epochs
    rough = run(trial("pooling", "attention", "dot", precision="bfloat16"), "b").epochs
    assert rough[-1]["loss"] < 0.95 * rough[0]["loss"]
    assert rough[0]["loss"] == pytest.approx(exact[0]["loss"], rel=0.05)
    assert rough[0]["loss"] != exact[0]["loss"]


def test_weights_stay_float32_under_bfloat16(run, tmp_path):
    run(trial("pooling", "attention", "dot", precision="bfloat16"), keep_last=True)
    _, tensors = read_checkpoint(tmp_path / "job")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_a_checkpoint_holds_the_whole_state(run, tmp_path):
    run(trial("cnn", "gru", "dcn", epochs=1), keep_last=True)
    _, tensors = read_checkpoint(tmp_path / "job")
    weights = model_state(load_model(tmp_path / "job" / "best").recommender)
    for name, value in weights.items():
        assert torch.equal(tensors[f"model/{name}"], value)
    assert sum(name.endswith("/exp_avg") for name in tensors) == len(weights)


def test_time_is_counted_over_interruptions(run):
    with pytest.raises(Crash):
        run(trial(epochs=2), report=crash_in(1))
    time.sleep(0.3)
    outcome = run(trial(epochs=2))
    total = sum(row["train_seconds"] + row["evaluate_seconds"] for row in outcome.epochs)
    assert total <= outcome.costs["seconds"]
    assert math.isfinite(outcome.costs["seconds"])
