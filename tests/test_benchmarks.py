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


FLOORS = """\
benchmarks:
  metrics:
    run: [evaluation.py, --part, metrics, --scale, "0.002"]
    bounds: {{evaluation/metrics/difference: {{{word}: {value}}}, {other}}}
"""


@pytest.mark.parametrize(
    ("word", "value", "other", "code", "said"),
    [
        ("most", "1.0e-9", "evaluation/metrics/x-loop: {least: 0}", 0, "2 of 2 hold"),
        ("least", "1", "evaluation/metrics/x-loop: {least: 0}", 1, "MISSED"),
        ("most", "1", "evaluation/metrics/loop: {least: 0}", 1, "'evaluation/metrics/x-loop'"),
        ("mst", "1", "evaluation/metrics/x-loop: {least: 0}", 2, "did you mean 'most'?"),
        ("most", "1", "evaluation/metrics/x-loop: {}", 2, "give either `least` or `most`"),
    ],
)
def test_ratios_are_held_against_their_floors(tmp_path, word, value, other, code, said):
    file = tmp_path / "floors.yaml"
    file.write_text(FLOORS.format(word=word, value=value, other=other))
    command = [sys.executable, str(FILES[0].with_name("check.py")), "--floors", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stdout + done.stderr


def test_the_floors_that_are_shipped_can_be_read():
    command = [sys.executable, str(FILES[0].with_name("check.py")), "--only", "nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no benchmark 'nonsense'" in done.stderr
