"""Training steps against a plain loop over tensors that are ready; memory at MIND-large's size."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from torch import nn

from legoray.config import TrialConfig
from legoray.train.batches import draw_samples
from legoray.train.checkpoint import Progress, write_checkpoint
from of_training.common import (
    Data,
    data_of,
    fastest,
    opened,
    plain_optimizer,
    plain_step,
    seconds,
    table,
)
from of_training.world import LARGE, MODELS, Size, model_config, trial

STEPS = {64: 8, 512: 2}


def compare(data: Data, name: str, hidden: int, size: int, rounds: int) -> dict[str, float]:
    """Seconds of a plain step, and what each of our own works adds to it as a share."""
    own = opened(data, trial(model_config(name, hidden), size))
    theirs = own.twin()
    steps, runner = STEPS[size], own.runner()
    optimizer = plain_optimizer(theirs.model, own.config)
    ready = [own.batch(number) for number in range(steps)]
    runner.steps(own.samples, 1, 0, steps)
    ours, plain, collate = fastest(
        rounds,
        lambda: runner.steps(own.samples, 1, 0, steps),
        lambda: plain_step(theirs, optimizer, ready),
        lambda: [own.batch(number) for number in range(steps)],
    )
    split = data.corpus.splits["train"]
    drawn = seconds(lambda: draw_samples(split, task="matching", negatives=4, seed=1, epoch=2))
    kept = seconds(lambda: _checkpoint(own.model, data.tables.parent))
    epoch = Size().impressions * Size().clicks / size  # steps
    part = len(split) / Size().impressions
    step = plain / steps
    shares = {
        "loader": collate / plain,
        "bookkeeping": (ours - collate - plain) / plain,
        "sampling": drawn / part / epoch / step,
        "checkpoint": kept / epoch / step,
    }
    return {"step": step, **shares, "all": sum(shares.values())}


def _checkpoint(model: nn.Module, folder: Path) -> None:
    """The weights and, as large as they, both moments of the optimizer."""
    weights = model.state_dict()
    tensors = {f"model/{name}": value for name, value in weights.items()}
    for moment in ("exp_avg", "exp_avg_sq"):
        tensors |= {f"{moment}/{name}": value.clone() for name, value in weights.items()}
    with tempfile.TemporaryDirectory(dir=folder) as place:
        write_checkpoint(Path(place), Progress(config="", run=""), tensors)


def run(folder: Path, *, full: bool) -> dict[str, float]:
    """Print both tables; name of a ratio -> value."""
    data = data_of(folder, Size() if full else Size(impressions=20_000))
    rows, found = [], {}
    for name in MODELS:
        for hidden in (64, 256) if full else (64,):
            for batch in (64, 512):
                one = compare(data, name, hidden, batch, rounds=7 if full else 5)
                found[f"overhead/{name}/{hidden}/{batch}"] = one["all"]
                names = ("loader", "bookkeeping", "sampling", "checkpoint", "all")
                percent = [f"{100 * one[key]:.1f}" for key in names]
                rows.append([name, str(hidden), str(batch), f"{one['step']:.4f}", *percent])
                print("  " + " ".join(rows[-1]), flush=True)
    head = ["model", "D", "batch", "plain step, s", "loader %", "bookkeeping %"]
    head += ["sampling %", "checkpoint %", "all %"]
    table("What is added to forward, backward and optimizer", head, rows)
    if full:
        found |= memory(folder)
    return found


def memory(folder: Path) -> dict[str, float]:
    """GB of a worker that trains on tables of MIND-large's size, in a process of its own."""
    here = Path(__file__).parent.parent
    code = "import sys; sys.path.insert(0, sys.argv[1]); from of_training import limit; "
    command = [sys.executable, "-c", code + "limit.worker(sys.argv[2])", str(here), str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    names = {"start": "libraries", "corpus": "with the corpus", "peak": "while it trains, at most"}
    rows = [[names[key], f"{found[key]:.2f}"] for key in names]
    table("Memory of a worker, MIND-large (PSS, GB)", ["", "GB"], rows)
    return {"large-gb": found["peak"]}


def worker(folder: str) -> None:
    """Train a few steps of NRMS on a corpus of MIND-large's size, and print the memory."""
    found = {"start": _pss()}
    with tempfile.TemporaryDirectory(dir=folder) as place:
        data = data_of(Path(place), LARGE)
        found["corpus"] = _pss()
        most, stop = [0.0], threading.Event()

        def watch() -> None:
            while not stop.is_set():
                most[0] = max(most[0], _pss())
                time.sleep(0.05)

        watching = threading.Thread(target=watch)
        watching.start()
        config: TrialConfig = trial(model_config("nrms", 64), 512)
        own = opened(data, config)
        own.runner().steps(own.samples, 1, 0, 5)
        stop.set()
        watching.join()
    print(json.dumps({**found, "peak": most[0]}))


def _pss() -> float:
    """GB of this process's share of memory."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 2**20
