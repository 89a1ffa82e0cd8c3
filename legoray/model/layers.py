"""Small layers that several parts are made of. None of them lets padding or another row leak in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Linear = TypeVar("Linear", bound=nn.Linear)
Activation = Literal["relu", "gelu", "tanh", "sigmoid", "prelu"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "prelu": nn.PReLU,
}


def zero_masked(values: Tensor, mask: Tensor) -> Tensor:
    """`values [..., L, D]` with zeros where `mask [..., L]` is False, even over NaN."""
    return values.masked_fill(~mask.unsqueeze(-1), 0.0)


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension where `mask` is True; 0 elsewhere.

    Masked scores count as minus infinity. A row with nothing to attend to gives zeros, and a zero
    gradient, instead of NaN.
    """
    empty = ~mask.any(dim=-1, keepdim=True)
    filled = scores.masked_fill(~mask, float("-inf")).masked_fill(empty, 0.0)
    return torch.softmax(filled, dim=-1).masked_fill(~mask, 0.0)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values [..., L, D]` over the L where `mask [..., L]`; zeros where there is none."""
    count = mask.sum(dim=-1, keepdim=True).clamp(min=1)
    return zero_masked(values, mask).sum(dim=-2) / count


def masked_max(values: Tensor, mask: Tensor) -> Tensor:
    """Maximum of `values [..., L, D]` over L where `mask [..., L]`; zeros where there is none."""
    highest = values.masked_fill(~mask.unsqueeze(-1), float("-inf")).amax(dim=-2)
    return highest.masked_fill(~mask.any(dim=-1, keepdim=True), 0.0)


def activation_layer(name: Activation) -> nn.Module:
    """A new layer of this activation function."""
    return _ACTIVATIONS[name]()


def heads_problems(heads: int, size: int) -> list[str]:
    """What is wrong with splitting `size` among `heads`, with the nearest numbers that fit."""
    if size % heads == 0:
        return []
    fitting = [n for n in range(1, size + 1) if size % n == 0]
    close = sorted(sorted(fitting, key=lambda n: abs(n - heads))[:2])
    return [f"heads {heads} do not divide hidden_size {size}; such as {close} would"]


_DRAWS = 2**16  # values of 16 random bits
WORD_SCALE = 0.4  # about the spread of published word vectors; smaller ones learn much slower


def dense(size: int, output_size: int, *, bias: bool = True) -> nn.Linear:
    """A linear layer with Glorot weights and a zero bias: it keeps the scale of what it reads.

    torch's own default makes the values about .6 times smaller; through attention upon attention
    that leaves scores so close to zero that training takes epochs to start.
    """
    return _glorot(nn.Linear(size, output_size, bias=bias))


def scoring(size: int, *, bias: bool = True) -> Scoring:
    """As `dense`, to a single number that is a score."""
    return _glorot(Scoring(size, 1, bias=bias))


def _glorot(layer: Linear) -> Linear:
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Scoring(nn.Linear):
    """A linear layer that computes in its weights' precision, whatever autocast says.

    Of a score in bfloat16 three digits are left: candidates that differ by less would be tied.
    """

    def forward(self, values: Tensor) -> Tensor:
        """`W x + b`: `[..., size]` to `[..., output_size]`."""
        with torch.autocast(values.device.type, enabled=False):
            return F.linear(values.to(self.weight.dtype), self.weight, self.bias)


def inner_products(vectors: Tensor, others: Tensor) -> Tensor:
    """`[..., K, D]` and `[..., M, D]` to `[..., K, M]`, in float32 at least, as `Scoring` is."""
    exact = torch.promote_types(vectors.dtype, torch.float32)
    with torch.autocast(vectors.device.type, enabled=False):
        return vectors.to(exact) @ others.to(exact).transpose(-1, -2)


def pair_layer(
    items: Tensor, candidates: Tensor, weights: tuple[Tensor, Tensor, Tensor], bias: Tensor
) -> Tensor:
    """`V h + W c + P (h * c) + b` of all pairs: `h [B, H, D]`, `c [B, K, D]` to `[B, K, H, U]`.

    Only the products' part is computed per pair, without writing the products down: P is scaled by
    the items or by the candidates, whichever are fewer.

    Args:
        items: of a history.
        candidates: each meets each item.
        weights: V, W and P, each `[U, D]`.
        bias: `[U]`.
    """
    of_item, of_candidate, of_product = weights
    if candidates.shape[1] <= items.shape[1]:
        scaled = (candidates.unsqueeze(2) * of_product).flatten(1, 2)  # [B, K U, D]
        products = (items @ scaled.transpose(1, 2)).unflatten(2, (-1, len(of_product)))
        products = products.transpose(1, 2)
    else:
        scaled = (items.unsqueeze(2) * of_product).flatten(1, 2)  # [B, H U, D]
        products = (candidates @ scaled.transpose(1, 2)).unflatten(2, (-1, len(of_product)))
    mine = F.linear(items, of_item)  # [B, H, U]
    theirs = F.linear(candidates, of_candidate, bias)  # [B, K, U]
    return mine.unsqueeze(1) + theirs.unsqueeze(2) + products


def convolution(size: int, filters: int, width: int, padding: int = 0) -> nn.Conv1d:
    """A convolution over a sequence with Glorot weights; it reads `padding` zeros at both ends."""
    layer = nn.Conv1d(size, filters, width, padding=padding)
    nn.init.xavier_uniform_(layer.weight)
    return layer


def last_of(states: Tensor, length: Tensor) -> Tensor:
    """The states `[N, L, D]` after the first `length [N]` steps: `[N, D]`, zeros after none."""
    last = (length - 1).clamp(min=0)[:, None, None].expand(-1, 1, states.shape[-1])
    return states.gather(1, last).squeeze(1).masked_fill((length == 0)[:, None], 0.0)


class Dropout(nn.Module):
    """Sets each value to 0 with some probability in training, and scales the others up."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, values: Tensor) -> Tensor:
        """`m x / (1 - p)`, `m ~ Bernoulli(1 - p)` for each element.

        On a CPU m comes from 16 random bits, four elements from one random number, which takes a
        fourth of the time that torch's own takes; p is then a multiple of 2^-16.
        """
        if not self.training or not self.probability:
            return values
        if values.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(values, self.probability)
        dropped = round(self.probability * _DRAWS)
        count = values.numel()
        bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
        kept = bits.view(torch.int16)[:count].view(values.shape) >= dropped - _DRAWS // 2
        return values * kept.to(values.dtype).mul_(_DRAWS / (_DRAWS - dropped))

    def extra_repr(self) -> str:
        return f"p={self.probability}"


class AdditiveAttention(nn.Module):
    """Pooling by a learned query (Bahdanau-style), as NAML and NRMS use it."""

    def __init__(self, size: int, attention_size: int) -> None:
        super().__init__()
        self.project = dense(size, attention_size)
        self.query = dense(attention_size, 1, bias=False)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """`sum_i a_i v_i` with `a = softmax(q^T tanh(W v_i + b))` (NAML, its attention).

        `tanh(x) = 2 s(2x) - 1` with s the sigmoid, which processors compute six times as fast, and
        a softmax does not see the constant: `a = softmax(2 q^T s(2 (W v_i + b)))`.

        Args:
            values: `[..., L, D]`.
            mask: `[..., L]`, True where there is something.

        Returns:
            `[..., D]`; zeros where a row is wholly masked.
        """
        values = zero_masked(values, mask)
        doubled = F.linear(values, 2 * self.project.weight, 2 * self.project.bias)
        scores = F.linear(torch.sigmoid(doubled), 2 * self.query.weight).squeeze(-1)
        weights = masked_softmax(scores, mask).to(values.dtype)
        return (weights.unsqueeze(-2) @ values).squeeze(-2)


class SelfAttention(nn.Module):
    """Multi-head self-attention over a sequence; the heads' outputs are joined as they are."""

    def __init__(self, *, size: int, output_size: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = dense(size, output_size)
        # a key bias adds the same to all scores of a query, so it could never learn anything
        self.key = dense(size, output_size, bias=False)
        self.value = dense(size, output_size)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """Per head `softmax(Q K^T / sqrt(d)) V`, heads concatenated (NRMS, its self-attention).

        Args:
            values: `[N, L, size]`.
            mask: `[N, L]`, True where there is something.

        Returns:
            `[N, L, output_size]`; rows under the mask hold something finite.
        """
        values = zero_masked(values, mask)
        # a wholly masked row attends everywhere (its result is never read) lest softmax give NaN
        allowed = (mask | ~mask.any(dim=-1, keepdim=True))[:, None, None, :]
        read = (self.query(values), self.key(values), self.value(values))
        return joined_heads(*read, self.heads, allowed, self.dropout if self.training else 0.0)


def joined_heads(
    query: Tensor, key: Tensor, value: Tensor, heads: int, allowed: Tensor, dropout: float
) -> Tensor:
    """Per head `softmax(Q K^T / sqrt(d)) V`, the heads side by side again.

    Each `[N, L, size]`, and `allowed`, which broadcasts to `[N, heads, L, L]`, to `[N, L, size]`.
    """
    query, key, value = (
        part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, key, value)
    )
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, dropout_p=dropout)
    return mixed.transpose(1, 2).flatten(-2)


class MLP(nn.Module):
    """Linear, activation, dropout for each of `units`; then, if asked for, a last linear layer."""

    def __init__(
        self,
        *,
        size: int,
        units: Sequence[int],
        output_size: int | None = None,
        activation: Activation = "relu",
        dropout: float = 0.0,
        output_bias: bool = True,
        score: bool = False,
    ) -> None:
        """Layers from `size` to each of `units`; `score`: to one number more, which is a score."""
        super().__init__()
        layers: list[nn.Module] = []
        for width in units:
            layers += [dense(size, width), activation_layer(activation), Dropout(dropout)]
            size = width
        if output_size is not None:
            layers.append(dense(size, output_size, bias=output_bias))
            size = output_size
        elif score:
            layers.append(scoring(size, bias=output_bias))
            size = 1
        self.layers = nn.Sequential(*layers)
        self.output_size = size

    def forward(self, values: Tensor) -> Tensor:
        """`[..., size]` to `[..., output_size]`."""
        return self.layers(values)

    def of_pairs(self, values: Tensor, shared: int) -> Tensor:
        """`forward(values)`, where the first `shared` numbers are the same for all K of a row.

        The first layer reads these once for each row: `[B, K, size]` to `[B, K, output_size]`.
        """
        first, *rest = self.layers
        if values.shape[1] == 1 or not isinstance(first, nn.Linear):
            return self.layers(values)
        of_shared, of_others = first.weight.split([shared, first.in_features - shared], dim=1)
        hidden = F.linear(values[..., shared:], of_others, first.bias)
        hidden = hidden + F.linear(values[:, :1, :shared], of_shared)
        for layer in rest:
            hidden = layer(hidden)
        return hidden


class RowTable(nn.Embedding):
    """An embedding table that may grow with the data, read through `forward` alone.

    Who keeps rows up to date only when they are read says so in `before`, and the gradient is
    sparse then.
    """

    before: Callable[[Tensor], None] | None = None

    def __init__(self, rows: int, size: int, scale: float) -> None:
        """Normal values with deviation `scale`; row 0 is padding, zeros and never trained."""
        super().__init__(rows, size, padding_idx=0)
        with torch.no_grad():
            self.weight.normal_(std=scale)
            self.weight[0].zero_()

    def forward(self, rows: Tensor) -> Tensor:
        """The rows of these numbers: any shape to `[..., size]`."""
        if self.before is None:
            return super().forward(rows)
        self.before(rows)
        return F.embedding(rows, self.weight, self.padding_idx, sparse=True)


def embedding(rows: int, size: int, scale: float) -> nn.Embedding:
    """An embedding table of normal values with deviation `scale`; row 0 is padding, never trained.

    Padding is zeros.
    """
    table = nn.Embedding(rows, size, padding_idx=0)
    with torch.no_grad():
        table.weight.normal_(std=scale)
        table.weight[0].zero_()
    return table
