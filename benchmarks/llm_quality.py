"""Language models: validation AUC of split L-1, L-2, L/2 and all layers against full fine-tuning.

    python benchmarks/llm_quality.py [--model minilm] [--processes 2]

The embedded corpus, 3 epochs, 3 seeds, two learning rates of the encoder for each variant; one
thread each. The table that came of it is in docs/performance.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from legoray.config import TrialConfig, build, home
from legoray.data.prepare import prepare
from legoray.llm.load import facts
from legoray.train.cache import shared_corpus
from legoray.train.job import Job, Runtime
from legoray.train.loop import train

DATA = Path(__file__).parents[1] / "datasets" / "mind_sample.yaml"
LENGTH = 32
QUALITY: dict[str, dict[str, Any]] = {
    "split L-1, LoRA": {"split": -1},
    "split L-2, LoRA": {"split": -2},
    "split L/2, LoRA": {"split": 0.5},
    "split 0, LoRA on all layers": {"split": 0},
    "split 0, full fine-tuning": {"split": 0, "tune": "full", "lora": None},
    "split L, head alone": {"split": 1.0, "lora": None},
}
SEEDS = (1, 2, 3)


def quality_config(model: str, given: dict[str, Any], seed: int, rate: float) -> TrialConfig:
    """One training of the quality table."""
    layers = facts(model).layers
    split = given["split"]
    content = {
        "name": "llm",
        "model": model,
        "length": LENGTH,
        **given,
        "split": int(split * layers) if isinstance(split, float) else split,
    }
    parts = {"behavior": {"name": "additive"}, "predictor": {"name": "dot"}}
    train = {
        "epochs": 3,
        "batch_size": 64,
        "max_history": 15,
        "learning_rate": 1e-3,
        "encoder_learning_rate": rate,
        "precision": "bfloat16",
        "patience": 3,
    }
    data = {"model": {"content": content, **parts}, "train": train, "seed": seed}
    return build(TrialConfig, data)


def print_quality(model: str, processes: int) -> None:
    """Print validation AUC of each variant, for each learning rate of the encoder."""
    prepare(DATA, say=lambda text: None)
    tasks = [
        (label, rate, seed, model)
        for label, given in QUALITY.items()
        for rate in ((3e-5, 1e-4) if given.get("tune") else (3e-4, 1e-3))
        for seed in SEEDS
    ]
    found: dict[tuple[str, float], list[tuple[float, float]]] = {}
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for label, rate, value, taken in pool.imap(train_one, tasks):
            found.setdefault((label, rate), []).append((value, taken))
            print(f"  {label} {rate:g}: {value:.4f} in {taken:.0f} s", file=sys.stderr, flush=True)
    print(f"\n{model}: validation AUC, 3 epochs, {len(SEEDS)} seeds, mean and deviation")
    print(f"{'variant':32} {'encoder rate':>12} {'AUC':>8} {'+-':>7} {'train seconds':>14}")
    for (label, rate), values in found.items():
        aucs, times = [auc for auc, _ in values], [spent for _, spent in values]
        spread = statistics.stdev(aucs) if len(aucs) > 1 else 0.0
        mean, seconds = statistics.mean(aucs), statistics.mean(times)
        print(f"{label:32} {rate:>12g} {mean:8.4f} {spread:7.4f} {seconds:14.1f}")


def train_one(task: tuple[str, float, int, str]) -> tuple[str, float, float, float]:
    """One training on one thread: best validation AUC and seconds of training."""
    label, rate, seed, model = task
    torch.set_num_threads(1)
    tables = prepare(DATA, say=lambda text: None).tables
    config = quality_config(model, QUALITY[label], seed, rate)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(config=config, tables=str(tables), home=str(home()), folder=folder)
        outcome = train(job, Runtime(shared_corpus(tables), threads=1), lambda metrics: None)
    return label, rate, outcome.best["auc"], outcome.costs["train_seconds"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    given = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    print_quality(given.model, given.processes)


if __name__ == "__main__":
    main()
