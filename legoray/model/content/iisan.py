"""`iisan`: a side network over the pooled states of all of a language model's layers."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from legoray.config import Positive, Share
from legoray.data.recipes import LayersRecipe
from legoray.model.base import ContentOperator, PartConfig, Shape
from legoray.model.content.sources import PooledConfig, model_problems, template_of
from legoray.model.layers import Dropout, dense

_SMALL = 0.01  # of the blocks' last weights: a block starts close to doing nothing


class IisanConfig(PooledConfig):
    """Settings of `iisan`."""

    model: str = "minilm"
    layers: Literal["all", "even"] | Positive = "all"  # or a step: every n-th, and the last one
    adapter_size: Positive = 64
    dropout: Share = 0.0
    store: Literal["bfloat16", "float32"] = "bfloat16"


class SideBlock(nn.Module):
    """A side adapted network block (SANB): a bottleneck with a residual connection."""

    def __init__(self, size: int, adapter_size: int) -> None:
        super().__init__()
        self.down = dense(size, adapter_size)
        self.up = dense(adapter_size, size)
        nn.init.normal_(self.up.weight, std=_SMALL)

    def forward(self, values: Tensor) -> Tensor:
        """`x + U gelu(V x + v) + u`: `[..., H]` to `[..., H]`."""
        return values + self.up(F.gelu(self.down(values)))


class IisanOperator(ContentOperator):
    """Gated blocks beside frozen layers whose states are stored, and a head."""

    Config: ClassVar[type[PartConfig]] = IisanConfig
    paper: ClassVar[str] = "Fu et al.: IISAN (SIGIR 2024, arXiv 2404.02059), its text side"

    def __init__(self, config: IisanConfig, shape: Shape) -> None:
        super().__init__()
        width = shape.input.width
        self.chosen = chosen_layers(config.layers, shape.input.layers)
        self.blocks = nn.ModuleList(SideBlock(width, config.adapter_size) for _ in self.chosen)
        self.gates = nn.Parameter(torch.zeros(len(self.chosen) - 1))
        self.dropout = Dropout(config.dropout)
        self.project = dense(width, shape.hidden_size)

    @classmethod
    def recipe(cls, config: IisanConfig, text: tuple[str, ...]) -> LayersRecipe:
        """The pooled states after the embeddings and after every layer."""
        return LayersRecipe(
            model=config.model,
            template=template_of(config, text),
            length=config.length,
            pooling=config.pooling,
            precision=config.precision,
            store_dtype=config.store,
        )

    @classmethod
    def problems(cls, config: IisanConfig, hidden_size: int) -> list[str]:
        """What is wrong with the settings for this language model."""
        return model_problems(config.model, config)

    def forward(self, inputs: Tensor) -> Tensor:
        """`h_{i+1} = SANB(sigmoid(g_i) h_i + (1 - sigmoid(g_i)) s_{i+1})`, then `W h_n + b`.

        The first block reads the embeddings alone, `h_0 = SANB(s_0)`.

        Args:
            inputs: pooled states `s [N, L + 1, H]` of N items, of which the chosen layers are read.

        Returns:
            `[N, D]`.
        """
        states = [inputs[:, layer].to(self.gates.dtype) for layer in self.chosen]
        side = self.blocks[0](states[0])
        for gate, state, block in zip(
            torch.sigmoid(self.gates), states[1:], self.blocks[1:], strict=True
        ):
            side = block(gate * side + (1 - gate) * state)
        return self.project(self.dropout(side))


def chosen_layers(layers: str | int, count: int) -> list[int]:
    """Which of `count` stored states are read: the first, every n-th, and always the last."""
    step = {"all": 1, "even": 2}[layers] if isinstance(layers, str) else layers
    return sorted({*range(0, count, step), count - 1})
