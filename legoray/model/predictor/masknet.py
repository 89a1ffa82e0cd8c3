"""`masknet`: what a pair is decides, coordinate by coordinate, how much of it counts."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from legoray.config import Positive, Share
from legoray.model.base import ClickPredictor, FieldsConfig, PartConfig, Shape, UserKind, UserState
from legoray.model.layers import MLP, Activation, Dropout, dense
from legoray.model.predictor.fields import FieldStack


class MaskNetConfig(FieldsConfig):
    """Settings of `masknet`."""

    structure: Literal["serial", "parallel"] = "parallel"
    blocks: Positive = 3
    block_size: Positive = Field(64, description="width of a block's output")
    reduction: Positive = Field(
        2, description="width of a mask's inner layer, in widths of the mask"
    )
    units: list[Positive] = Field(
        default_factory=lambda: [64], min_length=1, description="of the MLP after parallel blocks"
    )
    activation: Activation = "relu"
    dropout: Share = 0.1


class MaskNetPredictor(ClickPredictor):
    """Blocks that multiply their input with a mask made of all fields."""

    Config: ClassVar[type[PartConfig]] = MaskNetConfig
    accepts: ClassVar[frozenset[UserKind]] = frozenset({"vector"})
    paper: ClassVar[str] = "Wang et al.: MaskNet (DLP-KDD 2021, arXiv 2102.07619)"

    def __init__(self, config: MaskNetConfig, shape: Shape) -> None:
        super().__init__()
        self.stack = FieldStack(shape)
        size, width = self.stack.count * shape.hidden_size, config.block_size
        self.parallel = config.structure == "parallel"
        self.gain = nn.Parameter(torch.ones(self.stack.count, shape.hidden_size))
        self.shift = nn.Parameter(torch.zeros(self.stack.count, shape.hidden_size))
        later = size if self.parallel else width
        self.blocks = nn.ModuleList(
            MaskBlock(context=size, size=read, output_size=width, reduction=config.reduction)
            for read in [size] + [later] * (config.blocks - 1)
        )
        self.dropout = Dropout(config.dropout)
        self.output = MLP(
            size=config.blocks * width if self.parallel else width,
            units=config.units if self.parallel else [],
            score=True,
            activation=config.activation,
            dropout=config.dropout,
        )

    def forward(self, user: UserState, candidates: Tensor, fields: Tensor | None = None) -> Tensor:
        """Serial: block after block, `w^T` of the last; parallel: an MLP on all blocks' outputs.

        Every mask is made of the fields' vectors themselves; the (first) blocks read each field's
        vector after a layer norm of its own (MaskNet, sections 3.2-3.4). `u [B, D]`,
        `c [B, K, D]` to `[B, K]`.
        """
        stacked = self.stack(user, candidates, fields)
        context = stacked.flatten(2)
        normed = F.layer_norm(stacked, stacked.shape[-1:]) * self.gain + self.shift
        values = normed.flatten(2)
        if self.parallel:
            outputs = [self.dropout(block(values, context)) for block in self.blocks]
            return self.output(torch.cat(outputs, dim=-1)).squeeze(-1)
        for block in self.blocks:
            values = self.dropout(block(values, context))
        return self.output(values).squeeze(-1)


class MaskBlock(nn.Module):
    """Mask, linear layer, layer norm, ReLU."""

    def __init__(self, *, context: int, size: int, output_size: int, reduction: int) -> None:
        super().__init__()
        self.mask = MLP(size=context, units=[reduction * size], output_size=size)
        self.linear = dense(size, output_size, bias=False)
        self.norm = nn.LayerNorm(output_size)

    def forward(self, values: Tensor, context: Tensor) -> Tensor:
        """`relu(LN(W (mask * x)))`, `mask = W_2 relu(W_1 v + b_1) + b_2`.

        `x [..., size]` and `v [..., context]` to `[..., output_size]`.
        """
        return torch.relu(self.norm(self.linear(self.mask(context) * values)))
