"""The real training in a process that may take so many MiB more than it has; tells of its parts."""

from __future__ import annotations

import contextlib
import json
import resource
from collections.abc import Iterator
from pathlib import Path

from legoray.train.checkpoint import read_checkpoint
from legoray.train.job import Job, Outcome, Report, Runtime
from legoray.train.loop import train as real

ROOM = 640  # MiB that a training may take; a thread that starts meanwhile takes up to 136 of them


@contextlib.contextmanager
def limited(mib: int) -> Iterator[None]:
    """No more than so many MiB of addresses beyond those that the process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    old = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old)


def train(job: Job, runtime: Runtime, report: Report) -> Outcome:
    """Train with little room; how many parts a batch was cut into stands in `parts.json`."""
    folder = Path(job.folder)

    def noted(metrics: dict[str, float]) -> None:
        found = read_checkpoint(folder)
        if found is not None:
            (folder / "parts.json").write_text(json.dumps(found[0].accumulate))
        report(metrics)

    with limited(ROOM):
        return real(job, runtime, noted)
