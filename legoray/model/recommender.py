"""Three parts make a recommender."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from legoray.config import ModelConfig
from legoray.data.recipes import InputSizes
from legoray.errors import InputError, Problem
from legoray.llm.quantized import weights_in
from legoray.model.base import (
    Batch,
    BehaviorOperator,
    ClickPredictor,
    ContentOperator,
    History,
    PartConfig,
    Shape,
    UserState,
    joined_states,
)
from legoray.model.blocks import blocks_of, last_places
from legoray.model.compose import check
from legoray.model.inputs import Inputs, Recipes
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

    def encode_users(self, history: History) -> UserState:
        """The state of B users; where it depends on the candidates, the history as it is."""
        if self.behavior.looks_at_candidates:
            return UserState("sequence", history.vectors, history.mask)
        return self.behavior(history)

    def score(self, user: UserState, candidates: Tensor, fields: Tensor | None = None) -> Tensor:
        """Raw scores `[B, K]` of candidate vectors `[B, K, D]` with `fields [B, K, F]`."""
        return self._scored(user, candidates, fields)[0]

    def score_all(self, user: UserState, items: Tensor) -> Tensor | None:
        """Raw scores `[B, N]` of all users with `items [N, D]`; None where `score` has to be asked.

        It has to where a user depends on the candidates, or the predictor knows no quicker way.
        """
        if self.behavior.looks_at_candidates:
            return None
        return self.predictor.score_all(user, items)

    def forward(self, batch: Batch) -> Tensor:
        """Scores `[B, K]` of a batch; each distinct item is encoded once.

        Where `batch.candidates` is 0 the score is that of a zero vector and means nothing.
        """
        return self.scores_and_penalty(batch)[0]

    def scores_and_penalty(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Scores `[B, K]` as `forward` gives them, and the behavior operator's penalty, if any.

        The penalty has one value per sample, to be added to its loss.
        """
        table = F.pad(self.encode_items(batch.items), (0, 0, 1, 0))  # row 0: padding
        candidates = F.embedding(batch.candidates, table)
        return self._scored(self._users(batch, table), candidates, batch.fields)

    def _users(self, batch: Batch, table: Tensor) -> UserState:
        """The states of a batch's users, those with histories of like length together."""
        present = batch.history > 0
        if self.behavior.produces == "sequence" or self.behavior.looks_at_candidates:
            everyone = torch.arange(len(present), device=present.device)
            return next(self._states(batch, table, [(everyone, present.shape[1])]))
        blocks, back = blocks_of(last_places(present))
        return joined_states(list(self._states(batch, table, blocks))).select(back)

    def _states(
        self, batch: Batch, table: Tensor, blocks: Sequence[tuple[Tensor, int]]
    ) -> Iterator[UserState]:
        """Of the users of each block; one lookup for all, whose gradient is as large as the table.

        A lookup's backward is faster than indexing's, and deterministic.
        """
        items = [batch.history[rows, :width] for rows, width in blocks]
        flat = F.embedding(torch.cat([own.flatten() for own in items]), table)
        vectors = flat.split([own.numel() for own in items])
        for (rows, _), own, found in zip(blocks, items, vectors, strict=True):
            users = None if batch.users is None else batch.users[rows]
            seen = found.view(*own.shape, -1)
            yield self.encode_users(History(seen, own > 0, users, batch.history_items, own))

    def _scored(
        self, user: UserState, candidates: Tensor, fields: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        if not self.behavior.looks_at_candidates:
            return self.predictor(user, candidates, fields), user.penalty
        assert user.mask is not None
        own = self.behavior(History(user.values, user.mask), candidates)
        # each candidate has a user of its own: as many users with one candidate each
        single = UserState(
            own.kind,
            own.values.flatten(0, 1),
            None if own.mask is None else own.mask.flatten(0, 1),
        )
        one = candidates.flatten(0, 1).unsqueeze(1)
        folded = None if fields is None else fields.flatten(0, 1).unsqueeze(1)
        return self.predictor(single, one, folded).view(candidates.shape[:2]), own.penalty

    def parameter_counts(self) -> tuple[int, int]:
        """How many parameters there are, and how many of them are trained."""
        sizes = [(weights_in(p), p.requires_grad) for p in self.parameters()]
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
    return Recommender(*(_built(part, settings, shape) for part, settings in parts))


def _built(part: type[Any], settings: PartConfig, shape: Shape) -> Any:
    """A new part; what a user's own raises is told with its name."""
    try:
        return part(settings, shape)
    except InputError:
        raise
    except Exception as error:
        if part.__module__.startswith("legoray."):
            raise
        name = f"'{part.__module__}:{part.__qualname__}'"
        raise InputError(
            Problem(name, f"cannot be built: {type(error).__name__}: {error}")
        ) from error


def recipes_of(config: ModelConfig, text: tuple[str, ...]) -> Recipes:
    """What a model reads of the data; `text` holds the data set's default text attributes.

    Raises:
        InputError: a part or its settings are not valid.
    """
    content, content_settings = parse_part("content", config.content, "model.content")
    behavior, behavior_settings = parse_part("behavior", config.behavior, "model.behavior")
    _, predictor_settings = parse_part("predictor", config.predictor, "model.predictor")
    return Recipes(
        items=content.recipe(content_settings, text),
        history=behavior.recipe(behavior_settings, text),
        fields=tuple(getattr(predictor_settings, "fields", ())),
    )


def shape_of(config: ModelConfig, inputs: Inputs, max_history: int) -> Shape:
    """The sizes that a model of these inputs is built for."""
    return Shape(
        hidden_size=config.hidden_size,
        item_count=inputs.items.item_count,
        max_history=max_history,
        input=inputs.items.sizes,
        history_input=inputs.history.sizes if inputs.history else InputSizes(),
        user_count=inputs.user_count,
        fields=inputs.fields.sizes if inputs.fields else (),
    )


def seeded(config: ModelConfig, shape: Shape, seed: int) -> Recommender:
    """As `build_recommender`, with weights that this seed alone decides; torch's state is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_recommender(config, shape)


def new_model(
    config: ModelConfig, inputs: Inputs, *, max_history: int, seed: int
) -> tuple[Recommender, Shape]:
    """A model ready to be trained on these inputs, with weights that the seed and they decide.

    Raises:
        InputError: the composition is not valid, or initial weights cannot be had.
    """
    shape = shape_of(config, inputs, max_history)
    model = seeded(config, shape, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.content.start_from(inputs.items)
        if inputs.history is not None:
            model.behavior.start_from(inputs.history)
    return model, shape
