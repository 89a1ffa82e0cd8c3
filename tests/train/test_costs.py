"""The latency of a request: what is timed, under which conditions, and what is left as it was."""

from __future__ import annotations

import math

import pytest
import torch
from train_corpora import make_corpus, make_job, trial, write_tables

from legoray.train.costs import CANDIDATES, FEWEST, REPEATS, WARM_UP, latency_ms
from legoray.train.job import Runtime
from legoray.train.loop import open_model


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Models by their behavior operator."""
    corpus = make_corpus()
    tables = write_tables(tmp_path_factory.mktemp("costs") / "tables", corpus)

    def make(behavior, predictor="dot"):
        config = trial("id", behavior, predictor)
        return open_model(make_job(tables, tables / "unused", config), Runtime(corpus))

    return make


def measure(model, seen):
    """The latency, with every call of the two parts noted."""
    recommender = model.recommender.train()

    def note(module, inputs, output):
        scores = output if isinstance(output, torch.Tensor) else None
        size = None if scores is None else tuple(scores.shape)
        seen.append((torch.get_num_threads(), module.training, torch.is_grad_enabled(), size))

    hooks = [part.register_forward_hook(note)
             for part in (recommender.behavior, recommender.predictor)]  # fmt: skip
    before = torch.get_num_threads()
    device = torch.device("cpu")
    taken = latency_ms(recommender, shape=model.shape, inputs=model.inputs, device=device)
    for hook in hooks:
        hook.remove()
    assert torch.get_num_threads() == before
    assert recommender.training
    return taken


@pytest.mark.parametrize("behavior", ["additive", "candidate-attention", "attention"])
def test_a_request_is_the_user_and_a_thousand_candidates_on_one_thread(opened, behavior):
    seen = []
    taken = measure(opened(behavior), seen)
    assert math.isfinite(taken)
    assert taken > 0
    assert {call[:3] for call in seen} == {(1, False, False)}
    requests = len(seen) // 2
    assert WARM_UP + FEWEST <= requests <= WARM_UP + REPEATS
    assert len(seen) == 2 * requests, "each request encodes its user anew"
    if behavior != "candidate-attention":
        assert (1, CANDIDATES) in {call[3] for call in seen}


def test_slow_models_are_timed_less_often(opened, monkeypatch):
    monkeypatch.setattr("legoray.train.costs.LONGEST", 0.0)
    seen = []
    measure(opened("additive"), seen)
    assert len(seen) == 2 * (WARM_UP + FEWEST)
