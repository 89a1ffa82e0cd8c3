"""A driver of a search with the tests' tiny training, as a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from legoray.cli import run
from legoray.search.run import run_search

if __name__ == "__main__":
    space, folder, *rest = sys.argv[1:]
    console = Console(highlight=False, width=200)
    options = {"folder": Path(folder), "console": console, "train_fn": "tinytrain:train"}
    if rest:
        options["trials"] = int(rest[0])
    run(lambda: sys.exit(run_search(Path(space), **options)))
