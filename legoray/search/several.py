"""One space on several data sets, one after another: `data: [a.yaml, b.yaml]`.

Numbers of unlike data never compete: each data set has a sweep of its own, with the whole budget,
in `<folder>/<data set's name>/`. The command goes on where it was, whichever of them that is, and
ends with one table of all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.table import Table

from legoray.config import home
from legoray.data.prepare import Prepared, prepare
from legoray.errors import InputError, Problem
from legoray.records import SweepInfo, TrialRecord, read_json
from legoray.search.finals import Summary, ranked, summaries
from legoray.search.samplers import sampler_notes
from legoray.search.space import Space
from legoray.search.start_from import start_notes
from legoray.search.sweep import Sweep, data_title
from legoray.train.metrics import direction

Say = Callable[[str], None]
INFO = "sweep.json"


class Open(Protocol):
    """Opens the sweep of one data set in a folder."""

    def __call__(
        self, space: Space, ready: Prepared, where: Path, fresh: bool = False
    ) -> Sweep: ...


class SearchOne(Protocol):
    """Searches in an open sweep and closes it; returns the exit code."""

    def __call__(
        self, sweep: Sweep, space: Space, ready: Prepared, checked: bool = False
    ) -> int: ...


def prepare_all(spaces: Sequence[Space], say: Say) -> list[Prepared]:
    """The tables of all data sets, before any of them is searched.

    Raises:
        InputError: with what is wrong with any of them.
    """
    found: list[Prepared] = []
    problems: list[Problem] = []
    for space in spaces:
        try:
            found.append(prepare(space.dataset, say=say))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(*problems)
    return found


def check_all(spaces: Sequence[Space], prepared: Sequence[Prepared], say: Say) -> None:
    """Build the corners of a space on each data set, and run a batch of each.

    Raises:
        InputError: with what goes wrong on any of them.
    """
    from legoray.data.load import load_corpus
    from legoray.search.check import check_space

    problems: list[Problem] = []
    for space, ready in zip(spaces, prepared, strict=True):
        if space.several:
            say(f"on {ready.manifest.title or ready.manifest.name}:")
        for note in [*start_notes(space, ready.manifest.generated), *sampler_notes(space)]:
            say(note)
        corpus = load_corpus(ready.tables)
        problems += check_space(space, corpus, ready.tables, home(), say)
    if problems:
        raise InputError(*dict.fromkeys(problems))


def refuse_one(place: Path) -> None:
    """See that a folder for the sweeps of several data sets is not itself a sweep.

    Raises:
        InputError: it is one.
    """
    if (place / INFO).exists():
        message = "holds a sweep on one data set"
        raise InputError(Problem(str(place), message, "take another --folder"))


def refuse_several(place: Path) -> None:
    """See that a folder for one sweep does not hold those of several data sets.

    Raises:
        InputError: it does.
    """
    below = next(place.glob(f"*/{INFO}"), None)
    if below is not None and not (place / INFO).exists():
        message = f"holds sweeps on several data sets, such as {below.parent.name}"
        raise InputError(Problem(str(place), message, "take another --folder"))


def search_all(
    spaces: Sequence[Space],
    prepared: Sequence[Prepared],
    places: Sequence[Path],
    opened: Open,
    search: SearchOne,
    *,
    fresh: bool,
    console: Console,
) -> int:
    """Search each data set in turn, or go on with it.

    Args:
        spaces: the same space on each data set.
        prepared: their tables.
        places: folders of their sweeps.
        opened: opens one of them.
        search: searches one of them.
        fresh: set earlier sweeps aside, all of them before the first is searched.
        console: where to print.

    Returns:
        The exit code: 0 done, 1 nothing could be trained on some data set, 130 interrupted.

    Raises:
        InputError: a mistake of the user's.
    """
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    trio = list(zip(spaces, prepared, places, strict=True))
    for space, ready, place in trio if fresh else ():
        opened(space, ready, place, True).close()
    new = [n for n, place in enumerate(places) if not (place / INFO).exists()]
    check_all([spaces[n] for n in new], [prepared[n] for n in new], say)
    codes = []
    for number, (space, ready, place) in enumerate(trio):
        title = ready.manifest.title or ready.manifest.name
        say(f"data set {number + 1} of {len(spaces)}: {title}")
        codes.append(search(opened(space, ready, place), space, ready, number in new))
        if codes[-1] not in (0, 1):
            break
    print_summary(console, places, [space.config.evaluate.select for space in spaces])
    say(f"  legoray leaderboard {_shown(places[0].parent)}")
    return max(codes)


def print_summary(console: Console, places: Sequence[Path], selects: Sequence[str]) -> None:
    """A row for each data set: its winner, chosen by validation, and what the test measured."""
    pairs = zip(places, selects, strict=True)
    rows = [(place, select, _winner(place, select)) for place, select in pairs]
    found = [best for _, _, best in rows if best is not None]
    names = sorted({*selects} | {n for best in found for n in best.mean if "/" not in n})
    names = sorted(names, key=lambda name: (name not in selects, name))[: _fitting(console, rows)]
    console.print()
    table = Table(title="each data set's winner on its own test split", title_justify="left")
    table.add_column("data set")
    table.add_column("winner", no_wrap=True)
    table.add_column("seeds", justify="right")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for place, select, best in rows:
        table.add_row(*_row(place, select, best, names))
    console.print(table)


def _row(place: Path, select: str, best: Summary | None, names: list[str]) -> list[str]:
    if not (place / INFO).exists():
        return [place.name, "not searched yet"]
    sweep = Sweep(place, read_json(place / INFO, SweepInfo))
    title = data_title(sweep.info)
    if best is None:
        first = next(iter(ranked(sweep.of("search"), select, direction(select))), None)
        if first is None:
            return [title, "none yet"]
        return [title, f"{first.label}, so far", "", *_validated(first, select, names)]
    cells = [
        f"{best.mean[n]:.4f}" + (f" ± {best.std[n]:.4f}" if best.seeds > 1 else "")
        if n in best.mean
        else ""
        for n in names
    ]
    return [title, best.label, str(best.seeds), *cells]


def _validated(record: TrialRecord, select: str, names: list[str]) -> list[str]:
    """What is known of a trial that was not trained anew: its validation."""
    return [f"{record.best[select]:.4f} (validation)" if n == select else "" for n in names]


def _winner(place: Path, select: str) -> Summary | None:
    """The configuration with the best mean of validation over its final trainings."""
    if not (place / INFO).exists():
        return None
    sweep = Sweep(place, read_json(place / INFO, SweepInfo))
    sign = 1.0 if direction(select) == "max" else -1.0
    return max(summaries(sweep, select), key=lambda s: sign * s.valid, default=None)


def _fitting(console: Console, rows: Sequence[tuple[Path, str, Summary | None]]) -> int:
    """How many metrics a line holds beside the names."""
    wide = max(len(place.name) + len(best.label if best else "") for place, _, best in rows)
    return max((console.width - wide - 24) // 18, 1)


def _shown(path: Path) -> str:
    try:
        return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
    except ValueError:
        return str(path)
