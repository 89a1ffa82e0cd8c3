"""Language models: split layers, stored states and low precision, as ratios of one run.

    python benchmarks/llm.py [--part step corpus precision] [--pooling mean last] [--threads 2]

step       a training step, 32 users x (30 history + 5 candidates) x 32 tokens: forward, softmax
           cross-entropy, backward, AdamW, against full fine-tuning of the same model
corpus     5 epochs of the embedded corpus with the making of the store counted in; the slow
           variants are timed on some batches and multiplied
precision  each precision of the base weights against float32: memory, speed, cosine of item vectors

Whatever does not fit into the memory at once (full fine-tuning, all layers) is run in chunks of
items, forward and backward of each, which takes the time of a machine with enough memory.
The tables that came of it are in docs/performance.md.
"""

from __future__ import annotations

import argparse
import copy
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ratios import add_json, write_ratios
from torch import Tensor, nn
from torch.nn import functional as F

from legoray.data.corpus import Corpus
from legoray.data.load import load_corpus, load_items
from legoray.data.prepare import prepare
from legoray.data.recipes import LayersRecipe
from legoray.llm.load import base_bytes, facts, load_base, load_tokenizer
from legoray.llm.pooled import pooled_of_texts
from legoray.llm.store import open_states, states_of_texts
from legoray.model.base import Shape
from legoray.model.content.llm import LlmConfig, LlmOperator
from legoray.train.batches import draw_samples

USERS, HISTORY, CANDIDATES, LENGTH, HIDDEN = 32, 30, 5, 32, 64
EPOCHS = 5  # of the embedded corpus
CHUNK = 140  # items at once, where not all fit into the memory
TEXT = (
    "rain floods harbour town boats street striker goal cup final markets winter songs late choir "
    "election vote bank rates rise fall star film music prize court judge storm coast new old"
)
DATA = Path(__file__).parents[1] / "datasets" / "mind_sample.yaml"
Encode = Callable[[Tensor], Tensor]  # item ids [N] -> vectors [N, D]


@dataclass(frozen=True)
class Step:
    """The items of one batch: ids from 1 of every place, history first, 0 where there is none."""

    places: Tensor  # [USERS, HISTORY + CANDIDATES]

    @property
    def occurrences(self) -> Tensor:
        """The item of every place that has one."""
        return self.places[self.places > 0]

    @property
    def distinct(self) -> Tensor:
        """The distinct items."""
        return self.occurrences.unique()


@dataclass(frozen=True)
class Variant:
    """A way to train: what is trained, and which items of a step are encoded."""

    label: str
    module: nn.Module
    encode: Encode
    every: bool = False  # every occurrence instead of distinct items
    chunk: int = 0  # items at once; 0 for all


def drawn_step(items: int, seed: int = 1) -> Step:
    """Items drawn by a Zipf-like popularity, every place filled."""
    random = np.random.default_rng(seed)
    weights = 1 / (np.arange(items) + 10) ** 0.8
    shape = (USERS, HISTORY + CANDIDATES)
    return Step(torch.from_numpy(random.choice(items, shape, p=weights / weights.sum()) + 1))


def long_texts(items: int, seed: int = 1) -> list[dict[str, str]]:
    """Texts of random words that fill LENGTH tokens in any tokenizer."""
    random = np.random.default_rng(seed)
    return [{"title": " ".join(random.choice(TEXT.split(), LENGTH))} for _ in range(items)]


def loss_of(vectors: Tensor, step: Step, items: Tensor) -> Tensor:
    """Matching: mean of the history against the candidates, the first one clicked."""
    rows = torch.searchsorted(items, step.places.clamp(min=1))
    grid = vectors[rows] * (step.places > 0).unsqueeze(-1)
    user = grid[:, :HISTORY].mean(1, keepdim=True)
    scores = (user * grid[:, HISTORY:]).sum(-1)
    return F.cross_entropy(scores, torch.zeros(len(grid), dtype=torch.long))


def run_step(variant: Variant, step: Step, optimizer: torch.optim.Optimizer) -> None:
    """Forward, backward, update."""
    items = step.occurrences if variant.every else step.distinct
    if variant.chunk:
        for part in items.split(variant.chunk):
            # any gradient of the vectors costs what the loss's own would
            variant.encode(part).float().sum().backward()
    else:
        loss_of(variant.encode(items), step, items).backward()
    optimizer.step()
    optimizer.zero_grad()


def now() -> float:
    """Seconds; of this process alone where it has one thread, so that other work does not count."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def seconds(variant: Variant, steps: Sequence[Step], runs: int) -> float:
    """Seconds per step: of each step the fastest of some runs; the mean over the steps."""
    trained = [p for p in variant.module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    if not variant.chunk:
        run_step(variant, steps[0], optimizer)  # warm: buffers, the optimizer's state
    fastest = []
    for step in steps:
        times = []
        for _ in range(runs):
            start = now()
            run_step(variant, step, optimizer)
            times.append(now() - start)
        fastest.append(min(times))
    return statistics.mean(fastest)


def full_model(name: str, texts: list[str], pooling: str, precision: str) -> tuple[Any, Encode]:
    """The whole language model with every weight trained, as it is usually done."""
    dtype = getattr(torch, precision)
    model = copy.deepcopy(load_base(name).model).to(dtype).requires_grad_(True).train()
    head = nn.Linear(model.config.hidden_size, HIDDEN)  # type: ignore[union-attr, arg-type]
    given = load_tokenizer(name)(texts, truncation=True, max_length=LENGTH)["input_ids"]
    lengths = torch.tensor([len(row) for row in given])
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in given], batch_first=True)

    def encode(items: Tensor) -> Tensor:
        count = lengths[items - 1]
        mask = torch.arange(int(count.max())) < count[:, None]
        states = model(input_ids=ids[items - 1, : mask.shape[1]], attention_mask=mask.long())[0]
        if pooling == "last":
            return head(states[torch.arange(len(items)), count - 1].float())
        return head((states.float() * mask[..., None]).sum(1) / count[:, None])

    return nn.ModuleList([model, head]), encode


def operator(config: LlmConfig, features: Any) -> tuple[LlmOperator, Encode]:
    """The `llm` operator over stored states; storing them is not part of a step."""
    module = LlmOperator(config, Shape(HIDDEN, features.item_count)).train()
    return module, lambda items: module(features.gather(items))


def settings(model: str, **given: Any) -> LlmConfig:
    """An `llm` operator's settings, with the texts of this benchmark."""
    return LlmConfig.model_validate(
        {"model": model, "length": LENGTH, "template": "{title}", **given}
    )


def print_rows(
    rows: list[tuple[str, float]], references: dict[str, str], what: str
) -> dict[str, float]:
    """A table of seconds and of how many times faster than each reference a row is; by name."""
    taken = dict(rows)
    heads = "".join(f" {f'x {short}':>12}" for short in references.values())
    print(f"{'variant':48} {'seconds':>9}{heads}")
    for label, value in rows:
        ratios = "".join(f" {taken[name] / value:>12.1f}" for name in references)
        print(f"{label:48} {value:>9.3f}{ratios}")
    return {
        f"llm/{what}/{label}/x-{short.replace(' ', '-')}": taken[name] / value
        for label, value in rows
        for name, short in references.items()
    }


def part_step(model: str, items: int, poolings: Sequence[str]) -> dict[str, float]:
    """Print the table of one training step; its ratios by name."""
    found: dict[str, float] = {}
    step, texts = drawn_step(items), long_texts(items)
    plain = [row["title"] for row in texts]
    layers = facts(model).layers
    count = f"{step.places.numel():,} items, {len(step.distinct):,} distinct, {LENGTH} tokens each"
    for pooling in poolings:
        print(f"\n{model}, {pooling} pooling: {count}")
        rows = []
        full = "full fine-tuning, distinct items, float32"
        whole = "full fine-tuning, every occurrence, float32"
        lora = "LoRA on all layers, distinct items, float32"
        for label, every, precision in (
            (whole, True, "float32"),
            (full, False, "float32"),
            (full.replace("float32", "bfloat16"), False, "bfloat16"),
        ):
            module, encode = full_model(model, plain, pooling, precision)
            variant = Variant(label, module, encode, every, CHUNK)
            rows.append((label, seconds(variant, [step], 1)))
            del module, encode, variant
            gc.collect()
        for label, given in step_variants(layers, lora):
            config = settings(model, pooling=pooling, **given)
            features = states_of_texts(LlmOperator.recipe(config, ("title",)), texts)
            chunk = CHUNK if given["split"] == 0 else 0
            variant = Variant(label, *operator(config, features), chunk=chunk)
            rows.append((label, seconds(variant, [step], 1 if chunk else 5)))
            del features, variant
            gc.collect()
        references = {whole: "every", full: "distinct", lora: "all LoRA"}
        found |= print_rows(rows, references, f"step/{pooling}")
    return found


def step_variants(layers: int, lora: str) -> list[tuple[str, dict[str, Any]]]:
    """Labels and settings of what is measured against full fine-tuning."""
    return [
        (lora, {"split": 0}),
        (lora.replace("float32", "bfloat16"), {"split": 0, "precision": "bfloat16"}),
        ("split L-2, LoRA, float32", {"split": -2}),
        *[
            (f"split L-1, LoRA, {name}", {"split": -1, "precision": name})
            for name in ("float32", "bfloat16", "int8", "nf4")
        ],
        ("split L, head alone", {"split": layers, "lora": None}),
    ]


def corpus_steps(corpus: Corpus) -> list[Step]:
    """All batches of one epoch."""
    split = corpus.splits["train"]
    drawn = draw_samples(split, task="matching", negatives=CANDIDATES - 1, seed=1, epoch=1)
    found = []
    for start in range(0, len(drawn), USERS):
        chosen: NDArray[np.int64] = drawn.impression[start : start + USERS]
        past = corpus.histories(split.history[chosen], split.history_end[chosen], HISTORY)
        past = np.pad(past, ((0, 0), (0, HISTORY - past.shape[1])))
        asked = split.item[drawn.rows[start : start + USERS]].astype(np.int64)
        found.append(Step(torch.from_numpy(np.concatenate([past, asked], axis=1))))
    return found


def middle(steps: Sequence[Step], count: int) -> list[Step]:
    """Some steps of a middling number of distinct items."""
    ordered = sorted(steps, key=lambda step: len(step.distinct))
    first = (len(ordered) - count) // 2
    return ordered[first : first + count]


def part_corpus(model: str, poolings: Sequence[str]) -> dict[str, float]:
    """Print the table of 5 epochs of the embedded corpus; its ratios by name."""
    ratios: dict[str, float] = {}
    tables = prepare(DATA, say=lambda text: None).tables
    corpus, titles = load_corpus(tables), load_items(tables, ["title"])["title"].to_pylist()
    steps = corpus_steps(corpus)
    total = EPOCHS * len(steps)
    for pooling in poolings:
        rows = []
        whole = "full fine-tuning, every occurrence, float32"
        full = "full fine-tuning, distinct items, float32"
        for label, every in ((whole, True), (full, False)):
            module, encode = full_model(model, titles, pooling, "float32")
            variant = Variant(label, module, encode, every, CHUNK)
            rows.append((label, total * seconds(variant, middle(steps, 1), 1)))
            del module, encode, variant
            gc.collect()
        for precision in ("float32", "bfloat16"):
            config = settings(model, pooling=pooling, split=-1, precision=precision)
            recipe = LlmOperator.recipe(config, ("title",))
            with tempfile.TemporaryDirectory() as empty:
                load_base(model, config.precision)
                began = now()
                features = open_states(recipe, tables, Path(empty))
                making = now() - began
                variant = Variant("", *operator(config, features))
                taken = total * seconds(variant, middle(steps, 15), 1)
                del features, variant
            label = f"split L-1, LoRA, {precision}, store made"
            rows.append((label, making + taken))
            print(f"{label}: {making:.0f} s of it")
        print(f"\n{model}, {pooling} pooling: {EPOCHS} epochs of {len(steps)} steps, {USERS} users")
        ratios |= print_rows(rows, {whole: "every", full: "distinct"}, f"corpus/{pooling}")
    return ratios


def part_precision(models: Sequence[str]) -> dict[str, float]:
    """Print the table of precisions: a forward over titles, without gradients; the cosines."""
    found: dict[str, float] = {}
    tables = prepare(DATA, say=lambda text: None).tables
    rows = [{"title": str(text)} for text in load_items(tables, ["title"])["title"].to_pylist()]
    for model in models:
        print(f"\n{model}: all layers over {len(rows):,} titles, mean pooling")
        heads = f"{'precision':10} {'MB':>8} {'x float32':>10} {'texts/s':>9} {'x float32':>10}"
        print(f"{heads} {'mean cosine':>12} {'lowest':>8}")
        reference: tuple[float, float, Tensor] | None = None
        for precision in ("float32", "bfloat16", "int8", "nf4"):
            base = load_base(model, precision)
            recipe = LayersRecipe(model, "{title}", LENGTH, "mean", precision, "float32")
            pooled_of_texts(recipe, rows[:64], last=True)
            began = now()
            vectors = pooled_of_texts(recipe, rows, last=True).all()[:, 0]
            speed, size = len(rows) / (now() - began), base_bytes(base) / 1e6
            reference = reference or (size, speed, vectors)
            cosine = F.cosine_similarity(vectors, reference[2], dim=1)
            told = (size, size / reference[0], speed, speed / reference[1])
            numbers = "{:8.1f} {:10.2f} {:9.1f} {:10.2f}".format(*told)
            print(f"{precision:10} {numbers} {cosine.mean():12.4f} {cosine.min():8.4f}")
            found[f"llm/precision/{model}/{precision}/cosine"] = float(cosine.mean())
            found[f"llm/precision/{model}/{precision}/memory-x"] = told[1]
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts, poolings = ("step", "corpus", "precision"), ("mean", "last")
    parser.add_argument("--part", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--pooling", nargs="+", choices=poolings, default=list(poolings))
    parser.add_argument("--items", type=int, default=1100)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    add_json(parser)
    given = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(given.threads)
    torch.manual_seed(1)
    work = {
        "step": lambda: part_step(given.model, given.items, given.pooling),
        "corpus": lambda: part_corpus(given.model, given.pooling),
        "precision": lambda: part_precision(list(dict.fromkeys(("minilm", given.model)))),
    }
    found: dict[str, float] = {}
    for part in given.part:
        found |= work[part]()
    write_ratios(given.json, found)


if __name__ == "__main__":
    main()
