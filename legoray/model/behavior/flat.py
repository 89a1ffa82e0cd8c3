"""One long token sequence of a whole history, for the operators that read it."""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from legoray.config import Positive
from legoray.model.base import History, Shape
from legoray.model.behavior.order import POSITION_SCALE, ages
from legoray.model.blocks import in_blocks
from legoray.model.content.text import TextConfig, word_embedding
from legoray.model.fastformer import FastformerLayers
from legoray.model.layers import AdditiveAttention, dense, embedding, zero_masked
from legoray.model.transformer import TransformerLayers


class FlatConfig(TextConfig):
    """Settings that the operators on flattened histories share."""

    length: Positive = Field(16, description="tokens per item and attribute at most")
    layers: Positive = 1
    heads: Positive = 8
    inner_size: Positive | None = Field(
        None, description="of the feed-forward network; four times hidden_size by default"
    )
    attention_size: Positive = 64


class FlatHistory(nn.Module):
    """Reads the tokens of a history's items one after another, without what is padding."""

    def __init__(
        self,
        config: FlatConfig,
        shape: Shape,
        layers: type[TransformerLayers] | type[FastformerLayers],
    ) -> None:
        super().__init__()
        size, inputs = shape.hidden_size, shape.history_input
        inner = config.inner_size or 4 * size
        self.work = config.length * inputs.attributes * inner  # numbers per item of a history
        self.embed = word_embedding(config, replace(shape, input=inputs))
        same = config.embedding_size == size
        self.project: nn.Module = nn.Identity() if same else dense(config.embedding_size, size)
        self.places = embedding(config.length * inputs.attributes + 1, size, POSITION_SCALE)
        self.ages = embedding(shape.max_history + 1, size, POSITION_SCALE)
        self.mix = layers(
            size=size,
            layers=config.layers,
            heads=config.heads,
            inner_size=inner,
            dropout=config.dropout,
        )
        self.pool = AdditiveAttention(size, config.attention_size)

    def forward(self, history: History) -> Tensor:
        """`pool(layers(x))` of `x_t = P w_t + p_place(t) + p_age(t)`, t the history's tokens.

        A token's place is counted in its item, from 1; its age is its item's, 1 for the newest.
        Users with about as many tokens are read together, so that less is padding.

        Returns:
            `[B, D]`; zeros for users without any token.
        """
        *parts, count = flatten(history)

        def encode(own: Tensor, width: int) -> Tensor:
            ids, places, age = (part[own, :width] for part in parts)
            mask = torch.arange(width, device=count.device) < count[own, None]
            return self.pool(self.mix(self._values(ids, places, age, mask), mask), mask)

        return in_blocks(encode, count)

    def _values(self, ids: Tensor, places: Tensor, age: Tensor, mask: Tensor) -> Tensor:
        words = self.project(self.embed(ids, mask))
        place = self.places(places.clamp(max=self.places.num_embeddings - 1))
        item = self.ages(age.clamp(max=self.ages.num_embeddings - 1))
        return zero_masked(words + place + item, mask)


def flatten(history: History) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ids, places in their item, and ages of their item of a history's tokens; their number `[B]`.

    Padding within and between items is moved to the end: each of the three is `[B, T]`, the tokens
    of a row at its front, then zeros.
    """
    if history.items is None:
        raise ValueError("this operator reads tokens, and the history does not name its items")
    tokens = history.tokens()
    rows = history.items.masked_fill(~history.mask, 0)
    # before the items row 0, of padding; after the tokens a column that is never one
    ids = F.pad(tokens.ids, (0, 1, 1, 0))[rows]
    there = F.pad(tokens.mask, (0, 1, 1, 0))[rows]  # [B, H, L]
    places = there.cumsum(dim=2)
    age = ages(history.mask).unsqueeze(2).expand_as(places)
    mask = there.flatten(1)
    order = mask.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices
    mask = mask.gather(1, order)
    ids, places, age = (
        part.flatten(1).gather(1, order).masked_fill(~mask, 0) for part in (ids, places, age)
    )
    return ids, places, age, there.sum(dim=(1, 2))
