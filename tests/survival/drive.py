"""A driver of a search, as a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from legoray.cli import run
from legoray.search.run import run_search

if __name__ == "__main__":
    space, folder, *address = sys.argv[1:]
    options = {
        "folder": Path(folder),
        "address": address[0] if address else None,
        "console": Console(highlight=False, width=200),
        "train_fn": "counted:train",
    }
    run(lambda: sys.exit(run_search(Path(space), **options)))
