"""`vector`: one stored vector per item, from a file or of a language model."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from legoray.config import Positive, Share
from legoray.data.recipes import (
    IdRecipe,
    Joined,
    JoinedRecipe,
    Recipe,
    VectorRecipe,
    VectorSource,
)
from legoray.data.vectors import SUFFIXES
from legoray.errors import InputError, Problem
from legoray.model.base import ContentOperator, PartConfig, Shape
from legoray.model.content.sources import (
    PooledConfig,
    absolute,
    exactly_one,
    file_problems,
    model_problems,
    vectors_of_model,
)
from legoray.model.layers import MLP, Dropout, RowTable


class VectorConfig(PooledConfig):
    """Settings of `vector`. Exactly one of `file` and `model` is given."""

    file: str | None = Field(None, description="absolute: .npy, .parquet or .safetensors")
    model: str | None = Field(None, description="a language model; pools its last states")
    use: Literal["projected", "tuned", "frozen"] = "projected"
    units: list[Positive] = Field(default_factory=list, description="hidden layers, if any")
    dropout: Share = 0.0


class VectorOperator(ContentOperator):
    """A stored vector: as it is, through trained layers, or itself trained."""

    Config: ClassVar[type[PartConfig]] = VectorConfig
    paper: ClassVar[str] = "decoupled DIRE (Liu et al.: ONCE, arXiv 2305.06566)"

    def __init__(self, config: VectorConfig, shape: Shape) -> None:
        """Build it.

        Raises:
            InputError: frozen vectors are not as wide as the model's hidden size.
        """
        super().__init__()
        size = shape.hidden_size
        self.table: RowTable | None = None
        if config.use == "tuned":
            width = shape.input.parts[1].width
            self.table = RowTable(shape.item_count, width, 1.0)  # until `start_from` fills it
        else:
            width = shape.input.width
        self.dropout = Dropout(config.dropout)
        self.project: nn.Module = nn.Identity()
        if config.use == "frozen" and width != size:
            raise InputError(
                Problem(
                    "model.content.use",
                    f"frozen vectors are {width} wide, and hidden_size is {size}",
                    f"set hidden_size: {width}, or use: projected",
                )
            )
        if config.use == "projected" or config.units or width != size:
            self.project = MLP(
                size=width, units=config.units, output_size=size, dropout=config.dropout
            )

    @classmethod
    def recipe(cls, config: VectorConfig, text: tuple[str, ...]) -> Recipe:
        """The item's vector; where it is tuned, also its number in the table of vectors.

        Raises:
            InputError: neither a file nor a model is given, or both are.
        """
        problems = exactly_one(file=config.file, model=config.model)
        if problems:
            raise InputError(*(Problem("model.content", text) for text in problems))
        if config.model is not None:
            source = vectors_of_model(config.model, config, text)
        else:
            source = VectorSource(file=absolute(str(config.file)))
        vectors = VectorRecipe(source)
        return JoinedRecipe((IdRecipe(), vectors)) if config.use == "tuned" else vectors

    @classmethod
    def problems(cls, config: VectorConfig, hidden_size: int) -> list[str]:
        """What is wrong with the settings: the file's name, the language model's."""
        found = exactly_one(file=config.file, model=config.model)
        if config.file is not None:
            found += file_problems(config.file, SUFFIXES)
        if config.model is not None:
            found += model_problems(config.model, config)
        if config.use == "frozen" and config.units:
            found.append("use: frozen has no layers, and units asks for some")
        return found

    def start_from(self, features: Any) -> None:
        """Take the stored vectors as the first values of a tuned table."""
        if self.table is None:
            return
        items = torch.arange(1, self.table.num_embeddings)
        with torch.no_grad():
            self.table.weight[1:] = features.parts[1].gather(items)

    def forward(self, inputs: Tensor | Joined) -> Tensor:
        """`f(x_i)`, f the identity or `W_n relu(... W_1 x + b_1) + b_n`: N items to `[N, D]`.

        Args:
            inputs: stored vectors `[N, W]`; where they are tuned, joined with the items' numbers
                `[N]`. A new item has number 0 there, and keeps its vector as it is.
        """
        if self.table is None:
            assert isinstance(inputs, Tensor)
            return self.project(self.dropout(inputs))
        assert isinstance(inputs, Joined)
        numbers, stored = inputs.parts
        assert isinstance(numbers, Tensor)
        assert isinstance(stored, Tensor)
        vectors = torch.where((numbers > 0)[:, None], self.table(numbers), stored)
        return self.project(self.dropout(vectors))
