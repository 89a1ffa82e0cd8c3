"""The benchmarks start: what they import and call is still there (types are checked besides)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_a_benchmark_says_what_it_does(file):
    done = subprocess.run(
        [sys.executable, str(file), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "usage:" in done.stdout


def test_the_evaluation_benchmark_runs_on_a_small_share():
    file = str(FILES[0].with_name("evaluation.py"))
    done = subprocess.run(
        [sys.executable, file, "--scale", "0.005"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "cached, metrics included" in done.stdout
