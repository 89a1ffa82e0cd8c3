"""Language models: validation AUC of split L-1, L-2, L/2 and all layers against full fine-tuning.

    python benchmarks/llm_quality.py [--model minilm] [--processes 2] [--results quality.jsonl]

The embedded corpus, 3 epochs of batches of 256, 3 seeds, one thread each. Two learning rates of the
encoder are tried on the first seed; the other seeds train at the better one. Every training that
has ended is kept in the file of results, so that a run that was interrupted goes on. Seconds are of
the processor. The table that came of it is in docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

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
        "batch_size": 256,
        "max_history": 15,
        "learning_rate": 1e-3,
        "encoder_learning_rate": rate,
        "precision": "bfloat16",
        "patience": 3,
    }
    data = {"model": {"content": content, **parts}, "train": train, "seed": seed}
    return build(TrialConfig, data)


class Task(NamedTuple):
    """One training."""

    model: str
    label: str
    rate: float
    seed: int


class Result(NamedTuple):
    """Validation AUC of its best epoch, and processor seconds of the whole training."""

    auc: float
    seconds: float


def print_quality(model: str, processes: int, results: Path) -> None:
    """Print validation AUC of each variant at its better learning rate of the encoder."""
    prepare(DATA, say=lambda text: None)
    first = [
        Task(model, label, rate, SEEDS[0])
        for label, given in QUALITY.items()
        for rate in ((3e-5, 1e-4) if given.get("tune") else (3e-4, 1e-3))
    ]
    found = train_all(first, processes, results)
    best = {
        label: max((t for t in first if t.label == label), key=lambda t: found[t].auc).rate
        for label in QUALITY
    }
    rest = [Task(model, label, rate, seed) for label, rate in best.items() for seed in SEEDS]
    found |= train_all(rest, processes, results)
    full = statistics.fmean(found[t].seconds for t in rest if "full" in t.label)
    print(f"\n{model}: validation AUC, 3 epochs, {len(SEEDS)} seeds, mean and deviation")
    print("| variant | encoder rate | AUC | seconds | x full |")
    print("| :-- | --: | --: | --: | --: |")
    for label, rate in best.items():
        values = [found[t] for t in rest if t.label == label]
        aucs, seconds = [v.auc for v in values], statistics.fmean(v.seconds for v in values)
        shown = f"{statistics.fmean(aucs):.4f} ± {statistics.stdev(aucs):.4f}"
        print(f"| {label} | {rate:g} | {shown} | {seconds:.0f} | {full / seconds:.1f} |")


def train_all(tasks: Iterable[Task], processes: int, results: Path) -> dict[Task, Result]:
    """The results of all tasks; those that are in the file already are not trained again."""
    found = read_results(results)
    left = [task for task in tasks if task not in found]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for task, result in pool.imap_unordered(train_one, left):
            found[task] = result
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**task._asdict(), **result._asdict()}) + "\n")
            print(f"  {task}: {result}", file=sys.stderr, flush=True)
    return found


def read_results(path: Path) -> dict[Task, Result]:
    """What earlier runs have trained."""
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {
        Task(r["model"], r["label"], r["rate"], r["seed"]): Result(r["auc"], r["seconds"])
        for r in rows
    }


def train_one(task: Task) -> tuple[Task, Result]:
    """One training on one thread."""
    torch.set_num_threads(1)
    tables = prepare(DATA, say=lambda text: None).tables
    config = quality_config(task.model, QUALITY[task.label], task.seed, task.rate)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(config=config, tables=str(tables), home=str(home()), folder=folder)
        started = time.process_time()
        outcome = train(job, Runtime(shared_corpus(tables), threads=1), lambda metrics: None)
        seconds = time.process_time() - started
    return task, Result(outcome.best["auc"], seconds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, default=Path("quality.jsonl"))
    given = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    print_quality(given.model, given.processes, given.results)


if __name__ == "__main__":
    main()
