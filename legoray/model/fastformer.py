"""Fastformer layers over a sequence: attention in linear time, of content and behavior alike."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from legoray.model.layers import MLP, Dropout, dense, masked_softmax, zero_masked


class FastformerLayers(nn.Module):
    """Fastformer layers with residuals, and a last normalization.

    The layers share their weights, as in the paper; with `share_layers=False` each has its own.
    """

    def __init__(
        self,
        *,
        size: int,
        layers: int,
        heads: int,
        inner_size: int,
        dropout: float,
        share_layers: bool = True,
    ) -> None:
        super().__init__()
        self.depth = layers
        self.layers = nn.ModuleList(
            FastformerLayer(size=size, heads=heads, inner_size=inner_size, dropout=dropout)
            for _ in range(1 if share_layers else layers)
        )
        self.norm = nn.LayerNorm(size)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """Each position meets a summary of what is present (Wu et al., arXiv 2108.09084).

        Args:
            values: `[N, L, size]`.
            mask: `[N, L]`, True where there is something.

        Returns:
            `[N, L, size]`; zeros under the mask.
        """
        values = zero_masked(values, mask)
        for number in range(self.depth):
            values = self.layers[number % len(self.layers)](values, mask)
        return zero_masked(self.norm(values), mask)


class FastformerLayer(nn.Module):
    """Fastformer attention and a feed-forward network, each with dropout and a residual."""

    def __init__(self, *, size: int, heads: int, inner_size: int, dropout: float) -> None:
        super().__init__()
        self.attend = FastformerAttention(size=size, heads=heads)
        self.feed_forward = MLP(
            size=size, units=[inner_size], output_size=size, activation="gelu", dropout=dropout
        )
        self.attend_norm = nn.LayerNorm(size)
        self.feed_norm = nn.LayerNorm(size)
        self.dropout = Dropout(dropout)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """`y = x + A(LN(x))`, `y + F(LN(y))`: `[N, L, size]` and `[N, L]` to `[N, L, size]`."""
        values = values + self.dropout(self.attend(self.attend_norm(values), mask))
        return values + self.dropout(self.feed_forward(self.feed_norm(values)))


class FastformerAttention(nn.Module):
    """Additive attention makes a global query, then a global key, that meet every position.

    Queries and values are one and the same, as in the paper's own experiments.
    """

    def __init__(self, *, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = dense(size, size)  # of the values too
        self.key = dense(size, size)
        self.query_weight = nn.Parameter(torch.empty(heads, size // heads))
        self.key_weight = nn.Parameter(torch.empty(heads, size // heads))
        nn.init.xavier_uniform_(self.query_weight)
        nn.init.xavier_uniform_(self.key_weight)
        self.transform = dense(size, size)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """Per head, of width d (Wu et al.):

        `q = sum_i a_i q_i` with `a = softmax(w_q q_i / sqrt(d))`; `p_i = q * k_i`;
        `k = sum_i b_i p_i` with `b = softmax(w_k p_i / sqrt(d))`; `u_i = k * v_i`.
        With the heads joined, `R u_i + q_i`.

        `[N, L, size]` and `mask [N, L]` to `[N, L, size]`.
        """
        query = self.query(values).unflatten(-1, (self.heads, -1))
        key = self.key(values).unflatten(-1, (self.heads, -1))
        query_all = self._summary(query, self.query_weight, mask)
        key_all = self._summary(query_all * key, self.key_weight, mask)
        return self.transform((key_all * query).flatten(-2)) + query.flatten(-2)

    def _summary(self, values: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        """Additive attention per head: `[N, L, heads, d]` to `[N, 1, heads, d]`."""
        scores = (values * weight).sum(dim=-1) / math.sqrt(values.shape[-1])  # [N, L, heads]
        shares = masked_softmax(scores.transpose(1, 2), mask[:, None, :]).to(values.dtype)
        return torch.einsum("nhl,nlhd->nhd", shares, values)[:, None]
