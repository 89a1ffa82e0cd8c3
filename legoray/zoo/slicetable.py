"""The metrics of slices as a table: for the terminal, and as Markdown.

They stand beside the total in one mapping: `auc`, `auc/cold-item`, `groups/all`,
`groups/cold-item`. A slice that has no numbers has no row.
"""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from legoray.data.schema import SLICES
from legoray.records import Metrics

ALL, GROUPS = "all", "groups"


def totals(metrics: Metrics) -> Metrics:
    """The metrics of all groups, without those of slices."""
    return {name: value for name, value in metrics.items() if "/" not in name}


def slices_in(metrics: Metrics) -> list[str]:
    """The slices that were measured, in their usual order."""
    found = [name.partition("/")[2] for name in metrics if name.startswith(f"{GROUPS}/")]
    known = [*SLICES, *sorted(found)]
    return sorted((name for name in found if name != ALL), key=known.index)


def table_of(metrics: Metrics, group: str = "impression") -> list[list[str]]:
    """Rows of cells: the heads, then all groups, then each slice."""
    names = list(totals(metrics))
    heads = ["slice", f"{group}s", *names]
    whole = [ALL, _count(metrics.get(f"{GROUPS}/{ALL}")), *(_cell(metrics[n]) for n in names)]
    rows = [
        [
            one,
            _count(metrics[f"{GROUPS}/{one}"]),
            *(_cell(metrics.get(f"{name}/{one}")) for name in names),
        ]
        for one in slices_in(metrics)
    ]
    return [heads, whole, *rows]


def to_markdown(metrics: Metrics, group: str = "impression") -> list[str]:
    """The table's lines; none where no slice was measured."""
    if not slices_in(metrics):
        return []
    heads, *rows = table_of(metrics, group)
    lines = [heads, [":--"] + ["--:"] * (len(heads) - 1), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def print_table(
    metrics: Metrics, console: Console, *, title: str = "", group: str = "impression"
) -> None:
    """Print the table; as many metrics as there is room for."""
    heads, *rows = table_of(metrics, group)
    if title:
        console.print(title, style="italic", markup=False, highlight=False, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    widths = [max(len(row[at]) for row in [heads, *rows]) + 2 for at in range(len(heads))]
    shown = max(sum(1 for at in range(len(heads)) if sum(widths[: at + 1]) <= console.width), 3)
    for at, head in enumerate(heads[:shown]):
        table.add_column(head, justify="right" if at else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row[:shown]), style="bold" if row[0] == ALL else "")
        if row[0] == ALL:
            table.add_section()
    console.print(table)


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"
