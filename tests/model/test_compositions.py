"""Every valid composition of the tables, as a whole model, on the embedded corpus.

None is left out. What compositions share (features, batches) is opened once per test process, and
the tests of one content operator run in one process.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from model_cases import HIDDEN, assert_gradients, cases, first_case, perturb

from legoray.config import ModelConfig
from legoray.data.fields import open_fields
from legoray.data.load import load_corpus, read_manifest
from legoray.model.compose import compositions
from legoray.model.features import open_features
from legoray.model.inputs import open_inputs
from legoray.model.io import load_model, save_model
from legoray.model.recommender import new_model, recipes_of
from legoray.train.batches import Collator, draw_samples
from legoray.train.losses import summed_loss
from legoray.train.scoring import Worker, score_split

MAX_HISTORY = 6
TRAINED, SCORED = 24, 5  # samples of a step, impressions that are scored
KINDS = ("content", "behavior", "predictor")
EVERY = compositions()
PLAIN = ("pooling", "pooling", "dot")
# each content operator with the plain others, and each pair of the others with plain content
PAIRS = [t for t in EVERY if t[0] == PLAIN[0] or t[1:] == PLAIN[1:]]


def grouped(triples):
    """As parameters, those of one content operator in one test process."""
    return [
        pytest.param(t, id="+".join(t), marks=pytest.mark.xdist_group(f"composition {t[0]}"))
        for t in triples
    ]


class Sample:
    """The embedded corpus, and what has been opened of it."""

    def __init__(self, tables, home, tiny):
        self.tables, self.tiny = tables, tiny
        self.corpus = load_corpus(tables)
        self.text = tuple(read_manifest(tables).text)
        self.valid = head_of(self.corpus.splits["valid"], SCORED)
        self.open = cache(lambda recipe: open_features(recipe, tables, home))
        train = self.corpus.splits["train"]
        drawn = draw_samples(train, task="matching", negatives=4, seed=1, epoch=1)
        self.rows = slice(0, TRAINED)
        self.train, self.drawn = train, drawn

    def collator(self, split, inputs):
        return Collator(self.corpus, split, inputs, MAX_HISTORY)


def head_of(split, count):
    """The first impressions of a split."""
    rows = split.offsets[count]
    return replace(
        split,
        **{
            name: getattr(split, name)[:count]
            for name in ("impression", "history", "history_end", "user", "time", "clicks")
        },
        offsets=split.offsets[: count + 1],
        item=split.item[:rows],
        label=split.label[:rows],
    )


@pytest.fixture(scope="session")
def sample(sample_tables, model_home, tiny):
    return Sample(sample_tables, model_home, tiny)


class Composition:
    """One composition: its configuration, what it reads, and a model with weights off zero."""

    def __init__(self, names, sample, **others):
        parts = {
            kind: first_case(kind, name).config(sample.tiny)
            for kind, name in zip(KINDS, names, strict=True)
        }
        parts |= others
        self.sample = sample
        self.config = ModelConfig(hidden_size=HIDDEN, **parts)
        self.recipes = recipes_of(self.config, sample.text)
        self.inputs = open_inputs(
            self.recipes,
            sample.corpus,
            features=sample.open,
            fields=lambda names: open_fields(names, sample.tables),
        )
        self.model, self.shape = self.new()
        perturb(self.model)

    def new(self, seed=1):
        return new_model(self.config, self.inputs, max_history=MAX_HISTORY, seed=seed)

    def batch(self):
        """A batch of training samples."""
        sample, drawn = self.sample, self.sample.drawn
        collate = sample.collator(sample.train, self.inputs)
        return collate(drawn.impression[sample.rows], drawn.rows[sample.rows])

    def loss(self, model, batch):
        scores, penalty = model.scores_and_penalty(batch)
        # not the softmax's: it does not see what all candidates have in common, such as a bias
        loss = summed_loss(scores, batch.labels, "binary") / len(scores)
        return loss if penalty is None else loss + penalty.float().mean()

    def step(self, *, perturbed=True):
        """One step of training; weights at a special value, such as zero, may hold others up."""
        model = self.model.train()
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=0.01)
        loss = self.loss(model, self.batch())
        assert torch.isfinite(loss)
        if perturbed:
            assert_gradients(model, loss)
        else:
            loss.backward()
        optimizer.step()
        model.eval()

    def cached(self, model):
        """Scores of some impressions with every representation computed once."""
        sample = self.sample
        return score_split(
            model, self.inputs, sample.valid, sample.corpus,
            max_history=MAX_HISTORY, worker=Worker(),
        )  # fmt: skip

    def uncached(self, model):
        """The same, one impression at a time."""
        collate = self.sample.collator(self.sample.valid, self.inputs)
        offsets = self.sample.valid.offsets
        scores = [
            model(collate(np.array([i]), np.arange(offsets[i], offsets[i + 1])[None]))[0]
            for i in range(SCORED)
        ]
        return torch.cat(scores).double().numpy()


@pytest.mark.parametrize("names", grouped(EVERY))
def test_it_trains_scores_alike_with_and_without_caches_and_survives_the_disk(
    names, sample, tmp_path
):
    check(Composition(names, sample), tmp_path)


FIELDED = [case for case in cases("predictor") if case.values[0].settings.get("fields")]


@pytest.mark.parametrize("case", FIELDED)
def test_so_does_a_predictor_that_reads_fields(case, sample, tmp_path):
    one = Composition(PLAIN, sample, predictor=case.config(sample.tiny))
    assert one.shape.fields
    check(one, tmp_path)


def check(one, tmp_path):
    """A step of training, cached against uncached scores, and a round trip to disk."""
    one.step()
    with torch.no_grad():
        cached = one.cached(one.model)
        assert np.isfinite(cached).all()
        np.testing.assert_allclose(cached, one.uncached(one.model), rtol=1e-5, atol=1e-5)
    save_model(
        tmp_path / "best",
        one.model,
        config=one.config,
        shape=one.shape,
        recipes=one.recipes,
        inputs=one.inputs,
        extra={},
    )
    loaded = load_model(tmp_path / "best")
    assert (loaded.config, loaded.shape, loaded.recipes) == (one.config, one.shape, one.recipes)
    np.testing.assert_array_equal(one.cached(loaded.recommender), cached)


@pytest.mark.parametrize("names", grouped(PAIRS))
def test_training_is_repeatable_on_a_seed(names, sample):
    one = Composition(names, sample)

    def trained(seed):
        one.model = one.new(seed)[0]
        torch.manual_seed(seed)
        one.step(perturbed=False)
        return one.model(one.batch())

    first, second, other = trained(1), trained(1), trained(2)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("names", grouped(PAIRS))
def test_bfloat16_autocast_works_forward_and_backward(names, sample):
    one = Composition(names, sample)
    model, batch = one.model.eval(), one.batch()
    expected = model(batch).detach()
    with torch.autocast("cpu", torch.bfloat16):
        scores = model(batch)
    scores.float().square().sum().backward()
    scale = expected.abs().max().clamp(min=1)
    assert ((scores.float() - expected).abs().max() / scale) < 0.1
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


def test_there_are_as_many_as_the_catalogue_promises():
    assert len(EVERY) >= 3000
    assert len(set(EVERY)) == len(EVERY)
