"""Three parts make a recommender."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from legoray.config import ModelConfig
from legoray.data.recipes import Recipe
from legoray.errors import InputError
from legoray.model.base import (
    Batch,
    BehaviorOperator,
    ClickPredictor,
    ContentOperator,
    Shape,
    UserState,
)
from legoray.model.compose import check
from legoray.model.features import Features
from legoray.model.registry import parse_part


class Recommender(nn.Module):
    """`content operator -> behavior operator -> click predictor`."""

    def __init__(
        self, content: ContentOperator, behavior: BehaviorOperator, predictor: ClickPredictor
    ) -> None:
        super().__init__()
        self.content = content
        self.behavior = behavior
        self.predictor = predictor

    def encode_items(self, inputs: Any) -> Tensor:
        """`[N, D]` vectors of N items; `inputs` is what the content operator's recipe asks for."""
        return self.content(inputs)

    def encode_users(self, vectors: Tensor, mask: Tensor) -> UserState:
        """The state of B users from `vectors [B, H, D]` and `mask [B, H]`."""
        return self.behavior(vectors, mask)

    def score(self, user: UserState, candidates: Tensor) -> Tensor:
        """Raw scores `[B, K]` of candidate vectors `[B, K, D]`."""
        return self.predictor(user, candidates)

    def forward(self, batch: Batch) -> Tensor:
        """Scores `[B, K]` of a batch; each distinct item is encoded once.

        Where `batch.candidates` is 0 the score is that of a zero vector and means nothing.
        """
        table = F.pad(self.encode_items(batch.items), (0, 0, 1, 0))  # row 0: padding
        # an embedding lookup, because its backward is faster than indexing's, and deterministic
        history = F.embedding(batch.history, table)
        user = self.encode_users(history, batch.history > 0)
        return self.score(user, F.embedding(batch.candidates, table))

    def parameter_counts(self) -> tuple[int, int]:
        """How many parameters there are, and how many of them are trained."""
        sizes = [(p.numel(), p.requires_grad) for p in self.parameters()]
        return sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)


def build_recommender(config: ModelConfig, shape: Shape) -> Recommender:
    """A new model with random weights, from torch's global generator (seed it before).

    Raises:
        InputError: the composition is not valid.
    """
    problems = check(config, at=("model",))
    if problems:
        raise InputError(*problems)
    kinds = ("content", "behavior", "predictor")
    parts = [parse_part(kind, getattr(config, kind)) for kind in kinds]
    return Recommender(*(part(settings, shape) for part, settings in parts))


def recipe_of(config: ModelConfig, text: tuple[str, ...]) -> Recipe:
    """What a model reads of an item; `text` holds the data set's default text attributes.

    Raises:
        InputError: the content operator or its settings are not valid.
    """
    part, settings = parse_part("content", config.content, "model.content")
    return part.recipe(settings, text)


def shape_of(config: ModelConfig, features: Features, max_history: int) -> Shape:
    """The sizes that a model of these features is built for."""
    return Shape(
        hidden_size=config.hidden_size,
        item_count=features.item_count,
        vocabulary=features.vocabulary,
        attributes=features.attributes,
        max_history=max_history,
    )


def seeded(config: ModelConfig, shape: Shape, seed: int) -> Recommender:
    """As `build_recommender`, with weights that this seed alone decides; torch's state is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_recommender(config, shape)
