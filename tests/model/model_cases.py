"""Every registered part with small settings, and the inputs that the contract suites feed them.

A new part needs a row here: the suites and the sweep over all compositions take it from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from legoray.data.recipes import Joined, States, Tokens
from legoray.model.base import Batch, History, Shape, UserState

HIDDEN = 8
TINY = "<tiny>"  # stands for the folder of the random language model; below it, stored/ has files

ITEMS = [
    {"title": "Rain floods the harbour town", "abstract": "Boats drift through the streets."},
    {"title": "Striker scores twice", "abstract": "A late goal decides the cup final tonight."},
    {"title": "", "abstract": ""},  # an item without any text
    {"title": "Markets", "abstract": ""},
    {"title": "Choir sings again after the long winter break in town", "abstract": "Songs."},
    {"title": "", "abstract": "The cup stays in town."},
    {"title": "Harbour boats score a late goal", "abstract": "Rain again."},
    {"title": "Winter markets: the final streets", "abstract": "Songs drift through town tonight"},
    {"title": "Goal!", "abstract": "Again and again and again the striker scores a late goal."},
]
N = len(ITEMS)
USERS = torch.tensor([2, 1, 4, 0])  # the last one is not known

CONTENT: dict[str, list[dict[str, Any]]] = {
    "id": [{}, {"embedding_size": 6, "dropout": 0.2}],
    "pooling": [
        {"min_count": 1, "embedding_size": 6},
        {"min_count": 1, "pool": "max", "combine": "concat"},
        {"min_count": 1, "combine": "sum", "length": 4},
    ],
    "cnn": [{"min_count": 1}, {"min_count": 2, "filters": 6, "kernel_size": 4}],
    "attention": [{"min_count": 1, "heads": 2, "embedding_size": 6}],
    "weighted-pooling": [
        {"min_count": 1, "embedding_size": 6},
        {"min_count": 1, "weights": "softplus", "combine": "concat"},
        {"min_count": 1, "combine": "sum", "length": 4},
    ],
    "cnn-concat": [
        {"min_count": 1, "embedding_size": 6, "attention_size": 6},
        {"min_count": 1, "filters": 6, "kernel_size": 4, "length": 4},
    ],
    "multi-kernel-cnn": [
        {"min_count": 1, "embedding_size": 6, "kernel_sizes": [2, 3], "filters": 6},
        {"min_count": 1, "kernel_sizes": [4], "filters": 6, "length": 4},
    ],
    "additive": [
        {"min_count": 1, "embedding_size": 6, "attention_size": 6},
        {"min_count": 1, "embedding_size": 8},
    ],
    "gru": [
        {"min_count": 1, "embedding_size": 6},
        {"min_count": 1, "pool": "additive", "attention_size": 6},
    ],
    "transformer": [
        {"min_count": 1, "embedding_size": 6, "layers": 1, "heads": 2, "inner_size": 12},
        {"min_count": 1, "embedding_size": 8, "heads": 4, "pool": "mean", "length": 4},
    ],
    "fastformer": [
        {"min_count": 1, "embedding_size": 6, "heads": 2, "inner_size": 12},
        {"min_count": 1, "embedding_size": 8, "heads": 4, "share_layers": False, "length": 4},
    ],
    "vector": [
        {"model": TINY, "length": 8},
        {"file": f"{TINY}/stored/vectors.npy", "units": [6], "dropout": 0.2},
        {"file": f"{TINY}/stored/vectors.parquet", "use": "tuned"},
        {"model": TINY, "length": 16, "use": "tuned", "pooling": "last", "template": "{title}"},
    ],
    "views": [
        {"encoder": {"name": "cnn", "min_count": 1, "embedding_size": 6}, "attention_size": 6},
        {
            "encoder": {"name": "pooling", "min_count": 1},
            "attributes": ["abstract"],
            "categories": ["title"],
            "category_size": 6,
        },
        {"encoder": {"name": "llm", "model": TINY, "split": 1, "length": 16}},
    ],
    "iisan": [
        {"model": TINY, "length": 8, "adapter_size": 4},
        {"model": TINY, "layers": "even", "pooling": "cls", "store": "float32"},
    ],
    "semantic-id": [
        {"model": TINY, "length": 8, "levels": 2, "codes": 4},
        {"file": f"{TINY}/stored/codes.parquet", "levels": 2, "codes": 3, "dropout": 0.2},
        {"vectors": f"{TINY}/stored/vectors.safetensors", "levels": 3, "codes": 4},
    ],
    "hybrid": [
        {"text": {"name": "cnn", "min_count": 1, "embedding_size": 6}},
        {"text": {"name": "llm", "model": TINY, "split": 1, "length": 16}, "dropout": 0.2},
        {"text": {"name": "views", "encoder": {"name": "attention", "heads": 2}}},
    ],
    "llm": [
        {"model": TINY, "split": 1, "length": 16, "lora": {"rank": 2, "alpha": 4}},
        {"model": TINY, "split": -2, "length": 16, "pooling": "last", "template": "{title}"},
        {"model": TINY, "split": 2, "length": 16, "pooling": "attention", "lora": None},
        {"model": TINY, "split": 1, "length": 16, "pooling": "cls", "tune": "full"},
    ],
}
BEHAVIOR: dict[str, list[dict[str, Any]]] = {
    "none": [{}],
    "pooling": [{}, {"pool": "max"}],
    "additive": [{"attention_size": 6}],
    "attention": [{"heads": 2}],
    "gru": [{}],
    "lstur": [
        {"mask_rate": 0.0},
        {"how": "concat", "mask_rate": 0.0, "dropout": 0.1},
        {"mask_rate": 0.5},
    ],
    "transformer": [{"heads": 2, "inner_size": 12}, {"heads": 4, "layers": 2, "pool": "additive"}],
    "causal-transformer": [{"layers": 1}, {"layers": 2, "heads": 2, "inner_size": 12}],
    "fastformer": [{"layers": 1, "heads": 2, "inner_size": 12}, {"heads": 4}],
    "poly-attention": [
        {"interests": 3, "code_size": 6},
        {"interests": 1, "disagreement": 0.0, "dropout": 0.1},
    ],
    "candidate-attention": [{"units": [12]}, {"units": [12, 6], "activation": "prelu"}],
    "cnn": [
        {"length": 3, "horizontal": 4, "vertical": 2},
        {"length": 12, "heights": [2, 12], "horizontal": 3, "vertical": 1},
    ],
    "personalised": [{"user_size": 6, "query_size": 10}, {"mask_rate": 0.5}],
    "flatten-transformer": [
        {"min_count": 1, "length": 4, "embedding_size": 6, "heads": 2, "inner_size": 12},
        {"min_count": 2, "length": 8, "embedding_size": 8, "heads": 1, "layers": 2},
    ],
    "flatten-fastformer": [
        {"min_count": 1, "length": 4, "embedding_size": 6, "heads": 2, "inner_size": 12},
        {"min_count": 1, "attributes": ["abstract"], "heads": 4},
    ],
}
PREDICTOR: dict[str, list[dict[str, Any]]] = {
    "dot": [{}],
    "dnn": [
        {"units": [16]},
        {"units": [8], "fields": ["item.category", "time.hour"]},
        {"units": [12, 8], "activation": "prelu"},
    ],
    "dcn": [
        {"units": [12], "cross_layers": 2},
        {"units": [12], "cross_layers": 2, "fields": ["item.category"]},
    ],
    "din": [{"units": [12], "attention_units": [12, 6]}, {"softmax": True, "units": [12]}],
    "cosine": [{}, {"temperature": 0.5, "learned": True}],
    "bilinear": [{}],
    "wide-deep": [
        {"units": [12]},
        {"units": [12], "fields": ["item.category", "time.hour"]},
        {"units": [12], "fields": ["item.category", "time.hour"], "buckets": 2},
    ],
    "fm": [{}, {"fields": ["item.category", "time.hour"]}],
    "deepfm": [{"units": [12]}, {"units": [12], "fields": ["item.category", "time.hour"]}],
    "pnn": [
        {"units": [12], "product_units": 12},
        {"units": [12], "product": "outer", "fields": ["item.category", "time.hour"]},
        {"units": [12], "product": "both", "fields": ["item.category"]},
    ],
    "dcnv2": [
        {"units": [12], "cross_layers": 2},
        {
            "units": [12],
            "structure": "parallel",
            "cross": "low-rank",
            "rank": 3,
            "experts": 2,
            "fields": ["item.category", "time.hour"],
        },
        {"units": [12], "cross": "low-rank", "rank": 2, "experts": 1, "nonlinear": False},
    ],
    "xdeepfm": [
        {"units": [12], "maps": [4, 3]},
        {"units": [12], "maps": [3], "fields": ["item.category", "time.hour"]},
    ],
    "autoint": [
        {"layers": 2, "head_size": 6},
        {"layers": 1, "units": [12], "fields": ["item.category", "time.hour"]},
    ],
    "masknet": [
        {"blocks": 2, "block_size": 12, "units": [12]},
        {
            "structure": "serial",
            "blocks": 2,
            "block_size": 12,
            "fields": ["item.category", "time.hour"],
        },
    ],
    "gdcn": [
        {"units": [12], "cross_layers": 2},
        {"units": [12], "structure": "stacked", "fields": ["item.category", "time.hour"]},
    ],
    "finalmlp": [
        {"first_units": [12], "second_units": [12, 8], "gate_units": [12], "heads": 2},
        {"gate_units": [], "fields": ["item.category", "time.hour"]},
    ],
    "miner": [{}, {"how": "max"}, {"how": "mean"}],
}


def filled(settings: Any, tiny: str) -> Any:
    """Settings, nested ones too, with the random language model's folder in its place."""
    if isinstance(settings, dict):
        return {key: filled(value, tiny) for key, value in settings.items()}
    return settings.replace(TINY, tiny) if isinstance(settings, str) else settings


@dataclass(frozen=True)
class Case:
    """One part with one choice of settings."""

    kind: str
    name: str
    settings: dict[str, Any]

    def config(self, tiny: str) -> dict[str, Any]:
        """As it would stand in a YAML; `tiny` is the random language model's folder."""
        return {"name": self.name, **filled(self.settings, tiny)}


def cases(kind: str) -> list[Any]:
    """All rows of one kind, as pytest parameters."""
    import pytest

    table = {"content": CONTENT, "behavior": BEHAVIOR, "predictor": PREDICTOR}[kind]
    return [
        pytest.param(Case(kind, name, settings), id=f"{name}-{n}")
        for name, rows in table.items()
        for n, settings in enumerate(rows)
    ]


def first_case(kind: str, name: str) -> Case:
    """The first row of a part."""
    table = {"content": CONTENT, "behavior": BEHAVIOR, "predictor": PREDICTOR}[kind]
    return Case(kind, name, table[name][0])


def small_shape(**sizes: Any) -> Shape:
    return Shape(
        **{"hidden_size": HIDDEN, "item_count": N + 1, "max_history": 10, "user_count": 5, **sizes}
    )


def perturb(module: nn.Module) -> nn.Module:
    """Move every trained weight a little, so that none sits at a special value such as zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return module


def rows_of(inputs: Any, rows: torch.Tensor) -> Any:
    """Some items of an item input."""
    if isinstance(inputs, Tokens):
        return Tokens(inputs.ids[rows], inputs.mask[rows], inputs.attribute[rows])
    if isinstance(inputs, States):
        return States(inputs.hidden[rows], inputs.mask[rows])
    if isinstance(inputs, Joined):
        return Joined(tuple(rows_of(part, rows) for part in inputs.parts))
    return inputs[rows]


def with_garbage(inputs: Any, extra: int, vocabulary: int) -> Any:
    """The same items, `extra` wider, and with nonsense wherever the mask is False."""
    if isinstance(inputs, Tokens):
        mask = nn.functional.pad(inputs.mask, (0, extra))
        noise = torch.randint(1, vocabulary, mask.shape)
        ids = torch.where(mask, nn.functional.pad(inputs.ids, (0, extra)), noise)
        attribute = torch.where(mask, nn.functional.pad(inputs.attribute, (0, extra)), noise % 2)
        return Tokens(ids, mask, attribute)
    if isinstance(inputs, States):
        mask = nn.functional.pad(inputs.mask, (0, extra))
        hidden = nn.functional.pad(inputs.hidden, (0, 0, 0, extra))
        noise = torch.randn(hidden.shape).to(hidden.dtype) * 50
        return States(torch.where(mask[..., None], hidden, noise), mask)
    if isinstance(inputs, Joined):
        return Joined(tuple(with_garbage(part, extra, vocabulary) for part in inputs.parts))
    return inputs


def assert_gradients(module: nn.Module, loss: torch.Tensor) -> None:
    """Backward reaches every trained weight and no frozen one."""
    loss.backward()
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} got no gradient"
            assert torch.isfinite(parameter.grad).all(), f"{name} got a broken gradient"
            assert parameter.grad.abs().sum() > 0, f"{name} got a zero gradient"
        else:
            assert parameter.grad is None, f"{name} is frozen and got a gradient"


def past(vectors: torch.Tensor, mask: torch.Tensor, inputs: Any = None) -> History:
    """A history that offers everything; `inputs` is what an operator reads of all N items.

    The same position of the same row is the same item, whatever the width; under the mask stands
    any item.
    """
    rows, width = mask.shape
    items = torch.arange(width) + 2 * torch.arange(rows)[:, None]
    return History(vectors, mask, USERS[:rows], inputs, items % N + 1)


def histories() -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors `[4, 5, D]` and a mask: full, short, empty, and with a hole."""
    mask = torch.tensor(
        [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 1, 0, 1, 1]], dtype=torch.bool
    )
    return torch.randn(4, 5, HIDDEN), mask


def user_state(kind: str) -> UserState:
    """Four users of a kind; the last one of a sequence has no history."""
    if kind == "sequence":
        values, mask = histories()
        return UserState("sequence", values, mask)
    if kind == "interests":
        return UserState("interests", torch.randn(4, 3, HIDDEN))
    return UserState("vector", torch.randn(4, HIDDEN))


def batch_of(features: Any, items: torch.Tensor) -> Batch:
    """Four users and three candidates each over `items`; the third user has no history."""
    count = len(items)
    history = torch.tensor([[1, 2, 3, 4], [count, 1, 0, 0], [0, 0, 0, 0], [2, 2, count, 0]])
    candidates = torch.tensor([[1, 3, count], [2, 4, 1], [3, 1, 2], [count, 1, 4]])
    labels = torch.zeros(4, 3)
    labels[:, 0] = 1
    return Batch(features.gather(items), history, candidates, labels)
