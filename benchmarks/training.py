"""Training, measured: against research code, against its own limit, as work grows, by two workers.

    python benchmarks/training.py                  # all parts but `workers`, a quarter of an hour
    python benchmarks/training.py --part naive     # samples/s against research code
    python benchmarks/training.py --part limit     # what is added to forward, backward, optimizer
    python benchmarks/training.py --part growth    # time and memory at 1, 2, 4 and 8 times the work
    python benchmarks/training.py --part workers   # two workers against one; needs a quiet machine
    python benchmarks/training.py --part precision # bfloat16, and torch.compile with its break-even
    python benchmarks/training.py --full           # MIND-small's size, D 64 and 256, MIND-large

The corpus is made up and has MIND-small's number of items, lengths and popularity
(`of_training/world.py`); 20 thousand impressions of it, or all 157 thousand with --full. Models are
the presets with titles of up to 30 tokens, histories of up to 50 items and 4 negatives. Figures are
processor seconds of one thread (wall-clock seconds in `workers` alone), the least of some rounds in
which both sides take turns. `docs/performance.md` has the tables. --json FILE writes the ratios,
--plot FILE the growth as HTML.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from ratios import add_json, write_ratios

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

PARTS = ("naive", "limit", "growth", "workers", "precision")


def main() -> None:
    """Print the tables that are asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", choices=PARTS, action="append", help="all but workers if none")
    parser.add_argument("--full", action="store_true", help="MIND-small's size and D 256 too")
    add_json(parser)
    parser.add_argument("--plot", type=Path, help="write the growth as an HTML page here")
    parser.add_argument("--folder", help="where temporary files go")
    given = parser.parse_args()
    import torch
    from of_training import growth, limit, naive, precision, workers

    torch.set_num_threads(1)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        for part in given.part or [one for one in PARTS if one != "workers"]:
            print(f"\n## {part}", flush=True)
            if part == "growth":
                found |= growth.run(folder, full=given.full, plot=given.plot)
            else:
                module = {
                    "naive": naive, "limit": limit, "workers": workers, "precision": precision
                }[part]  # fmt: skip
                found |= module.run(folder, full=given.full)
            write_ratios(given.json, found)


if __name__ == "__main__":
    main()
