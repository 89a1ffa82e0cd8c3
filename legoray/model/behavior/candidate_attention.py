"""`candidate-attention`: each candidate weights the history for itself (DIN, DKN)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from legoray.config import Positive, Share
from legoray.model.base import BehaviorOperator, History, PartConfig, Shape, UserKind, UserState
from legoray.model.layers import (
    MLP,
    Activation,
    activation_layer,
    dense,
    masked_softmax,
    pair_layer,
    zero_masked,
)


class CandidateAttentionConfig(PartConfig):
    """Settings of `candidate-attention`."""

    units: list[Positive] = Field(default_factory=lambda: [64], min_length=1)
    activation: Activation = "relu"
    dropout: Share = 0.0


class CandidateAttentionOperator(BehaviorOperator):
    """Softmax attention over the history by an MLP that compares items with the candidate."""

    Config: ClassVar[type[PartConfig]] = CandidateAttentionConfig
    produces: ClassVar[UserKind] = "vector"
    looks_at_candidates: ClassVar[bool] = True
    paper: ClassVar[str] = (
        "Zhou et al.: DIN (KDD 2018, arXiv 1706.06978); Wang et al.: DKN (arXiv 1801.08284)"
    )

    def __init__(self, config: CandidateAttentionConfig, shape: Shape) -> None:
        super().__init__()
        first, *more = config.units
        self.compare = dense(3 * shape.hidden_size, first)
        self.activate = activation_layer(config.activation)
        self.rest = MLP(
            size=first,
            units=more,
            output_size=1,
            activation=config.activation,
            dropout=config.dropout,
            output_bias=False,  # a softmax does not see it
        )

    def forward(self, history: History, candidates: Tensor | None = None) -> UserState:
        """`u_k = sum_i a_ki h_i`, `a_k = softmax_i(MLP([h_i; c_k; h_i * c_k]))`.

        DIN, eq. 3, with the softmax of DKN: `h [B, H, D]`, `c [B, K, D]` to `[B, K, D]`, a
        user for each candidate; zeros without a history.
        """
        if candidates is None:
            raise ValueError("this operator needs the candidates")
        values = zero_masked(history.vectors, history.mask)
        scores = self.rest(self.activate(self._compared(values, candidates))).squeeze(-1)
        weights = masked_softmax(scores, history.mask.unsqueeze(1).expand_as(scores))
        return UserState("vector", weights.to(values.dtype) @ values)

    def _compared(self, values: Tensor, candidates: Tensor) -> Tensor:
        """The first layer on `[h; c; h * c]` of all pairs, `[B, K, H, U]`."""
        of_item, of_candidate, of_product = self.compare.weight.chunk(3, dim=1)
        weights = (of_item, of_candidate, of_product)
        return pair_layer(values, candidates, weights, self.compare.bias)
