"""`pnn`: an MLP that is given the products of the fields besides the fields."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from legoray.config import Positive, Share
from legoray.model.base import ClickPredictor, FieldsConfig, PartConfig, Shape, UserKind, UserState
from legoray.model.layers import MLP, Activation, Dropout, activation_layer, dense
from legoray.model.predictor.fields import FieldStack


class PnnConfig(FieldsConfig):
    """Settings of `pnn`."""

    product: Literal["inner", "outer", "both"] = "inner"
    product_units: Positive = Field(64, description="width of the layer that reads the products")
    units: list[Positive] = Field(default_factory=lambda: [64], min_length=1)
    activation: Activation = "relu"
    dropout: Share = 0.1


class PnnPredictor(ClickPredictor):
    """An MLP on the fields and their inner products, outer products, or both."""

    Config: ClassVar[type[PartConfig]] = PnnConfig
    accepts: ClassVar[frozenset[UserKind]] = frozenset({"vector"})
    paper: ClassVar[str] = "Qu et al.: Product-based Neural Networks (ICDM 2016, arXiv 1611.00144)"

    def __init__(self, config: PnnConfig, shape: Shape) -> None:
        super().__init__()
        self.stack = FieldStack(shape)
        self.product = config.product
        count, size, width = self.stack.count, shape.hidden_size, config.product_units
        self.signals = dense(count * size, width)
        products = {"inner": count**2, "outer": size**2, "both": count**2 + size**2}
        self.products = dense(products[config.product], width, bias=False)
        self.activate = nn.Sequential(activation_layer(config.activation), Dropout(config.dropout))
        self.deep = MLP(
            size=width,
            units=config.units,
            score=True,
            activation=config.activation,
            dropout=config.dropout,
        )

    def forward(self, user: UserState, candidates: Tensor, fields: Tensor | None = None) -> Tensor:
        """`s = MLP(relu(W_z z + W_p p + b))` (PNN, eqs. 1-3).

        z holds the fields' vectors, p their products. `u [B, D]`, `c [B, K, D]` to `[B, K]`.
        """
        stacked = self.stack(user, candidates, fields)
        joined = self.signals(stacked.flatten(2)) + self.products(self.multiply(stacked))
        return self.deep(self.activate(joined)).squeeze(-1)

    def work(self) -> int:
        """All products."""
        return self.products.in_features

    def multiply(self, stacked: Tensor) -> Tensor:
        """The products p of the fields, `[B, K, N, D]` to `[B, K, P]`.

        Inner: `<f_i, f_j>` for all i and j, P = N^2. Outer: the sum over all i and j of
        `f_i f_j^T`, which is `(sum_i f_i) (sum_i f_i)^T`, P = D^2 (the paper's superposition).
        """
        found = []
        if self.product != "outer":
            found.append((stacked @ stacked.transpose(-1, -2)).flatten(-2))
        if self.product != "inner":
            total = stacked.sum(dim=-2)
            found.append((total.unsqueeze(-1) * total.unsqueeze(-2)).flatten(-2))
        return torch.cat(found, dim=-1)
