"""Recipes: what a content operator wants to read of an item, said without reading it.

A recipe is small, hashable and comparable: equal recipes share one copy of the tokens or hidden
states. `legoray.model.features.open_features` turns a recipe and prepared tables into arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class IdRecipe:
    """The item's number alone."""


@dataclass(frozen=True)
class TokenRecipe:
    """Token ids of some attributes.

    `tokenizer` is `words` (a vocabulary made of the data set's own words) or a name of the language
    model catalogue, whose tokenizer is used without special tokens.
    """

    tokenizer: str
    attributes: tuple[str, ...]
    length: int  # tokens per attribute at most
    min_count: int = 1  # rarer words are one and the same token; of `words` only


@dataclass(frozen=True)
class StateRecipe:
    """Hidden states of a language model after its first `split` layers, for a template's text."""

    model: str  # catalogue name, folder or hub id
    split: int  # from 0 (embeddings) to the number of layers
    template: str  # such as "{title} ({category})": attribute names in braces
    length: int  # tokens of the whole text at most, special tokens included
    precision: str  # float32 | bfloat16 | int8: how the lower layers are computed
    store_dtype: str = "bfloat16"


Recipe = IdRecipe | TokenRecipe | StateRecipe


@dataclass(frozen=True)
class Tokens:
    """Token ids of N items, their attributes one after another.

    `ids [N, L]` int64 with 0 for padding, `mask [N, L]` bool, `attribute [N, L]` int64: which of
    the recipe's attributes a token belongs to (0 under padding).
    """

    ids: Tensor
    mask: Tensor
    attribute: Tensor

    def to(self, device: torch.device | str) -> Tokens:
        return Tokens(self.ids.to(device), self.mask.to(device), self.attribute.to(device))


@dataclass(frozen=True)
class States:
    """Hidden states `[N, L, H]` of N items, padded on the right, and their `mask [N, L]`."""

    hidden: Tensor
    mask: Tensor

    def to(self, device: torch.device | str) -> States:
        return States(self.hidden.to(device), self.mask.to(device))


ItemInput = Tensor | Tokens | States
