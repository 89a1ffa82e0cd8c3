"""Where numbers come from: the revision, the versions and the machine that a sweep records."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import legoray
from legoray.train.version import training_version


def git_revision() -> str:
    """The revision of the code that runs; empty where it is no git checkout."""
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(legoray.__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"legoray": legoray.__version__, "training": training_version()}
    for name in ("torch", "transformers", "peft", "ray", "optuna"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """What this machine is: system, processors, memory, Python."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, {memory:.0f} GB, "
        f"Python {platform.python_version()}"
    )
