"""A train function on a node that shares no folder with the others: what it reads is fetched, and
what it keeps is at its address before anybody hears of the epoch.

So a trial that moves to another node goes on from its last epoch there.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from legoray.errors import InfeasibleError
from legoray.storage.address import address_of, is_address, place
from legoray.storage.folders import fetch, share, withdraw
from legoray.train.job import Job, Outcome, Report, Runtime

LAST = "last"  # the checkpoint's folder, which comes and goes
Train = Callable[[Job, Runtime, Report], Outcome]


def carried(train: Train) -> Train:
    """The same train function, also for jobs whose tables, caches or folder are addresses."""

    def run(job: Job, runtime: Runtime, report: Report) -> Outcome:
        if not any(map(is_address, (job.tables, job.home, job.folder))):
            return train(job, runtime, report)
        return _run(train, job, runtime, report)

    return run


def _run(train: Train, job: Job, runtime: Runtime, report: Report) -> Outcome:
    tables, home, folder = place(job.tables), place(job.home), place(job.folder)
    near = job.model_copy(update={"tables": str(tables), "home": str(home), "folder": str(folder)})
    fetch(tables)
    _go_on(folder)
    runtime = dataclasses.replace(runtime, refresh=partial(fetch, folder))

    def keep(metrics: dict[str, float]) -> None:
        _keep(folder)
        report(metrics)

    try:
        outcome = train(near, runtime, keep)
    except InfeasibleError:
        _close(folder, runtime)
        raise
    _close(folder, runtime)
    return outcome


def _go_on(folder: Path) -> None:
    """Have here what the address holds of a training, and nothing else."""
    if address_of(folder) is None:
        return
    if not fetch(folder):
        shutil.rmtree(folder, ignore_errors=True)
    if not fetch(folder / LAST):
        shutil.rmtree(folder / LAST, ignore_errors=True)


def _keep(folder: Path) -> None:
    """Send the best model, then the checkpoint that knows of it."""
    share(folder, leave=(LAST,))
    share(folder / LAST)


def _close(folder: Path, runtime: Runtime) -> None:
    """Send what the end has changed; a checkpoint that was deleted goes at the address too."""
    if runtime.rank:
        return
    share(folder, leave=(LAST,))
    if not (folder / LAST).exists():
        withdraw(folder / LAST)
