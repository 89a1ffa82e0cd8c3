"""`views`: each attribute is a view of the item, attention weighs the views (NAML)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from legoray.config import Positive
from legoray.data.recipes import CategoryRecipe, Joined, JoinedRecipe, Recipe, TokenRecipe
from legoray.errors import InputError, Problem
from legoray.model.base import ContentOperator, PartConfig, Shape
from legoray.model.content import nested
from legoray.model.layers import AdditiveAttention, dense, embedding, zero_masked
from legoray.model.registry import parse_part

_WORDS = ("embed", "table")  # where encoders keep their word embeddings


class ViewsConfig(PartConfig):
    """Settings of `views`."""

    encoder: dict[str, Any] = Field(
        default_factory=lambda: {"name": "cnn"}, description="of each text attribute"
    )
    attributes: list[str] | None = Field(
        None, min_length=1, description="the data set's text attributes where it is not given"
    )
    categories: list[str] = Field(default_factory=list, description="categorical attributes")
    category_size: Positive = 100
    attention_size: Positive = 64


class ViewsOperator(ContentOperator):
    """One encoder per text attribute, categories, attention over these views."""

    Config: ClassVar[type[PartConfig]] = ViewsConfig
    paper: ClassVar[str] = "Wu et al.: NAML (IJCAI 2019, arXiv 1907.05576)"

    def __init__(self, config: ViewsConfig, shape: Shape) -> None:
        super().__init__()
        size = shape.hidden_size
        inputs = shape.input.parts
        self.texts = len(inputs) - bool(config.categories)
        self.encoders = nn.ModuleList(
            nested.nested_part(config.encoder, shape, place) for place in range(self.texts)
        )
        if len({own.vocabulary for own in inputs[: self.texts]}) == 1 and inputs[0].vocabulary:
            self._share_words()
        values = inputs[-1].values if config.categories else ()
        self.tables = nn.ModuleList(embedding(n, config.category_size, 0.1) for n in values)
        self.category = nn.ModuleList(dense(config.category_size, size) for _ in values)
        # a single view needs no weights, and could not train them
        several = self.texts + len(values) > 1
        self.pool = AdditiveAttention(size, config.attention_size) if several else None

    @classmethod
    def recipe(cls, config: ViewsConfig, text: tuple[str, ...]) -> JoinedRecipe:
        """One input per text attribute, with words of one vocabulary, then the categories.

        Raises:
            InputError: neither the part nor the data set says which text to read.
        """
        attributes = tuple(config.attributes) if config.attributes is not None else text
        if not attributes:
            message = "the data set has no text attributes by default"
            hint = "name the ones to read, such as attributes: [title]"
            raise InputError(Problem("model.content.attributes", message, hint))
        parts: list[Recipe] = [_encoder_recipe(config, name, attributes) for name in attributes]
        if config.categories:
            parts.append(CategoryRecipe(tuple(config.categories)))
        return JoinedRecipe(tuple(parts))

    @classmethod
    def problems(cls, config: ViewsConfig, hidden_size: int) -> list[str]:
        """What is wrong with the encoder's settings, or with using it for one attribute alone."""
        found = nested.nested_problems(config.encoder, hidden_size, "encoder")
        if found:
            return found
        try:
            _attribute_setting(config)
        except ValueError as error:
            found.append(str(error))
        return found

    def start_from(self, features: Any) -> None:
        """Each encoder from its own input."""
        for encoder, own in zip(self.encoders, features.parts, strict=False):
            assert isinstance(encoder, ContentOperator)
            encoder.start_from(own)

    def forward(self, inputs: Joined) -> Tensor:
        """`sum_v a_v r_v` with `a = softmax(q^T tanh(U r_v + u))` (NAML, attentive pooling).

        A text's view `r_v` is its encoder's vector, a category's `ReLU(V e_c + v)`.
        Views of which an item has nothing (no token, no category) are left out; one without any
        view is zeros.

        Args:
            inputs: of N items for each encoder, then `[N, C]` category numbers if there are any.

        Returns:
            `[N, D]`.
        """
        texts = inputs.parts[: self.texts]
        views = [encode(own) for encode, own in zip(self.encoders, texts, strict=True)]
        present = [_present(own, view) for own, view in zip(texts, views, strict=True)]
        for place, (table, layer) in enumerate(zip(self.tables, self.category, strict=True)):
            codes = inputs.parts[-1]
            assert isinstance(codes, Tensor)
            views.append(torch.relu(layer(table(codes[:, place]))))
            present.append(codes[:, place] > 0)
        stacked, mask = torch.stack(views, dim=1), torch.stack(present, dim=1)
        if self.pool is None:
            return zero_masked(stacked, mask)[:, 0]
        return self.pool(stacked, mask)

    def encoder_parameters(self) -> list[nn.Parameter]:
        """The encoders' own."""
        return nested.encoder_parameters(self._parts())

    def saved_state(self) -> dict[str, Tensor]:
        """Everything once, as the encoders save themselves."""
        return nested.saved_state(self, self._parts())

    def load_saved_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `saved_state` gave.

        Raises:
            ValueError: names or shapes are not this operator's.
        """
        nested.load_saved_state(self, self._parts(), state)

    def _parts(self) -> dict[str, nn.Module]:
        return {f"encoders.{place}": part for place, part in enumerate(self.encoders)}

    def _share_words(self) -> None:
        """All encoders look words up in the first one's table (NAML has one, `W_e`)."""
        for name in _WORDS:
            if isinstance(getattr(self.encoders[0], name, None), nn.Module):
                for encoder in self.encoders[1:]:
                    setattr(encoder, name, getattr(self.encoders[0], name))


def _present(inputs: Any, view: Tensor) -> Tensor:
    """`[N]`: which items have a text to read."""
    if hasattr(inputs, "mask"):
        mask: Tensor = inputs.mask
        return mask.any(dim=1)
    return torch.ones(len(view), dtype=torch.bool, device=view.device)


def _attribute_setting(config: ViewsConfig) -> str:
    """The setting by which the encoder is told which attribute to read.

    Raises:
        ValueError: it has none, or it is given.
    """
    part, own = parse_part("content", config.encoder, "encoder")
    name = config.encoder["name"]
    for setting in ("attributes", "template"):
        if setting in part.Config.model_fields:
            if getattr(own, setting) is not None:
                raise ValueError(f"encoder.{setting} is set by views, one attribute per encoder")
            if setting == "template" and getattr(own, "file", None) is not None:
                continue
            return setting
    raise ValueError(f"encoder '{name}' does not read one attribute's text, such as 'cnn' does")


def _encoder_recipe(config: ViewsConfig, attribute: str, vocabulary: tuple[str, ...]) -> Recipe:
    """What one attribute's encoder reads."""
    try:
        setting = _attribute_setting(config)
    except ValueError as error:
        raise InputError(Problem("model.content.encoder", str(error))) from None
    value: Any = [attribute] if setting == "attributes" else f"{{{attribute}}}"
    part, own = parse_part("content", {**config.encoder, setting: value}, "encoder")
    recipe: Recipe = part.recipe(own, (attribute,))
    if isinstance(recipe, TokenRecipe) and recipe.tokenizer == "words":
        return dataclasses.replace(recipe, vocabulary=vocabulary)
    return recipe
