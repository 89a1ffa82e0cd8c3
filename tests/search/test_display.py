"""What a person reads of a search: in a log file, and in narrow terminals."""

from __future__ import annotations

import io
import re
import time

import pytest
from made_sweeps import baseline, on_disk, sweep_info, trial
from rich.console import Console

from legoray.records import read_trials
from legoray.search import display
from legoray.search.closing import closing
from legoray.search.display import Board
from legoray.search.phases import Goal
from legoray.search.sweep import Sweep

GOAL = Goal("auc", "max")


@pytest.fixture
def sweep(tmp_path):
    finals = [
        trial(9 + n, phase="final", seed=8 + n % 3, label="cnn+attention+dot", auc=0.6, rate=rate,
              test={"auc": 0.61, "mrr": 0.3, "auc/cold-item": 0.5, "auc/short-history": 0.4,
                    "auc/tail-item": 0.3, "groups/all": 90.0, "groups/cold-item": 7.0,
                    "groups/short-history": 8.0, "groups/tail-item": 9.0})
        for rate in (0.1, 0.2) for n in range(3)
    ]  # fmt: skip
    finals = [f.model_copy(update={"number": 9 + n, "key": f"f{n}"}) for n, f in enumerate(finals)]
    statuses = ["completed", "pruned", "failed", "infeasible", "completed", "running", "running"]
    found = [trial(n, status=s, reason="out of luck" * 40) for n, s in enumerate(statuses)]
    info = sweep_info(state="interrupted")
    on_disk(tmp_path, info, *found, *finals, baseline(20, "popularity"))
    return Sweep(tmp_path, info)


def board(sweep, console):
    return Board(console, sweep, goal=GOAL, trials=9, finals=6, slots=2)


def test_a_log_has_one_plain_line_per_event(sweep):
    text = io.StringIO()
    shown = board(sweep, Console(file=text, width=120))
    running = sweep.records[5]
    shown.watch(running)
    assert text.getvalue() == ""
    done = running.model_copy(update={"status": "completed"})
    shown.watch(done)
    shown.watch(done)
    line = r"trial   5 .* completed after 3 epochs  auc 0\.6000(  [\d.]+ \w+)?\n"
    assert re.fullmatch(line, text.getvalue())


def test_a_log_says_how_far_it_is_when_something_has_happened(sweep, monkeypatch):
    monkeypatch.setattr(display, "MINUTE", 0.05)
    text = io.StringIO()
    shown = board(sweep, Console(file=text, width=120))
    with shown.live():
        end = time.monotonic() + 30
        while not text.getvalue() and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.5)
        assert len(text.getvalue().splitlines()) == 1  # nothing has happened since
        sweep.records[5] = sweep.records[5].model_copy(update={"status": "completed"})
        while len(text.getvalue().splitlines()) < 2 and time.monotonic() < end:
            time.sleep(0.02)
    first, second = text.getvalue().splitlines()
    assert re.match(r"\d\d:\d\d  5 of 9 trials done · 2 running · 1 stopped early", first)
    assert re.match(r"\d\d:\d\d  6 of 9 trials done · 1 running", second)
    assert "best so far: auc 0.6000" in first
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text.getvalue())  # no control characters


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_board_fits_a_narrow_terminal(sweep, width):
    text = io.StringIO()
    console = Console(file=text, width=width, force_terminal=True, color_system=None)
    console.print(board(sweep, console).render())
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    running = [line for line in lines if line.startswith("trial ")]
    assert len(running) == 2
    assert all("epoch 3 of 3" in line and "auc 0.6000" in line for line in running)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_closing_tables_fit_a_narrow_terminal(sweep, width):
    text = io.StringIO()
    console = Console(file=text, width=width, highlight=False)
    closing(console, sweep, goal=GOAL, again="python run_search.py x.yaml", links=["mlflow ui"],
            how="Stopped softly.")  # fmt: skip
    told = text.getvalue()
    tables = [line for line in told.splitlines() if line[:1] in "┃│┏└"]
    assert max(map(len, tables)) <= width
    assert "…" not in told
    for words in ("0.6100 ± 0.0000", "cold-item", "short-history", "tail-item", "0.4000",
                  "to go on: python run_search.py x.yaml", "Stopped softly."):  # fmt: skip
        assert words in told


def test_records_on_disk_are_what_is_shown(sweep):
    assert len(read_trials(sweep.folder)) == len(sweep.records) == 14
