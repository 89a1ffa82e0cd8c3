"""Where a sweep's time goes: start-up, data, training, evaluation, tracking, idle.

    python benchmarks/whole_search.py [--trials 8] [--epochs 12] [--json FILE]

A real search in an empty cache: the models of search_spaces/mind_llm.yaml on the embedded corpus,
two trials at a time, each of half a minute or more on two cores, tracked in an SQLite database,
ended by a retrained winner, baselines and the report. Every second of both slots is in one row:

start-up     from the command to the first trial: libraries, Ray, the space's check, hidden states
data         raw files to tables
opening      of a trial: data and model in memory, up to its first step
training     steps
evaluation   of each epoch
rest         of a trial: checkpoints, latency, the final training's test, messages
idle         a slot has no trial, though the sweep has not come to its last
closing      from the last trial to the prompt: baselines, comparison, report, the rest of MLflow

MLflow is written by a thread of the driver beside the trials; its seconds stand below the table,
since no slot waits for it. `busy` are the seconds of trials and those of that thread.
"""

from __future__ import annotations

import argparse
import functools
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ratios import add_json, write_ratios

BEGAN = time.time()
ROOT = Path(__file__).parents[1]
SLOTS = 2
SPACE = """\
name: whole
data: {root}/datasets/mind_sample.yaml
seed: 1
{model}
train:
  {{epochs: {epochs}, patience: {epochs}, batch_size: 32, max_history: 20,
    learning_rate: {{log: [1e-3, 1e-2]}}, encoder_learning_rate: {{log: [3e-4, 3e-3]}}}}
evaluate: {{metrics: [auc, mrr, ndcg@5, ndcg@10], select: auc}}
search:
  {{trials: {trials}, concurrent: {slots}, sampler: {{name: random}}, scheduler: {{name: none}},
    reuse: false}}
final: {{top: 1, seeds: 2, baselines: [random, popularity]}}
tracking: {{uri: "sqlite:///{folder}/mlflow.db"}}
"""


class Watch:
    """Seconds that calls of some methods take, and when they were made."""

    def __init__(self) -> None:
        self.spent: list[tuple[float, float]] = []  # when it began, how long it took

    def on(self, kind: type, *names: str) -> None:
        """Time these methods from now on."""
        for name in names:
            setattr(kind, name, self._timed(getattr(kind, name)))

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def timed(*given: Any, **named: Any) -> Any:
            began, clock = time.time(), time.perf_counter()
            try:
                return method(*given, **named)
            finally:
                self.spent.append((began, time.perf_counter() - clock))

        return timed

    def between(self, begin: float, end: float) -> float:
        """Seconds of the calls that began in a stretch of time."""
        return sum(took for began, took in self.spent if begin <= began < end)


def models() -> str:
    """The block `model` of mind_llm.yaml as it stands."""
    lines = (ROOT / "search_spaces" / "mind_llm.yaml").read_text(encoding="utf-8").splitlines()
    start = lines.index("model:")
    end = next(n for n, line in enumerate(lines) if n > start and line[:1].isalpha())
    return "\n".join(lines[start:end])


def search(folder: Path, trials: int, epochs: int) -> dict[str, float]:
    """Run the search; wall seconds and slot seconds by name."""
    from rich.console import Console

    from legoray.data.prepare import prepare
    from legoray.records import read_trials
    from legoray.search.run import run_search
    from legoray.zoo.sender import Sender

    watch = Watch()
    watch.on(Sender, "send", "end", "attach")
    file = folder / "space.yaml"
    given = {"root": ROOT, "model": models(), "folder": folder, "slots": SLOTS}
    file.write_text(SPACE.format(trials=trials, epochs=epochs, **given), encoding="utf-8")
    before = time.time()
    prepare(ROOT / "datasets" / "mind_sample.yaml", say=lambda text: None)
    data = time.time() - before
    console = Console(file=io.StringIO(), width=120)
    if code := run_search(file, folder=folder / "sweep", console=console):
        raise SystemExit(f"the search ended with {code}")
    ended = time.time()
    records = [r for r in read_trials(folder / "sweep") if r.phase != "baseline"]
    broken = [r.reason for r in records if r.status != "completed"]
    if broken:
        raise SystemExit(f"a trial was not completed: {broken[0]}")
    first = min(r.started for r in records)
    last = max(float(r.ended or 0) for r in records)
    trial = sum(float(r.ended or 0) - r.started for r in records)
    of = {name: sum(r.costs[f"{name}_seconds"] for r in records) for name in ("train", "evaluate")}
    opening = sum(r.costs["start_seconds"] for r in records)
    return {
        "start-up": SLOTS * (first - BEGAN - data),
        "data": SLOTS * data,
        "opening": opening,
        "training": of["train"],
        "evaluation": of["evaluate"],
        "rest": trial - opening - of["train"] - of["evaluate"],
        "idle": SLOTS * (last - first) - trial,
        "closing": SLOTS * (ended - last),
        "tracking beside": watch.between(0, last),
        "tracking at the end": watch.between(last, ended),
        "trial": trial,
        "longest": max(float(r.ended or 0) - r.started for r in records),
        "shortest": min(float(r.ended or 0) - r.started for r in records),
        "wall": ended - BEGAN,
    }


ROWS = ("start-up", "data", "opening", "training", "evaluation", "rest", "idle", "closing")


def show(found: dict[str, float]) -> dict[str, float]:
    """Print the table; the ratios by name."""
    total = SLOTS * found["wall"]
    print(f"{found['wall']:.0f} s of {SLOTS} slots; trials of {found['shortest']:.0f} to"
          f" {found['longest']:.0f} s\n")  # fmt: skip
    for name in ROWS:
        share = found[name] / total
        print(f"{name:<12}{found[name]:>9.1f} s{100 * share:>7.1f}%  {'#' * round(50 * share)}")
    print(f"{'all':<12}{sum(found[name] for name in ROWS):>9.1f} s")
    beside, closing = found["tracking beside"], found["tracking at the end"]
    print(f"\nMLflow: {beside:.1f} s beside the trials, {closing:.1f} s of the closing")
    busy = found["trial"] + beside + closing
    ratio = found["training"] / busy
    print(f"training is {100 * ratio:.1f}% of the busy time ({busy:.0f} s)")
    return {"whole/training-of-busy": ratio, "whole/busy-of-all": found["trial"] / total}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=12)
    add_json(parser)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="whole-", ignore_cleanup_errors=True) as name:
        os.environ["LEGORAY_HOME"] = str(Path(name) / "home")
        ratios = show(search(Path(name), given.trials, given.epochs))
    write_ratios(given.json, ratios)


if __name__ == "__main__":
    main()
