"""`multi-kernel-cnn`: the strongest trace of word groups of several lengths (Kim 2014)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from legoray.config import Positive
from legoray.data.recipes import TokenRecipe, Tokens
from legoray.model.base import ContentOperator, PartConfig, Shape
from legoray.model.content.text import TextConfig, by_length, token_recipe, word_embedding
from legoray.model.layers import Dropout, convolution, dense, masked_max


class MultiKernelCnnConfig(TextConfig):
    """Settings of `multi-kernel-cnn`."""

    kernel_sizes: list[Positive] = Field(default_factory=lambda: [3, 4, 5], min_length=1)
    filters: Positive = 100  # of each kernel size


class MultiKernelCnnOperator(ContentOperator):
    """Convolutions of several widths, ReLU, the maximum over time, concatenated and projected."""

    Config: ClassVar[type[PartConfig]] = MultiKernelCnnConfig
    paper: ClassVar[str] = "Kim: CNNs for sentence classification (EMNLP 2014, arXiv 1408.5882)"

    def __init__(self, config: MultiKernelCnnConfig, shape: Shape) -> None:
        super().__init__()
        self.embed = word_embedding(config, shape)
        self.widths = tuple(config.kernel_sizes)
        self.convolve = nn.ModuleList(
            convolution(config.embedding_size, config.filters, width) for width in self.widths
        )
        self.dropout = Dropout(config.dropout)
        self.project = dense(config.filters * len(self.widths), shape.hidden_size)

    @classmethod
    def recipe(cls, config: MultiKernelCnnConfig, text: tuple[str, ...]) -> TokenRecipe:
        """Tokens of the configured attributes, read as one sequence."""
        return token_recipe(config, text)

    def start_from(self, features: Any) -> None:
        """The words' first embeddings, as the settings ask."""
        self.embed.start_from(features)

    def forward(self, inputs: Tokens) -> Tensor:
        """`W [max_i ReLU(w_h x_{i:i+h-1} + b_h)] + b` over the kernel sizes h (Kim).

        N items' tokens to `[N, D]`. Windows lie within the text; one that is shorter than a kernel
        is filled up with zeros, and one without any word gives `b`.
        """
        return by_length(self.embed, self._encode, inputs)

    def _encode(self, embedded: Tensor, inputs: Tokens) -> Tensor:
        embedded = embedded.transpose(1, 2)
        start = torch.arange(inputs.mask.shape[1], device=inputs.mask.device)
        end = (inputs.mask * (start + 1)).amax(dim=1, keepdim=True)
        features = []
        for width, layer in zip(self.widths, self.convolve, strict=True):
            traces = torch.relu(layer(F.pad(embedded, (0, width - 1)))).transpose(1, 2)
            inside = (start + width <= end) | ((start == 0) & (end > 0))
            features.append(masked_max(traces, inside))
        return self.project(self.dropout(torch.cat(features, dim=-1)))
