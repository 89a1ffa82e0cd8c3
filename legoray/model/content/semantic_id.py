"""`semantic-id`: a few learned vectors per item, looked up by what the item is about."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from legoray.config import Positive, Share
from legoray.data.recipes import CodeRecipe, VectorSource
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
from legoray.model.layers import Dropout, embedding


class SemanticIdConfig(PooledConfig):
    """Settings of `semantic-id`. Exactly one of `file`, `vectors` and `model` is given."""

    levels: Positive = 3
    codes: Annotated[int, Field(ge=2)] = Field(256, description="per level")
    file: str | None = Field(None, description="codes, as `legoray codes` writes them; absolute")
    vectors: str | None = Field(None, description="a file of vectors to make codes of; absolute")
    model: str | None = Field(None, description="a language model, whose vectors get codes")
    code_seed: int = Field(0, ge=0, description="of the k-means")
    dropout: Share = 0.0


class SemanticIdOperator(ContentOperator):
    """The sum of an embedding per code; similar items share their first codes."""

    Config: ClassVar[type[PartConfig]] = SemanticIdConfig
    paper: ClassVar[str] = "Singh et al.: Semantic IDs (arXiv 2306.08121); TIGER (2305.05065)"

    def __init__(self, config: SemanticIdConfig, shape: Shape) -> None:
        super().__init__()
        size = shape.hidden_size
        scale = 1 / math.sqrt(size * len(shape.input.values))  # the sum has unit length
        self.tables = nn.ModuleList(embedding(n, size, scale) for n in shape.input.values)
        self.dropout = Dropout(config.dropout)

    @classmethod
    def recipe(cls, config: SemanticIdConfig, text: tuple[str, ...]) -> CodeRecipe:
        """The item's codes, from coarse to fine.

        Raises:
            InputError: not exactly one source is given.
        """
        problems = exactly_one(file=config.file, vectors=config.vectors, model=config.model)
        if problems:
            raise InputError(*(Problem("model.content", text) for text in problems))
        if config.file is not None:
            return CodeRecipe(config.levels, config.codes, file=absolute(config.file))
        if config.model is not None:
            source = vectors_of_model(config.model, config, text)
        else:
            source = VectorSource(file=absolute(str(config.vectors), "vectors"))
        return CodeRecipe(config.levels, config.codes, vectors=source, seed=config.code_seed)

    @classmethod
    def problems(cls, config: SemanticIdConfig, hidden_size: int) -> list[str]:
        """What is wrong with the settings: the files' names, the language model's."""
        found = exactly_one(file=config.file, vectors=config.vectors, model=config.model)
        if config.file is not None:
            found += file_problems(config.file, (".parquet",))
        if config.vectors is not None:
            found += file_problems(config.vectors, SUFFIXES, "vectors")
        if config.model is not None:
            found += model_problems(config.model, config)
        return found

    def forward(self, inputs: Tensor) -> Tensor:
        """`sum_l E_l[c_l]`: codes `[N, levels]`, each from 1, to `[N, D]`."""
        codes = inputs.unbind(dim=1)
        looked_up = [table(own) for table, own in zip(self.tables, codes, strict=True)]
        return self.dropout(torch.stack(looked_up).sum(dim=0))
