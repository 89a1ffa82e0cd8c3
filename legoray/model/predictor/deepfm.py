"""`deepfm`: a factorization machine and an MLP on the same vectors."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from legoray.config import Positive, Share
from legoray.model.base import ClickPredictor, FieldsConfig, PartConfig, Shape, UserKind, UserState
from legoray.model.layers import MLP, Activation
from legoray.model.predictor.fields import FieldStack
from legoray.model.predictor.fm import LinearTerms, pair_sum


class DeepFmConfig(FieldsConfig):
    """Settings of `deepfm`."""

    units: list[Positive] = Field(default_factory=lambda: [128, 64], min_length=1)
    activation: Activation = "relu"
    dropout: Share = 0.1


class DeepFmPredictor(ClickPredictor):
    """A factorization machine beside an MLP; both read the same vectors."""

    Config: ClassVar[type[PartConfig]] = DeepFmConfig
    accepts: ClassVar[frozenset[UserKind]] = frozenset({"vector"})
    paper: ClassVar[str] = "Guo et al.: DeepFM (IJCAI 2017, arXiv 1703.04247)"

    def __init__(self, config: DeepFmConfig, shape: Shape) -> None:
        super().__init__()
        self.stack = FieldStack(shape)
        self.linear = LinearTerms(shape)
        self.deep = MLP(
            size=self.stack.count * shape.hidden_size,
            units=config.units,
            score=True,
            activation=config.activation,
            dropout=config.dropout,
            output_bias=False,  # the linear terms have one
        )

    def forward(self, user: UserState, candidates: Tensor, fields: Tensor | None = None) -> Tensor:
        """`s = <w, x> + sum_{i<j} <v_i, v_j> + MLP([v_1; ...; v_m])` (DeepFM, eqs. 1-4).

        `u [B, D]`, `c [B, K, D]` to `[B, K]`.
        """
        stacked = self.stack(user, candidates, fields)
        deep = self.deep.of_pairs(stacked.flatten(2), stacked.shape[-1]).squeeze(-1)
        return self.linear(stacked, fields) + pair_sum(stacked) + deep
