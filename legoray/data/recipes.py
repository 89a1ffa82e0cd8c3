"""Recipes: what a content operator wants to read of an item, said without reading it.

A recipe is small, hashable and comparable: equal recipes share one copy of the tokens or hidden
states. `legoray.model.features.open_features` turns a recipe and prepared tables into arrays.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    model catalogue, whose tokenizer is used without special tokens. `vocabulary` names the
    attributes whose words make that vocabulary, where they are others than those that are read.
    """

    tokenizer: str
    attributes: tuple[str, ...]
    length: int  # tokens per attribute at most
    min_count: int = 1  # rarer words are one and the same token; of `words` only
    vocabulary: tuple[str, ...] = ()  # the attributes themselves where there are none


@dataclass(frozen=True)
class StateRecipe:
    """Hidden states of a language model after its first `split` layers, for a template's text."""

    model: str  # catalogue name, folder or hub id
    split: int  # from 0 (embeddings) to the number of layers
    template: str  # such as "{title} ({category})": attribute names in braces
    length: int  # tokens of the whole text at most, special tokens included
    precision: str  # float32 | bfloat16 | int8 | nf4: how the lower layers are computed
    store_dtype: str = "bfloat16"


@dataclass(frozen=True)
class VectorSource:
    """Where one vector per item comes from: a file keyed by item, or a language model.

    Exactly one of `file` and `model` is given. `file` is absolute: `.npy` (row i is item i + 1),
    Parquet (`key`, `vector`) or safetensors (`vectors [N, W]`, with the keys beside them). With
    `model`, the vector is the pooled hidden state after the last layer for a template's text.
    """

    file: str = ""
    model: str = ""
    template: str = ""
    length: int = 64  # tokens, special ones included
    pooling: str = "mean"  # mean | cls | last
    precision: str = "float32"


@dataclass(frozen=True)
class VectorRecipe:
    """One stored vector per item."""

    source: VectorSource


@dataclass(frozen=True)
class CodeRecipe:
    """A few codes per item, from coarse to fine: from a file, or by residual k-means of vectors.

    Exactly one of `file` (absolute; Parquet with `key` and `codes`) and `vectors` is given.
    """

    levels: int
    codes: int  # per level
    file: str = ""
    vectors: VectorSource | None = None
    seed: int = 0


@dataclass(frozen=True)
class LayersRecipe:
    """The pooled hidden states of a language model after its embeddings and after each layer."""

    model: str
    template: str
    length: int
    pooling: str = "mean"  # mean | cls | last
    precision: str = "float32"
    store_dtype: str = "bfloat16"


@dataclass(frozen=True)
class CategoryRecipe:
    """Values of categorical attributes as numbers, 0 for an empty one."""

    attributes: tuple[str, ...]


@dataclass(frozen=True)
class JoinedRecipe:
    """Several recipes, for an operator that is made of several others."""

    parts: tuple[Recipe, ...]


Recipe = (
    IdRecipe
    | TokenRecipe
    | StateRecipe
    | VectorRecipe
    | CodeRecipe
    | LayersRecipe
    | CategoryRecipe
    | JoinedRecipe
)


@dataclass(frozen=True)
class InputSizes:
    """The sizes of what a recipe reads; which of them mean something depends on the recipe."""

    vocabulary: int = 0  # tokens that may be met, padding 0 included
    attributes: int = 1  # attributes that the tokens belong to
    width: int = 0  # of a stored vector or hidden state
    layers: int = 0  # stored hidden states per item, the embeddings' included
    values: tuple[int, ...] = ()  # of each category or level of codes, 0 for none included
    parts: tuple[InputSizes, ...] = ()  # of the parts of a `JoinedRecipe`


NOTHING = InputSizes()


def leaves(recipe: Recipe) -> Iterator[Recipe]:
    """The recipes that one is made of; itself where it is made of none."""
    if isinstance(recipe, JoinedRecipe):
        for part in recipe.parts:
            yield from leaves(part)
    else:
        yield recipe


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


@dataclass(frozen=True)
class Joined:
    """The inputs of N items for each of a `JoinedRecipe`'s parts."""

    parts: tuple[ItemInput, ...]

    def to(self, device: torch.device | str) -> Joined:
        return Joined(tuple(part.to(device) for part in self.parts))


ItemInput = Tensor | Tokens | States | Joined
