"""Leaderboards as text: a table for the terminal, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import asdict, dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from legoray.objectives import COSTS, UNITS, value_text
from legoray.zoo.board import Board, Row

REASONS = 3  # failures whose reason is told below a board
SHOWN = ("parameters", "memory")  # costs that have a column in any case
MEMBER = "*"  # of the Pareto front
SETTINGS = 26  # characters that the column of settings has at least
ALWAYS, TIES, TRIAL, SECONDS, STATUS, SIZE, CHOSEN, MORE, MEMORY = range(
    9
)  # what gives way, last first


@dataclass(frozen=True)
class Column:
    """One column of a board as text."""

    name: str
    cells: list[str]
    priority: int = ALWAYS  # columns with the highest give way first where there is no room
    right: bool = True

    def width(self) -> int:
        """How many characters it takes in a terminal, the gap to the next one included."""
        head = max(len(word) for word in self.name.split(" "))
        longest = max((len(cell) for cell in self.cells), default=0)
        return max(head, min(longest, SETTINGS) if self.priority == CHOSEN else longest) + 2


def heading(board: Board) -> str:
    """Which data, and how the order was found."""
    told = not board.synthetic or "synthetic" in board.title.lower()
    kind = "" if told else " (synthetic data)"
    return f"{board.title}{kind}, ranked by validation {board.select}"


def protocol_line(board: Board) -> str:
    """The protocol in one line."""
    terms = "; ".join(f"{name}: {value}" for name, value in board.protocol.items())
    return f"data {board.data}, fingerprint {board.fingerprint[:12]}; {terms}"


def print_board(board: Board, console: Console, top: int) -> None:
    """Print one board as a table that fits the terminal."""
    rows = [*board.rows[:top], *board.baselines]
    shown = _fitting(_columns(board, rows), console.width)
    title = Text(heading(board), style="italic")
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    for column in shown:
        table.add_column(
            column.name.replace(" ", "\n"),
            justify="right" if column.right else "left",
            no_wrap=column.priority != CHOSEN,
            overflow="fold",
        )
    for index, row in enumerate(rows):
        if index == len(board.rows[:top]):
            table.add_section()
        table.add_row(*(Text(column.cells[index]) for column in shown), style=_style(row))
    console.print(table)
    for line in _footer(board, top):
        console.print(line, style="dim", markup=False, soft_wrap=True)
    console.print()


def to_markdown(boards: list[Board], top: int) -> str:
    """All boards as Markdown, every metric shown."""
    parts = []
    for board in boards:
        rows = [*board.rows[:top], *board.baselines]
        columns = _columns(board, rows)
        lines = [f"### {heading(board)}", "", _pipe([column.name for column in columns])]
        lines.append(_pipe(["--:" if column.right else ":--" for column in columns]))
        lines += [_pipe([column.cells[i] for column in columns]) for i in range(len(rows))]
        parts.append("\n".join([*lines, "", *(f"- {line}" for line in _footer(board, top))]))
    return "\n\n".join(parts) + "\n"


def to_csv(boards: list[Board], top: int) -> str:
    """All boards as one CSV table; data, fingerprint and protocol stand in every row."""
    records = [
        {
            "data": board.data,
            "synthetic": board.synthetic,
            "fingerprint": board.fingerprint,
            "protocol": json.dumps(board.protocol, sort_keys=True),
            "select": board.select,
            "rank": row.rank,
            "model": row.label,
            "settings": row.settings,
            "sweep": row.sweep,
            "trial": row.trial,
            "status": row.status,
            **{f"valid {name}": value for name, value in row.valid.items()},
            **{f"test {name}": spread.mean for name, spread in row.test.items()},
            **{f"test {name} std": spread.std for name, spread in row.test.items()},
            "seeds": max((spread.seeds for spread in row.test.values()), default=0),
            **row.costs,
            **({"pareto": row.pareto} if board.objectives else {}),
            **({"ties": row.ties} if row.ties else {}),
        }
        for board in boards
        for row in [*board.rows[:top], *board.baselines]
    ]
    text = io.StringIO()
    names = list(dict.fromkeys(name for record in records for name in record))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def to_json(boards: list[Board], top: int) -> str:
    """All boards as JSON."""
    content = [asdict(board) | {"rows": [asdict(r) for r in board.rows[:top]]} for board in boards]
    return json.dumps(content, indent=1) + "\n"


def _columns(board: Board, rows: list[Row]) -> list[Column]:
    """All columns of a board; those that would be empty are left out."""
    metrics = [
        Column(
            f"{split} {name}",
            [_number(r.valid.get(name)) if split == "valid" else _spread(r, name) for r in rows],
            ALWAYS if name == board.select else MORE + rank,
        )
        for split in ("valid", "test")
        for rank, name in enumerate(board.metrics)
    ]
    columns = [
        Column("#", ["" if r.rank is None else str(r.rank) for r in rows]),
        Column("model", [r.label for r in rows], right=False),
        Column("settings", [r.settings for r in rows], CHOSEN, right=False),
        *metrics,
        Column("ties", [row.ties for row in rows], TIES, right=False),
        *_objective_columns(board, rows),
        Column("seconds", [_seconds(r) for r in rows], SECONDS),
        Column("parameters (trained)", [_size(r) for r in rows], _less(board, "parameters", SIZE)),
        Column(
            "MB",
            [count_text(r.costs.get("memory_mb")) for r in rows],
            _less(board, "memory", MEMORY),
        ),
        Column("trial", ["" if r.baseline else str(r.trial) for r in rows], TRIAL),
        Column("status", ["baseline" if r.baseline else r.status for r in rows], STATUS, False),
    ]
    return [column for column in columns if any(column.cells)]


def _less(board: Board, name: str, priority: int) -> int:
    """The priority of a cost's column, which stays where the cost is an objective."""
    return ALWAYS if any(one.name == name for one in board.objectives) else priority


def _objective_columns(board: Board, rows: list[Row]) -> list[Column]:
    """The costs that a search had as objectives, and which models are on its Pareto front."""
    if not board.objectives:
        return []
    costs = [one for one in board.objectives if one.name in COSTS and one.name not in SHOWN]
    columns = [
        Column(one.name, [value_text(one.name, one.value({}, row.costs)) for row in rows])
        for one in costs
    ]
    return [*columns, Column("front", [MEMBER if row.pareto else "" for row in rows])]


def _fitting(columns: list[Column], width: int) -> list[Column]:
    """The columns that a terminal has room for: the least important ones give way."""
    shown = list(columns)
    while sum(column.width() for column in shown) > width:
        least = max(shown, key=lambda column: column.priority)
        if least.priority == ALWAYS:
            break
        shown.remove(least)
    return shown


def _footer(board: Board, top: int) -> list[str]:
    lines = [protocol_line(board)]
    failed = [row for row in board.rows[:top] if row.status in ("failed", "infeasible")]
    for row in failed[:REASONS][::-1]:
        lines.insert(0, f"trial {row.trial} {row.status}: {row.reason}")
    hidden = Counter(row.status for row in board.rows[top:])
    if hidden:
        told = ", ".join(f"{count} {status}" for status, count in hidden.items())
        lines.insert(0, f"not shown: {told}")
    if any(row.rank and row.status == "pruned" for row in board.rows[:top]):
        lines.insert(0, "pruned: stopped early; these stand below what ran to its end")
    if board.objectives:
        names = [one.name for one in board.objectives]
        named = (f"{name} in {UNITS[name]}" if name in UNITS else name for name in names)
        lines.insert(0, f"{MEMBER} on the Pareto front of {', '.join(named)}")
    seeds = {s.seeds for row in board.rows for s in row.test.values()}
    if seeds:
        spread = f"mean ± standard deviation over {_either(seeds)} seeds"
        lines.insert(0, f"test: {'one seed' if seeds == {1} else spread}")
    if any(row.ties for row in [*board.rows, *board.baselines]):
        lines.insert(0, f"ties: rows that share a letter are a tie in test {board.select}")
    return lines


def _either(numbers: set[int]) -> str:
    return " or ".join(str(number) for number in sorted(numbers))


def _style(row: Row) -> str:
    if row.rank == 1:
        return "bold"
    return "" if row.rank else "dim"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _spread(row: Row, metric: str) -> str:
    spread = row.test.get(metric)
    if spread is None:
        return ""
    return _number(spread.mean) + ("" if spread.std is None else f" ± {spread.std:.4f}")


def _seconds(row: Row) -> str:
    seconds = row.costs.get("seconds")
    return "" if seconds is None else f"{seconds:.1f}"


def _size(row: Row) -> str:
    """Parameters, and how many of them are trained where some are frozen."""
    total, trained = row.costs.get("parameters"), row.costs.get("trainable")
    if trained is None or trained == total:
        return count_text(total)
    return f"{count_text(total)} ({count_text(trained)})"


def count_text(value: float | None) -> str:
    """12345678 as `12.3M`."""
    if value is None:
        return ""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if value >= size:
            size = min(size, 1e3) if unit == "k" else size
            return f"{value / size:.1f}{unit}"
    return f"{value:,.0f}"


def _pipe(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
