"""`cnn`: convolutions over the newest items, as over an image (Caser)."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from legoray.config import Positive, Share
from legoray.model.base import BehaviorOperator, History, PartConfig, Shape, UserKind, UserState
from legoray.model.behavior.gru import compact
from legoray.model.layers import Dropout, convolution, dense, zero_masked


class CnnConfig(PartConfig):
    """Settings of `cnn`."""

    length: Positive = Field(5, description="how many of the newest items are read")
    heights: list[Positive] | None = Field(
        None, min_length=1, description="items under a horizontal filter; 1 to length by default"
    )
    horizontal: Positive = Field(16, description="filters of each height")
    vertical: Positive = Field(4, description="filters of one dimension over all items")
    dropout: Share = 0.1


class CnnOperator(BehaviorOperator):
    """Horizontal and vertical convolutions over the newest items, dropout, a dense layer."""

    Config: ClassVar[type[PartConfig]] = CnnConfig
    produces: ClassVar[UserKind] = "vector"
    paper: ClassVar[str] = "Tang, Wang: Caser (WSDM 2018, arXiv 1809.07426)"

    def __init__(self, config: CnnConfig, shape: Shape) -> None:
        super().__init__()
        size = shape.hidden_size
        heights = config.heights or list(range(1, config.length + 1))
        self.length = config.length
        self.horizontal = nn.ModuleList(
            convolution(size, config.horizontal, height) for height in heights
        )
        self.vertical = dense(config.length, config.vertical, bias=False)
        self.dropout = Dropout(config.dropout)
        self.project = dense(config.horizontal * len(heights) + config.vertical * size, size)

    @classmethod
    def problems(cls, config: CnnConfig, hidden_size: int) -> list[str]:
        """A filter is no higher than what it reads."""
        high = [h for h in config.heights or [] if h > config.length]
        return [f"heights {high} are more than length {config.length}"] if high else []

    def forward(self, history: History, candidates: Tensor | None = None) -> UserState:
        """`u = ReLU(W [o; v] + b)` of horizontal and vertical filters over an image E.

        `o_k = max_t ReLU(F_k E_t:t+h + b_k)` and `v_k = sum_l f_kl E_l`, where E is the newest
        `length` items, with zeros before a shorter history (Caser, without the user's
        own embedding). `[B, H, D]` to `[B, D]`; zeros without a history.
        """
        image = self.newest(history).transpose(1, 2)  # [B, D, length]
        local = [torch.relu(layer(image)).amax(dim=-1) for layer in self.horizontal]
        weighted = self.vertical(image).transpose(1, 2).flatten(1)  # filter by filter
        joined = self.dropout(torch.cat([*local, weighted], dim=-1))
        user = torch.relu(self.project(joined))
        return UserState("vector", user.masked_fill(~history.mask.any(dim=1)[:, None], 0.0))

    def newest(self, history: History) -> Tensor:
        """The last items that are there, the newest one last, after zeros: `[B, length, D]`."""
        items, count = compact(zero_masked(history.vectors, history.mask), history.mask)
        offset = torch.arange(-self.length, 0, device=count.device)
        index = count[:, None] + offset
        picked = items.gather(1, index.clamp(min=0)[:, :, None].expand(-1, -1, items.shape[-1]))
        return zero_masked(picked, index >= 0)
