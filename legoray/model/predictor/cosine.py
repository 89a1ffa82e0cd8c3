"""`cosine`: the angle between user and item."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from legoray.model.base import ClickPredictor, PartConfig, Shape, UserKind, UserState
from legoray.model.layers import inner_products

_NO_LENGTH = 1e-4  # a shorter vector has no direction


class CosineConfig(PartConfig):
    """Settings of `cosine`."""

    temperature: Annotated[float, Field(gt=0)] = 0.1
    learned: bool = Field(False, description="whether training goes on from that temperature")


class CosinePredictor(ClickPredictor):
    """The cosine of the user vector and the item vector, over a temperature."""

    Config: ClassVar[type[PartConfig]] = CosineConfig
    accepts: ClassVar[frozenset[UserKind]] = frozenset({"vector"})
    paper: ClassVar[str] = "Huang et al.: DSSM (CIKM 2013)"

    def __init__(self, config: CosineConfig, shape: Shape) -> None:
        super().__init__()
        self.temperature = config.temperature
        self.log_temperature: nn.Parameter | None = None
        if config.learned:  # by its logarithm, so that it stays above zero
            self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))

    def forward(self, user: UserState, candidates: Tensor, fields: Tensor | None = None) -> Tensor:
        """`s = u^T c / (|u| |c| t)`: `u [B, D]`, `c [B, K, D]` to `[B, K]`.

        The relevance of DSSM, its smoothing factor being 1/t. A vector of zeros scores 0.
        """
        cosines = inner_products(_unit(candidates), _unit(user.values).unsqueeze(1))
        return self._divided(cosines.squeeze(-1))

    def score_all(self, user: UserState, items: Tensor) -> Tensor:
        """`u^T c / (|u| |c| t)` of all pairs: `u [B, D]`, `c [N, D]` to `[B, N]`."""
        return self._divided(inner_products(_unit(user.values), _unit(items)))

    def _divided(self, cosines: Tensor) -> Tensor:
        learned = self.log_temperature
        return cosines / (self.temperature if learned is None else learned.exp())


def _unit(vectors: Tensor) -> Tensor:
    """Vectors of length 1; one of zeros stays as it is, and so does its gradient."""
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / length.masked_fill(length < _NO_LENGTH, 1.0)
