"""The real training, with a line for every start and every epoch that it reports."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from legoray.train.checkpoint import read_epochs
from legoray.train.job import Job, Outcome, Report, Runtime
from legoray.train.loop import train as real

FILE = "events.jsonl"


def train(job: Job, runtime: Runtime, report: Report) -> Outcome:
    """Train as `legoray.train.loop:train` does, and note in the job's folder how it goes."""
    folder = Path(job.folder)
    if runtime.rank == 0:
        note(folder, "start", after=len(read_epochs(folder)))

    def counted(metrics: dict[str, float]) -> None:
        note(folder, "epoch", epoch=int(metrics["epoch"]))
        report(metrics)

    return real(job, runtime, counted)


def note(folder: Path, event: str, **more: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("a") as file:
        file.write(json.dumps({"event": event, "pid": os.getpid(), **more}) + "\n")


def events(folder: Path) -> list[dict[str, Any]]:
    """What was noted of a training, in order; a line that a kill cut is left out."""
    path = folder / FILE
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
