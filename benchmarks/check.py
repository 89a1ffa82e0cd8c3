"""Runs the benchmarks that floors.yaml names, and compares their ratios with its floors.

    python benchmarks/check.py [--only evaluation training] [--floors benchmarks/floors.yaml]

`make bench` calls it. The exit code is 0 where every ratio holds, 1 where one does not or was not
measured, 2 for a mistake in floors.yaml. Most ratios are of processor seconds, which other work on
the machine moves by a tenth or two; the start of a trial is of wall-clock seconds and wants a quiet
machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pydantic import model_validator

from legoray.config import Strict, build
from legoray.errors import InputError, Problem, nearest, unknown
from legoray.yamlfile import Document, read_yaml

HERE = Path(__file__).parent


class Bound(Strict):
    """What a ratio has to be."""

    least: float | int | None = None
    most: float | int | None = None

    @model_validator(mode="after")
    def _one(self) -> Bound:
        if (self.least is None) == (self.most is None):
            raise ValueError("give either `least` or `most`")
        return self

    def holds(self, value: float) -> bool:
        """Whether a value is within."""
        return (self.least is None or value >= self.least) and (
            self.most is None or value <= self.most
        )

    def __str__(self) -> str:
        return f">= {self.least:g}" if self.least is not None else f"<= {self.most:g}"


class Guarded(Strict):
    """A run of a benchmark and the bounds of its ratios."""

    run: list[str]  # a file beside this one, and its options
    bounds: dict[str, Bound]


class Floors(Strict):
    """The file."""

    benchmarks: dict[str, Guarded]


def read_floors(file: Path) -> Floors:
    """Read and check floors.yaml.

    Raises:
        InputError: the file is not what it should be, or names a benchmark that is not there.
    """
    document: Document = read_yaml(file)
    floors = build(Floors, document.data, document)
    scripts = sorted(path.name for path in HERE.glob("*.py"))
    problems: list[Problem] = [
        unknown(
            "benchmark", one.run[0] if one.run else "", scripts,
            document.where(("benchmarks", name, "run")),
        )
        for name, one in floors.benchmarks.items()
        if not one.run or one.run[0] not in scripts
    ]  # fmt: skip
    if problems:
        raise InputError(*problems)
    return floors


def measure(one: Guarded) -> dict[str, float]:
    """Run a benchmark; its ratios, none where it failed."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        file = Path(folder) / "ratios.json"
        command = [sys.executable, str(HERE / one.run[0]), *one.run[1:], "--json", str(file)]
        done = subprocess.run(command, check=False)
        if done.returncode or not file.exists():
            return {}
        found: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
        return found


def compare(bounds: Mapping[str, Bound], found: Mapping[str, float]) -> list[tuple[str, ...]]:
    """Name, value, bound and verdict of each ratio; the verdict is empty where it holds."""
    rows: list[tuple[str, ...]] = []
    for name, bound in bounds.items():
        if name not in found:
            close = nearest(name, found)
            hint = f"; there is '{close}'" if close else ""
            rows.append((name, "", str(bound), f"not measured{hint}"))
        else:
            verdict = "" if bound.holds(found[name]) else "MISSED"
            rows.append((name, f"{found[name]:.3g}", str(bound), verdict))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--floors", type=Path, default=HERE / "floors.yaml")
    parser.add_argument("--only", nargs="+", default=[], help="of the benchmarks in the file")
    given = parser.parse_args()
    try:
        floors = read_floors(given.floors)
        strange = [name for name in given.only if name not in floors.benchmarks]
        if strange:
            names = sorted(floors.benchmarks)
            raise InputError(*(unknown("benchmark", one, names, "--only") for one in strange))
    except InputError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return 2
    rows: list[tuple[str, ...]] = []
    for name, one in floors.benchmarks.items():
        if not given.only or name in given.only:
            print(f"\n== {name}: {' '.join(one.run)}", flush=True)
            rows += compare(one.bounds, measure(one))
    print(f"\n{'ratio':<44}{'measured':>10}  {'floor':<10}")
    for row in rows:
        print(f"{row[0]:<44}{row[1]:>10}  {row[2]:<10}{row[3]}")
    missed = sum(bool(row[3]) for row in rows)
    print(f"{len(rows) - missed} of {len(rows)} hold")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
