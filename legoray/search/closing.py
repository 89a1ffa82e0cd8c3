"""The last lines of a search: why it ended, what won, and the commands to look further."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from legoray.records import Metrics, TrialRecord
from legoray.search.display import NAMES, settings
from legoray.search.finals import Summary, ranked, summaries, winner
from legoray.search.fronttable import print_front
from legoray.search.phases import Goal
from legoray.search.reuse import taken_line
from legoray.search.sweep import ENDED, Sweep, data_title
from legoray.storage.address import address_of, portable
from legoray.zoo.comparison import read_comparison
from legoray.zoo.slicetable import GROUPS, slices_in, totals
from legoray.zoo.verdicts import print_comparison

NAME = 24  # columns of a terminal that a model's name has at least, before it is folded
WHY = {
    "trials": "all trials are done",
    "epochs": "its epochs are trained",
    "hours": "its time is up",
    "exhausted": "every configuration of the space has been tried",
}


def closing(
    console: Console,
    sweep: Sweep,
    *,
    goal: Goal,
    again: str,
    links: list[str],
    registry: str = "",
    note: str = "",
    how: str = "",
) -> None:
    """Print them.

    Args:
        console: where to.
        sweep: the sweep that has ended or was interrupted.
        goal: what it was searched by.
        again: the command that goes on with it.
        links: commands and addresses of the tracking store.
        registry: what became of the registry's champion.
        note: a last remark, such as a tracking problem.
        how: what an interruption has cost.
    """

    def say(text: str = "") -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    say()
    say(why(sweep))
    say(how) if how else None
    if taken_line(sweep):
        say(taken_line(sweep))
    best = next(iter(ranked(sweep.of("search"), goal.select, goal.mode)), None)
    if best is not None:
        say(f"best on validation: {best.label} (trial {best.number}), {_value(best, goal)}")
        chosen = settings(best, most=20)
        say(f"  {chosen}") if chosen else None
    print_front(console, sweep)
    if _named(sweep):
        _print_paper(console, sweep)
    elif sweep.of("final", "baseline"):
        _print_test(console, sweep, goal)
    compared = read_comparison(sweep.folder)
    if compared is not None and sweep.info.state == "finished":
        print_comparison(console, compared)
    if registry:
        say(registry)
    if sweep.info.state != "finished":
        say(f"to go on: {again}")
    if sweep.records:
        for line in commands(sweep, goal, links):
            say(line)
    if note:
        say(note)


def why(sweep: Sweep) -> str:
    """Why the search ended, and how its trials did."""
    count: Counter[str] = Counter(r.status for r in sweep.of("search"))
    kinds = ", ".join(f"{count[s]} {NAMES[s]}" for s in (*ENDED, "interrupted") if count[s])
    if sweep.info.state == "finished":
        reason = WHY.get(sweep.info.ended, "it is done")
        return f"The search '{sweep.info.name}' has ended: {reason} ({kinds or 'no trial'})."
    return f"The search '{sweep.info.name}' was interrupted ({kinds or 'no trial yet'})."


def _value(record: TrialRecord, goal: Goal) -> str:
    return f"{goal.select} {record.best[goal.select]:.4f}"


def _named(sweep: Sweep) -> bool:
    """Whether final trainings are of named models."""
    return any(r.config.get("model", {}).get("preset") for r in sweep.of("final"))


def _print_paper(console: Console, sweep: Sweep) -> None:
    """The table of named models in the form of the paper's."""
    from legoray.zoo.board import entry_of_record, make_boards
    from legoray.zoo.paper import paper_lines, print_paper

    records = [r for _, r in sorted(sweep.records.items())]
    for board in make_boards(entry_of_record(record, sweep.info) for record in records):
        if paper_lines(board):
            print_paper(board, console)


def _print_test(console: Console, sweep: Sweep, goal: Goal) -> None:
    """The table of the test split: final models, then baselines."""
    rows = sorted(
        summaries(sweep, goal.select),
        key=lambda s: -s.valid if goal.mode == "max" else s.valid,
    )
    baselines = [r for r in sweep.of("baseline") if r.status == "completed"]
    every = {m for s in rows for m in s.mean} | {m for b in baselines for m in b.test}
    names = sorted(totals(dict.fromkeys(every, 0.0)))
    if not names:
        console.print("The test split has no labels: nothing was measured on it.", highlight=False)
        return
    rows = told_apart(rows)
    title = f"test split of {data_title(sweep.info)}, mean ± standard deviation over seeds:"
    console.print(title, highlight=False, markup=False)
    table = Table()
    table.add_column("model", overflow="fold")
    table.add_column("seeds", justify="right", no_wrap=True)
    ordered = sorted(names, key=lambda n: (n != goal.select, n))
    names = ordered[: _columns_that_fit(console.width, rows)]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for summary in rows:
        table.add_row(Text(summary.label), str(summary.seeds), *(_cell(summary, n) for n in names))
    for record in baselines:
        values = (f"{record.test[n]:.4f}" if n in record.test else "" for n in names)
        table.add_row(record.label, "", *values, style="dim")
    console.print(table)
    measured = [(row.label, row.mean, "") for row in rows]
    measured += [(record.label, record.test, "dim") for record in baselines]
    _print_slices(console, measured, goal)


def _print_slices(console: Console, measured: list[tuple[str, Metrics, str]], goal: Goal) -> None:
    """The selecting metric on each slice of the test split: a row per model, a column per slice.

    Args:
        console: where to.
        measured: label, metrics and style of each row.
        goal: whose metric is shown.
    """
    groups: Metrics = {}
    for _, metrics, _ in measured:
        groups |= {k: v for k, v in metrics.items() if k.startswith(f"{GROUPS}/")}
    slices = slices_in(groups)
    if not slices:
        return
    console.print(f"{goal.select} by slice:", highlight=False, markup=False)
    names = min(max(len(label) for label, _, _ in measured), NAME) + 4
    fitting = max((console.width - names) // (max(map(len, slices)) + 3), 1)
    for start in range(0, len(slices), fitting):  # as many tables as the width asks for
        console.print(_slice_table(measured, slices[start : start + fitting], groups, goal))


def _slice_table(
    measured: list[tuple[str, Metrics, str]], slices: list[str], groups: Metrics, goal: Goal
) -> Table:
    table = Table()
    table.add_column("model", overflow="fold")
    for one in slices:
        count = f"{groups[f'{GROUPS}/{one}']:,.0f}"
        table.add_column(f"{one}\n{count}", justify="right", no_wrap=True)
    for label, metrics, style in measured:
        values = [metrics.get(f"{goal.select}/{one}") for one in slices]
        cells = ("" if value is None else f"{value:.4f}" for value in values)
        table.add_row(Text(label), *cells, style=style)
    return table


def told_apart(rows: list[Summary]) -> list[Summary]:
    """The same, where labels repeat with what differs among the choices of these rows."""
    from legoray.zoo.board import settings_text

    told = []
    for row in rows:
        alike = [other.chosen for other in rows if other.label == row.label]
        own = {k: v for k, v in row.chosen.items() if any(c.get(k) != v for c in alike)}
        told.append(replace(row, label=f"{row.label} {settings_text(own)}") if own else row)
    return told


def _columns_that_fit(width: int, rows: list[Summary]) -> int:
    """How many metrics a line holds beside the model's name; the leaderboard has all of them."""
    name = min(max([len(row.label) for row in rows] + [len("popularity")]), NAME)
    return max((width - name - 12) // 18, 1)


def _cell(summary: Summary, name: str) -> str:
    if name not in summary.mean:
        return ""
    spread = f" ± {summary.std[name]:.4f}" if summary.seeds > 1 else ""
    return f"{summary.mean[name]:.4f}{spread}"


def commands(sweep: Sweep, goal: Goal, links: list[str]) -> list[str]:
    """The commands that look further."""
    lines = ["To look further:", *(f"  {link}" for link in links)]
    page = sweep.folder / "report.html"
    lines += [f"  {shown(page)}"] if page.exists() else []
    lines.append(f"  legoray leaderboard {shown(sweep.folder)}")
    if _named(sweep):
        lines.append(f"  legoray leaderboard {shown(sweep.folder)} --format paper")
    best = winner(sweep, goal.select, goal.mode)
    if best is not None:
        lines += recommending(sweep.model_folder(best.key) / "best")
    return lines


def recommending(folder: Path) -> list[str]:
    """The command that recommends by a model, where it reads text at all."""
    from legoray.zoo.scorer import scores_texts

    if not scores_texts(folder):
        return []
    text = "--candidates new_titles.txt --history 'a title that was read'"
    return [f"  legoray recommend {shown(folder)} {text}"]


def shown(path: Path) -> str:
    """A path as short as it can be said from here, or the address that it mirrors."""
    if address_of(path) is not None or not path.is_relative_to(Path.cwd()):
        return portable(path)
    return str(path.relative_to(Path.cwd()))
