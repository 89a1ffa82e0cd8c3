"""Transformer layers over a sequence, of content and behavior operators alike."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from legoray.model.layers import (
    MLP,
    Activation,
    Dropout,
    dense,
    embedding,
    joined_heads,
    zero_masked,
)

POSITION_SCALE = 0.1  # small beside the words' or items' own vectors


class TransformerLayers(nn.Module):
    """A stack of encoder layers; `causal` ones see no later position.

    With `pre_norm` each part of a layer reads normalized values and the stack ends with a
    normalization (SASRec); without, what each part gives is normalized (BST, the first
    Transformer).
    """

    def __init__(
        self,
        *,
        size: int,
        layers: int,
        heads: int,
        inner_size: int,
        dropout: float,
        causal: bool = False,
        pre_norm: bool = True,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.causal = causal
        self.layers = nn.ModuleList(
            TransformerLayer(
                size=size,
                heads=heads,
                inner_size=inner_size,
                dropout=dropout,
                pre_norm=pre_norm,
                activation=activation,
            )
            for _ in range(layers)
        )
        self.norm: nn.Module = nn.LayerNorm(size) if pre_norm else nn.Identity()

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """Position i attends to what is present, of a causal stack to the present ones up to i.

        Args:
            values: `[N, L, size]`.
            mask: `[N, L]`, True where there is something.

        Returns:
            `[N, L, size]`; zeros under the mask.
        """
        values = zero_masked(values, mask)
        allowed = attention_mask(mask, causal=self.causal)
        for layer in self.layers:
            values = layer(values, allowed)
        return zero_masked(self.norm(values), mask)


class TransformerLayer(nn.Module):
    """Self-attention and a feed-forward network, each with dropout around it and a residual."""

    def __init__(
        self,
        *,
        size: int,
        heads: int,
        inner_size: int,
        dropout: float,
        pre_norm: bool,
        activation: Activation,
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.attend = ProjectedAttention(size=size, heads=heads, dropout=dropout)
        self.feed_forward = MLP(
            size=size,
            units=[inner_size],
            output_size=size,
            activation=activation,
            dropout=dropout,
        )
        self.attend_norm = nn.LayerNorm(size)
        self.feed_norm = nn.LayerNorm(size)
        self.dropout = Dropout(dropout)

    def forward(self, values: Tensor, allowed: Tensor) -> Tensor:
        """`y = x + A(LN(x))`, `y + F(LN(y))` (SASRec, section III-C), or `y = LN(x + A(x))`,
        `LN(y + F(y))` (Vaswani et al., section 3.1; BST). Dropout follows A and F.

        `[N, L, size]` and `allowed`, which broadcasts to `[N, heads, L, L]`, to `[N, L, size]`.
        """
        if self.pre_norm:
            values = values + self.dropout(self.attend(self.attend_norm(values), allowed))
            return values + self.dropout(self.feed_forward(self.feed_norm(values)))
        values = self.attend_norm(values + self.dropout(self.attend(values, allowed)))
        return self.feed_norm(values + self.dropout(self.feed_forward(values)))


class ProjectedAttention(nn.Module):
    """Multi-head self-attention whose joined heads pass through a linear layer."""

    def __init__(self, *, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = dense(size, size)
        # a key bias adds the same to all scores of a query, so it could never learn anything
        self.key = dense(size, size, bias=False)
        self.value = dense(size, size)
        self.output = dense(size, size)

    def forward(self, values: Tensor, allowed: Tensor) -> Tensor:
        """`concat_h(softmax(Q K^T / sqrt(d)) V) W_o` (Vaswani et al., section 3.2).

        `[N, L, size]` and `allowed`, which broadcasts to `[N, heads, L, L]`, to `[N, L, size]`.
        """
        read = (self.query(values), self.key(values), self.value(values))
        dropout = self.dropout if self.training else 0.0
        return self.output(joined_heads(*read, self.heads, allowed, dropout))


def attention_mask(mask: Tensor, *, causal: bool) -> Tensor:
    """Which positions each one may attend to; never none, so that no softmax gives NaN.

    Args:
        mask: `[N, L]`, True where there is something.
        causal: whether positions see none after themselves.

    Returns:
        Bool, `[N, 1, 1, L]`, or of a causal stack `[N, 1, L, L]`.
    """
    if not causal:
        # a wholly masked row attends everywhere: all its values are zeros, and its result too
        return (mask | ~mask.any(dim=-1, keepdim=True))[:, None, None, :]
    length = mask.shape[-1]
    past = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=mask.device)
    return ((mask[:, None, :] & past) | itself)[:, None]


class LearnedPositions(nn.Module):
    """A learned vector for each position; only what is present is counted."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        self.table = embedding(count + 1, size, POSITION_SCALE)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """`x_i + p_n` where i is the n-th of what is present; at most `count` may be.

        Args:
            values: `[N, L, size]`.
            mask: `[N, L]`, True where there is something.

        Returns:
            `[N, L, size]`; zeros under the mask.
        """
        positions = mask.cumsum(dim=-1).masked_fill(~mask, 0)
        return zero_masked(values + self.table(positions), mask)
