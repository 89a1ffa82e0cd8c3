"""The Pareto front in the closing lines: its models, their objectives, and where they are."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from legoray.objectives import UNITS, objectives_of, value_text, values_of
from legoray.records import TrialRecord
from legoray.search.display import settings
from legoray.search.pareto import comparable, front, knee
from legoray.search.sweep import Sweep

MOST_ROWS = 15
COMPROMISE = "◆"  # marks the compromise


def print_front(console: Console, sweep: Sweep) -> None:
    """Print the front of a sweep with several objectives; nothing for one objective."""
    objectives = objectives_of(sweep.info.objectives, sweep.info.select)
    whole = comparable(sweep.of("search"), objectives)
    if len(objectives) < 2 or not whole:
        return

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    members = front(whole, objectives)
    if not members:
        limits = ", ".join(f"{o.name} {o.limit:g}" for o in objectives if o.limit is not None)
        say(f"No trial is within every limit ({limits}): there is no Pareto front.")
        return
    told = "that no other beats in every objective at once"
    say(f"Pareto front: {_count(len(members))} of {len(whole)} {told}:")
    table = Table()
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("model", overflow="fold")
    for one in objectives:
        unit = f"\n{UNITS[one.name]}" if one.name in UNITS else ""
        table.add_column(f"{one.name}{unit}", justify="right")
    middle = knee(members, objectives)
    for record in members[:MOST_ROWS]:
        values = values_of(objectives, record.best, record.costs)
        mark = f" {COMPROMISE}" if record is middle and len(members) > 2 else ""
        cells = [value_text(one.name, values[one.name]) for one in objectives]
        table.add_row(str(record.number), _name(record) + mark, *cells)
    console.print(table)
    if len(members) > MOST_ROWS:
        say(f"and {len(members) - MOST_ROWS} more: legoray leaderboard has all of them")
    if len(members) > 2:
        say(f"{COMPROMISE} compromise: nearest to the best of every objective at once")


def _count(number: int) -> str:
    return "one model" if number == 1 else f"{number} models"


def _name(record: TrialRecord) -> str:
    chosen = settings(record, most=4)
    return f"{record.label}\n{chosen}" if chosen else record.label
