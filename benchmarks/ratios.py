"""Ratios by name, as the benchmarks write them (--json) and `check.py` reads them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path


def add_json(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark the option --json."""
    parser.add_argument("--json", type=Path, help="write name of a ratio -> value here")


def write_ratios(file: Path | None, found: Mapping[str, float]) -> None:
    """Write what was found, sorted; nothing where no file was asked for."""
    if file is not None:
        text = json.dumps({name: float(found[name]) for name in sorted(found)}, indent=1)
        file.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
