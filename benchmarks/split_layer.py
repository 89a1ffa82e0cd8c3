"""One training step of split-layer models against full fine-tuning, as ratios of one run.

    python benchmarks/split_layer.py

A step: 32 users with 30 items of history and 5 candidates each, drawn by popularity, texts of 14
tokens on average and 32 at most; forward, softmax cross-entropy, backward, AdamW.

Measured once (MiniLM, 22.7 M parameters, one thread of a shared two-core machine without AMX, torch
2.13; CPU seconds; 1,120 items, 650 distinct):

    full fine-tuning, every occurrence                39.993           1.0
    full fine-tuning, distinct                        19.360           2.1
    LoRA on all layers (split 0)                       5.978           6.7
    split L-2, LoRA                                    1.864          21.5
    split L-1, LoRA                                    0.942          42.5
    split L-1, LoRA, int8                              0.927          43.1
    split L-1, LoRA, bfloat16                          0.418          95.8
    split L (head alone)                               0.020        2009.9
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from legoray.llm.load import load_base, load_tokenizer
from legoray.llm.store import StateFeatures, states_of_texts
from legoray.model.base import Shape
from legoray.model.content.llm import LlmConfig, LlmOperator

VOCABULARY = (
    "rain floods harbour town boats street striker goal cup final markets winter songs late choir "
    "election vote bank rates rise fall star film music prize court judge storm coast new old"
)
USERS, HISTORY, CANDIDATES, HIDDEN = 32, 30, 5, 64
Encode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Step:
    """The items of one step and the texts they are drawn from."""

    texts: list[dict[str, str]]
    occurrences: Tensor  # [USERS * (HISTORY + CANDIDATES)] item ids from 1

    @property
    def distinct(self) -> tuple[Tensor, Tensor]:
        """The distinct items, and for each occurrence which of them it is."""
        return torch.unique(self.occurrences, return_inverse=True)


def make_step(items: int, seed: int = 1) -> Step:
    """Texts of random words, and items drawn by a Zipf-like popularity."""
    random = np.random.default_rng(seed)
    lengths = np.clip(random.normal(12, 5, items).round(), 3, 30).astype(int)
    texts = [{"title": " ".join(random.choice(VOCABULARY.split(), n))} for n in lengths]
    weights = 1 / (np.arange(items) + 10) ** 0.8
    drawn = random.choice(items, USERS * (HISTORY + CANDIDATES), p=weights / weights.sum())
    return Step(texts, torch.from_numpy(drawn + 1))


def loss_of(vectors: Tensor) -> Tensor:
    """Matching: mean of the history against the candidates, the first one clicked."""
    grid = vectors.view(USERS, HISTORY + CANDIDATES, -1)
    user = grid[:, :HISTORY].mean(1, keepdim=True)
    scores = (user * grid[:, HISTORY:]).sum(-1)
    return F.cross_entropy(scores, torch.zeros(USERS, dtype=torch.long))


def seconds(module: nn.Module, encode: Encode, step: Step, *, distinct: bool, runs: int) -> float:
    """CPU seconds of the fastest of some steps: with one thread, other work does not count."""
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-4)
    items, inverse = step.distinct if distinct else (step.occurrences, slice(None))
    times = []
    for _ in range(runs):
        start = time.process_time()
        loss_of(encode(items)[inverse]).backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.process_time() - start)
    return min(times)


def full_model(name: str, step: Step) -> tuple[nn.Module, Encode]:
    """The whole language model with every weight trained, as it is usually done."""
    model = copy.deepcopy(load_base(name).model).requires_grad_(True).train()
    head = nn.Linear(model.config.hidden_size, HIDDEN)  # type: ignore[union-attr]
    tokenizer = load_tokenizer(name)
    texts = [row["title"] for row in step.texts]
    given = tokenizer(texts, truncation=True, max_length=32, padding=True, return_tensors="pt")

    def encode(items: Tensor) -> Tensor:
        ids, mask = given["input_ids"][items - 1], given["attention_mask"][items - 1]
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state
        return head((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))

    return nn.ModuleList([model, head]), encode


def split_model(config: LlmConfig, step: Step) -> tuple[nn.Module, Encode]:
    """The `llm` operator over stored states; storing them is not part of a step."""
    features: StateFeatures = states_of_texts(LlmOperator.recipe(config, ("title",)), step.texts)
    operator = LlmOperator(config, Shape(HIDDEN, features.item_count)).train()
    return operator, lambda items: operator(features.gather(items))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    step = make_step(options.items)
    print(f"{options.model}: {len(step.occurrences)} items, {len(step.distinct[0])} distinct")
    print(f"{'variant':44} {'CPU seconds':>11} {'times faster':>13}")
    module, encode = full_model(options.model, step)
    reference = seconds(module, encode, step, distinct=False, runs=1)
    rows = [("full fine-tuning, every occurrence", reference)]
    rows.append(
        ("full fine-tuning, distinct", seconds(module, encode, step, distinct=True, runs=1))
    )
    for label, settings in {
        "LoRA on all layers (split 0)": {"split": 0},
        "split L-2, LoRA": {"split": -2},
        "split L-1, LoRA": {"split": -1},
        "split L-1, LoRA, int8": {"split": -1, "precision": "int8"},
        "split L-1, LoRA, bfloat16": {"split": -1, "precision": "bfloat16"},
        "split L (head alone)": {"split": load_base(options.model).layers},
    }.items():
        config = LlmConfig.model_validate({"model": options.model, **settings})
        module, encode = split_model(config, step)
        rows.append((label, seconds(module, encode, step, distinct=True, runs=2)))
    for label, taken in rows:
        print(f"{label:44} {taken:11.3f} {reference / taken:13.1f}")


if __name__ == "__main__":
    main()
