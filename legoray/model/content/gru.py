"""`gru`: the text read word by word by a recurrent network."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from legoray.config import Positive
from legoray.data.recipes import TokenRecipe, Tokens
from legoray.model.base import ContentOperator, PartConfig, Shape
from legoray.model.content.text import TextConfig, by_length, token_recipe, word_embedding
from legoray.model.layers import AdditiveAttention, Dropout, last_of


class GruConfig(TextConfig):
    """Settings of `gru`."""

    pool: Literal["last", "additive"] = "last"  # the state after the last word, or all of them
    attention_size: Positive = 64  # of `pool: additive`


class GruOperator(ContentOperator):
    """Token embeddings, dropout, a gated recurrent unit; its last state, or additive attention."""

    Config: ClassVar[type[PartConfig]] = GruConfig
    paper: ClassVar[str] = "Cho et al.: RNN encoder-decoder (EMNLP 2014, arXiv 1406.1078)"

    def __init__(self, config: GruConfig, shape: Shape) -> None:
        super().__init__()
        size = shape.hidden_size
        self.embed = word_embedding(config, shape)
        self.gru = nn.GRU(config.embedding_size, size, batch_first=True)
        nn.init.xavier_uniform_(self.gru.get_parameter("weight_ih_l0"))
        self.dropout = Dropout(config.dropout)
        additive = config.pool == "additive"
        self.pool = AdditiveAttention(size, config.attention_size) if additive else None

    @classmethod
    def recipe(cls, config: GruConfig, text: tuple[str, ...]) -> TokenRecipe:
        """Tokens of the configured attributes, read as one sequence."""
        return token_recipe(config, text)

    def start_from(self, features: Any) -> None:
        """The words' first embeddings, as the settings ask."""
        self.embed.start_from(features)

    def forward(self, inputs: Tokens) -> Tensor:
        """`h_t = GRU(e_t, h_{t-1})`; `h_n`, n the text's true length, or attention over the h_t.

        N items' tokens to `[N, D]` (Cho et al., with the reset gate inside as torch has it);
        zeros without any word.
        """
        return by_length(self.embed, self._encode, inputs)

    def _encode(self, embedded: Tensor, inputs: Tokens) -> Tensor:
        # a recurrent network does not look ahead: the padding after the last word cannot matter
        states, _ = self.gru(embedded)
        states = self.dropout(states)
        if self.pool is not None:
            return self.pool(states, inputs.mask)
        column = torch.arange(1, inputs.mask.shape[1] + 1, device=inputs.mask.device)
        length = (inputs.mask * column).amax(dim=1)
        return last_of(states, length)
