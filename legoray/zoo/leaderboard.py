"""`legoray leaderboard`: what was measured, from a sweep's folder or from MLflow."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from legoray.errors import InputError, Problem, unknown
from legoray.records import SweepInfo, read_json, read_trials
from legoray.storage import remote
from legoray.storage.address import Address, is_address, parse
from legoray.zoo import boardtext, fields, paper
from legoray.zoo.board import Board, Entry, entry_of_record, entry_of_run, make_boards
from legoray.zoo.comparison import read_comparison
from legoray.zoo.store import DEFAULT_URI, all_runs, open_zoo

_ASIDE = re.compile(r"-\d{8}-\d{6}-[0-9a-f]{4}$")  # of a sweep that was set aside
FORMS = ("table", "markdown", "csv", "json", "paper", "paper-markdown")


def leaderboard(source: str | Path | None = None, *, tracking: str = DEFAULT_URI) -> list[Board]:
    """The boards of a sweep's folder, of an MLflow experiment, or of all experiments.

    Args:
        source: a folder or an address with a `sweep.json`, an experiment's name, or None for all.
        tracking: MLflow's address, for everything but a folder.

    Returns:
        One board per data set and protocol, the one with most rows first.

    Raises:
        InputError: no such folder, experiment or store, or there is nothing in it.
    """
    if source is not None and is_address(source):
        with _records_at(parse(str(source), "the sweep")) as fetched:
            return leaderboard(fetched, tracking=tracking)
    folder = Path(source) if source is not None else None
    if folder is not None and folder.is_dir():
        entries = _of_folder(folder)
    else:
        entries = _of_mlflow(None if source is None else str(source), tracking)
    if not entries:
        raise InputError(Problem(str(source or tracking), "no trials are recorded here yet"))
    return sorted(make_boards(entries), key=lambda board: -len(board.rows))


@contextmanager
def _records_at(address: Address) -> Iterator[Path]:
    """The records of a sweep at an address, fetched; whoever runs it is not disturbed.

    Raises:
        InputError: there is no sweep, or the service refuses.
    """
    with tempfile.TemporaryDirectory(prefix="legoray-sweep-") as temporary:
        if not remote.download(address / "sweep.json", Path(temporary) / "sweep.json"):
            raise InputError(Problem(str(address), "there is no sweep here"))
        for name in remote.listing(address / "trials"):
            remote.download(address / "trials" / name, Path(temporary) / "trials" / name)
        yield Path(temporary)


def print_leaderboard(
    source: str | Path | None = None,
    *,
    tracking: str = DEFAULT_URI,
    top: int = 20,
    form: str = "table",
    console: Console | None = None,
) -> None:
    """Print the boards as a table, Markdown, CSV or JSON, or in the form of the paper's tables.

    Raises:
        InputError: as `leaderboard`, or there is no such form.
    """
    if form not in FORMS:
        raise InputError(unknown("format", form, FORMS, "--format"))
    boards = leaderboard(source, tracking=tracking)
    if form == "table":
        for board in boards:
            boardtext.print_board(board, console or Console(highlight=False), top)
        return
    if form == "paper":
        for board in boards:
            paper.print_paper(board, console or Console(highlight=False))
        return
    text = {
        "paper-markdown": lambda boards, top: "\n".join(map(paper.to_markdown, boards)),
        "markdown": boardtext.to_markdown,
        "csv": boardtext.to_csv,
        "json": boardtext.to_json,
    }[form](boards, top)
    (console.file if console else sys.stdout).write(text)


def _of_folder(folder: Path) -> list[Entry]:
    """The trials of a sweep, or of the sweeps on several data sets that lie below a folder."""
    if not (folder / "sweep.json").exists():
        below = sorted(path.parent for path in folder.glob("*/sweep.json"))
        own = [one for one in below if not _ASIDE.search(one.name)]
        if own:
            return [entry for one in own for entry in _of_folder(one)]
    sweep = read_json(folder / "sweep.json", SweepInfo)
    compared = read_comparison(folder)
    letters = {} if compared is None else {one.key: one.letters for one in compared.compared}
    entries = (entry_of_record(record, sweep) for record in read_trials(folder))
    return [
        replace(entry, ties=letters.get(entry.config, ""))
        if entry.phase in ("final", "baseline")
        else entry
        for entry in entries
    ]


def _of_mlflow(name: str | None, tracking: str) -> list[Entry]:
    client = open_zoo(tracking)
    experiments = {e.name: str(e.experiment_id) for e in client.search_experiments()}
    if name is not None and name not in experiments:
        problem = unknown("experiment or sweep folder", name, list(experiments), tracking)
        raise InputError(problem)
    wanted = list(experiments.values()) if name is None else [experiments[name]]
    runs = all_runs(client, wanted, f"tags.`{fields.KIND}` = 'trial'")
    return [entry_of_run(run.data.tags, run.data.metrics) for run in runs]
