"""Time and memory of training at 1, 2, 4 and 8 times the work, and the exponents of both."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from legoray.config import TrialConfig
from legoray.train.job import Runtime
from legoray.train.loop import train
from legoray.train.memory import PeakMemory
from of_training.common import Data, data_of, fastest, opened, seconds, table
from of_training.world import Size, job_of, model_config, trial

SCALES = (1, 2, 4, 8)
SMALL = Size(impressions=4_000, items=8_000, users=8_000, history=64.0)
STEPS = 4


@dataclasses.dataclass(frozen=True)
class Axis:
    """What grows, which model shows it, and what is timed."""

    name: str
    model: str
    of: str  # an epoch with its evaluation and checkpoint, or a step


AXES = (
    Axis("impressions", "naml", "an epoch"),
    Axis("items", "naml", "a step"),
    Axis("items", "id", "a step"),
    Axis("users", "lstur", "a step"),
    Axis("history length", "naml", "a step"),
    Axis("history length", "nrms", "a step"),
    Axis("candidates", "naml", "a step"),
    Axis("candidates", "dcn-text", "a step"),
)


def settings(axis: Axis, scale: int) -> tuple[Size, TrialConfig]:
    """The corpus and the training of one point."""
    size, most, negatives, batch = SMALL, 50, 4, 64
    if axis.name == "impressions":
        size = dataclasses.replace(size, impressions=size.impressions // 4 * scale)
    elif axis.name == "items":
        size = dataclasses.replace(size, items=size.items * scale)
    elif axis.name == "users":
        size = dataclasses.replace(size, users=size.users * scale)
    elif axis.name == "history length":
        # histories that are that long, of items that are ever the same few
        most = 25 * scale
        size = dataclasses.replace(size, history=40.0 * most, users=200, items=500)
    else:
        size = dataclasses.replace(size, candidates=200.0)
        negatives = 5 * scale - 1
    name = "naml" if axis.model == "id" else axis.model
    model = model_config(name, 64)
    if axis.model == "id":
        model = model.model_copy(update={"content": {"name": "id"}})
    return size, trial(model, batch, max_history=most, negatives=negatives, epochs=1)


def point(axis: Axis, scale: int, folder: Path) -> tuple[float, float]:
    """Processor seconds, and MiB at most beyond what was held before."""
    size, config = settings(axis, scale)
    data = data_of(folder, size)
    memory = PeakMemory(torch.device("cpu"))
    before = memory.mib()
    if axis.of == "an epoch":
        return _epoch(data, config, folder), memory.mib() - before
    own = opened(data, config)
    runner = own.runner()
    runner.steps(own.samples, 1, 0, 1)
    taken = fastest(4, lambda: runner.steps(own.samples, 1, 0, STEPS))[0] / STEPS
    return taken, memory.mib() - before


def torch_cpu() -> torch.device:
    """The processor as a device."""
    import torch

    return torch.device("cpu")


def _epoch(data: Data, config: TrialConfig, folder: Path) -> float:
    job = job_of(config, data.tables, folder / "job")
    return seconds(lambda: train(job, Runtime(data.corpus), lambda metrics: None))


def one(folder: str, number: str, scale: str) -> None:
    """Print one point; in a process of its own, so that its memory is its own."""
    torch.set_num_threads(1)
    print(json.dumps(point(AXES[int(number)], int(scale), Path(folder))))


def _own_process(folder: Path, number: int, scale: int) -> tuple[float, float]:
    here = str(Path(__file__).parent.parent)
    code = "import sys; sys.path.insert(0, sys.argv[1]); from of_training import growth; "
    code += "growth.one(*sys.argv[2:])"
    command = [sys.executable, "-c", code, here, str(folder), str(number), str(scale)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    taken, held = json.loads(done.stdout.splitlines()[-1])
    return taken, held


def run(folder: Path, *, full: bool, plot: Path | None) -> dict[str, float]:
    """Print the table, write the plot if asked to; name of an exponent -> value."""
    rows, found, curves = [], {}, {}
    for number, axis in enumerate(AXES):
        points = []
        for scale in SCALES:
            place = folder / f"{number}-{scale}"
            place.mkdir()
            points.append(_own_process(place, number, scale))
        times, held = np.transpose(points)
        label = f"{axis.name} ({axis.model}, {axis.of})"
        curves[label] = times
        for what, values in (("time", times), ("memory", held)):
            exponent = _exponent(values)
            found[f"growth-{what}/{axis.name}/{axis.model}"] = exponent
            first = f"{values[0]:.3f} s" if what == "time" else f"{values[0]:.0f} MiB"
            relative = [f"{value / values[0]:.2f}" for value in values[1:]]
            rows.append([label, what, first, *relative, f"{exponent:.2f}"])
            print("  " + " ".join(rows[-1]), flush=True)
    head = ["what grows", "", "1x", "2x", "4x", "8x", "exponent"]
    table("Cost as work grows", head, rows)
    if plot is not None:
        draw(plot, curves)
    return found


def _exponent(values: np.ndarray) -> float:
    """The slope of the line through the points in a log-log plot."""
    return float(np.polyfit(np.log(SCALES), np.log(np.maximum(values, 1e-9)), 1)[0])


def draw(file: Path, curves: dict[str, np.ndarray]) -> None:
    """Write a log-log plot as a page."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for label, values in curves.items():
        figure.add_scatter(x=SCALES, y=values / values[0], name=label, mode="lines+markers")
    figure.add_scatter(x=SCALES, y=SCALES, name="linear", line={"dash": "dot"})
    figure.update_xaxes(type="log", title="times the work")
    figure.update_yaxes(type="log", title="times the processor seconds")
    figure.write_html(file, include_plotlyjs=True)
