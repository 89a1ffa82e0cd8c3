"""Builds every corner of a space and runs one training batch of each, before any trial starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from legoray.config import TrialConfig
from legoray.data.corpus import Corpus
from legoray.data.recipes import (
    CodeRecipe,
    LayersRecipe,
    Recipe,
    StateRecipe,
    VectorRecipe,
    leaves,
)
from legoray.errors import InfeasibleError, InputError, Problem
from legoray.llm.precision import precision_note
from legoray.model.base import Batch
from legoray.model.inspect import check_gradients, check_parts
from legoray.model.recommender import Recommender, new_model, recipes_of
from legoray.search.space import Space
from legoray.train.batches import Collator, draw_samples
from legoray.train.cache import shared_features, shared_inputs
from legoray.train.evaluate import evaluation_problems
from legoray.train.losses import loss_of, summed_loss
from legoray.train.optimizer import check_trained

SAMPLES = 8  # of a corner's batch: enough to meet lengths that differ

Say = Callable[[str], None]


def check_space(
    space: Space, corpus: Corpus, tables: Path, home: Path, say: Say = lambda text: None
) -> list[Problem]:
    """Everything that goes wrong when a space's corners are built and trained for one batch.

    What the corners read (tokens, hidden states) is made on the way, in the caches that the
    trials will use.

    Args:
        space: what to check.
        corpus: of the space's data set.
        tables: folder of the prepared tables.
        home: folder of shared caches.
        say: told how it goes.
    """
    began = time.perf_counter()
    problems = [
        Problem(space.document.where(tuple(p.where.split("."))), p.message, p.hint)
        for p in evaluation_problems(space.config.evaluate, corpus)
    ]
    problems = problems or _prepare(space.recipes(), tables, home, say)
    if problems:
        return problems
    corners = space.corners()
    for number, config in enumerate(corners, 1):
        where = f"{space.document.path}: {config.model.label()}"
        found = _attempt(config, where, space.text, corpus, tables, home)
        problems += found
        outcome = "failed" if found else "fine"
        say(f"corner {number} of {len(corners)}: {config.model.label()} {outcome}")
    seconds = time.perf_counter() - began
    say(f"{len(corners)} corners of the space built and run in {seconds:.1f} s")
    return list(dict.fromkeys(problems))


def _prepare(recipes: Sequence[Recipe], tables: Path, home: Path, say: Say) -> list[Problem]:
    """Make what the space may read and takes long to make; states of one model together."""
    _note_precisions(recipes, say)
    problems: list[Problem] = []
    slow = (StateRecipe, LayersRecipe, VectorRecipe, CodeRecipe)
    if any(isinstance(recipe, slow) for recipe in recipes):
        from legoray.llm.store import ensure_states

        problems += _problems(lambda: ensure_states(recipes, tables, home, say))
    for recipe in recipes:
        of_file = isinstance(recipe, VectorRecipe) and recipe.source.file
        if of_file or (not problems and isinstance(recipe, VectorRecipe | CodeRecipe)):
            problems += _problems(lambda one=recipe: shared_features(one, tables, home))  # type: ignore[misc]
    return problems


def _note_precisions(recipes: Sequence[Recipe], say: Say) -> None:
    """Say what is worth knowing of the precisions that language models are held in."""
    sources = {getattr(r, "source", None) or getattr(r, "vectors", None) or r for r in recipes}
    for precision in sorted({getattr(source, "precision", "float32") for source in sources}):
        note = precision_note(precision)
        if note:
            say(note)


def _problems(attempt: Callable[[], Any]) -> list[Problem]:
    try:
        attempt()
    except InputError as error:
        return error.problems
    return []


def check_config(
    config: TrialConfig,
    text: tuple[str, ...],
    corpus: Corpus,
    tables: Path,
    home: Path,
    say: Say = lambda text: None,
) -> list[Problem]:
    """As `check_space`, for one configuration."""
    problems = evaluation_problems(config.evaluate, corpus)
    if problems:
        return problems
    try:
        recipes = recipes_of(config.model, text)
        read = [*leaves(recipes.items), *(leaves(recipes.history) if recipes.history else ())]
        problems = _prepare(read, tables, home, say)
    except InputError as error:
        return error.problems
    return problems or _attempt(config, config.model.label(), text, corpus, tables, home)


def _attempt(
    config: TrialConfig,
    where: str,
    text: tuple[str, ...],
    corpus: Corpus,
    tables: Path,
    home: Path,
) -> list[Problem]:
    """The problems of one corner, which stands at `where`."""
    try:
        run_corner(config, text, corpus, tables, home)
    except InputError as error:
        return [
            Problem(f"{where}: {p.where}" if p.where else where, p.message, p.hint)
            for p in error.problems
        ]
    except InfeasibleError as error:
        return [Problem(where, str(error))]
    except Exception as error:  # a part of the user's own may raise anything
        return [Problem(where, f"cannot be trained: {type(error).__name__}: {error}")]
    return []


def run_corner(
    config: TrialConfig, text: tuple[str, ...], corpus: Corpus, tables: Path, home: Path
) -> None:
    """Build one model, train it on one batch and score that batch.

    Raises:
        InputError: something that it reads is missing, or the train split is empty.
        InfeasibleError: nothing of it is trained, or its loss, its gradients or its scores are not
            finite.
    """
    inputs = shared_inputs(recipes_of(config.model, text), tables, home, corpus)
    recommender, _ = new_model(
        config.model, inputs, max_history=config.train.max_history, seed=config.seed
    )
    check_trained(recommender)
    train = corpus.splits["train"]
    samples = draw_samples(
        train,
        task=config.train.task,
        negatives=config.train.negatives,
        seed=config.seed,
        epoch=1,
    )
    if not len(samples):
        message = "the train split has no impression with both a click and a non-click"
        raise InputError(Problem(f"data set {corpus.name}", message))
    chosen = np.arange(min(SAMPLES, config.train.batch_size, len(samples)))
    collate = Collator(corpus, train, inputs, config.train.max_history)
    batch = collate(samples.impression[chosen], samples.rows[chosen])
    problems = check_parts(recommender, batch, config.model.hidden_size)
    if problems:
        raise InputError(*problems)
    _train_and_score(recommender, batch, config)


def _train_and_score(recommender: Recommender, batch: Batch, config: TrialConfig) -> None:
    """Forward and backward in training, then a forward in evaluation; all of it finite."""
    recommender.train()
    with torch.random.fork_rng(devices=[]), _autocast(config):
        torch.manual_seed(config.seed)
        scores, penalty = recommender.scores_and_penalty(batch)
    loss = summed_loss(scores, batch.labels, loss_of(config.train))
    if penalty is not None:
        loss = loss + penalty.float().sum()
    loss.backward()
    problems = check_gradients(recommender)
    if problems:
        raise InputError(*problems)
    recommender.eval()
    with torch.no_grad(), _autocast(config):
        scored = recommender(batch)
    gradients = [p.grad for p in recommender.parameters() if p.grad is not None]
    for name, tensors in {"loss": [loss], "gradients": gradients, "scores": [scored]}.items():
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
            raise InfeasibleError(f"its {name} are not finite in the first batch")


def _autocast(config: TrialConfig) -> torch.autocast:
    enabled = config.train.precision == "bfloat16"
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled)
