"""A driver that `ray job submit --working-dir .` started: its folder is a copy that does not last.

What shall outlive the job (sweeps, single trainings, the zoo's SQLite file) is kept below
LEGORAY_HOME there, where a driver that is started by hand keeps it in the current folder.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from legoray.errors import InputError, Problem

_COPIES = "working_dir_files"  # Ray's folder of such copies, each named `_ray_pkg_<hash>`


def in_copy(folder: Path | None = None) -> bool:
    """Whether a folder (the current one) lies in a Ray job's copy of its working directory."""
    parts = (folder or Path.cwd()).parts
    return any(a == _COPIES and b.startswith("_ray_pkg_") for a, b in itertools.pairwise(parts))


def check_home() -> None:
    """See that caches and results of a job do not go with it.

    Raises:
        InputError: this is a job, and LEGORAY_HOME is not set.
    """
    if in_copy() and not os.environ.get("LEGORAY_HOME"):
        hint = (
            "set it to storage that all nodes see, where they are started (`LEGORAY_HOME=... ray "
            'start`) or by `--runtime-env-json \'{"env_vars": {"LEGORAY_HOME": "..."}}\'`'
        )
        message = "is not set, and this job's folder is a copy that goes with the job"
        raise InputError(Problem("LEGORAY_HOME", message, hint))


def command_of(words: str) -> str:
    """A command as it was given: within a job, to be submitted again."""
    return f"ray job submit --working-dir . -- {words}" if in_copy() else words
