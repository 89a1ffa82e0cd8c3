"""Results in the form of the paper's tables: named models by data, parts and percent.

    data | model | content | behavior | predictor | AUC | MRR | nDCG@5

The numbers are those of the test split, mean and standard deviation over seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from legoray.errors import InputError, Problem
from legoray.model.presets import AUGMENTED, names, preset
from legoray.zoo import fields
from legoray.zoo.board import Board, Row, Spread

METRICS = {"auc": "AUC", "mrr": "MRR", "ndcg@5": "nDCG@5"}
OTHERS = {"mrr_first": "MRR-first", "logloss": "LogLoss", "lrap": "LRAP"}
HEADS = ("data", "model", "content", "behavior", "predictor")


@dataclass(frozen=True)
class Line:
    """One row: its words, and its metrics in percent."""

    words: tuple[str, ...]  # as `HEADS`
    cells: dict[str, str]
    seeds: int


def paper_lines(board: Board) -> list[Line]:
    """What was measured on the test split, in the paper's order: the presets of its Table 2, other
    presets, other models, baselines."""
    rows = [row for row in (*board.rows, *board.baselines) if row.test]
    columns = columns_of(board)
    return sorted((_line(row, columns) for row in rows), key=_order)


def columns_of(board: Board) -> list[str]:
    """The paper's three metrics as far as they were measured, then the selecting one."""
    measured = {name for row in (*board.rows, *board.baselines) for name in row.test}
    return [name for name in dict.fromkeys([*METRICS, board.select]) if name in measured]


def _line(row: Row, columns: list[str]) -> Line:
    model = row.model
    content = model.get("content", "")
    if "language_model" in model:
        content += f" ({model['language_model']})"
    words = (
        model.get("text", ""),
        _title(model.get("preset", "")) if content else row.label,
        content,
        model.get("behavior", ""),
        model.get("predictor", ""),
    )
    cells = {name: _cell(row.test.get(name), name) for name in columns}
    seeds = max((spread.seeds for spread in row.test.values()), default=0)
    return Line(words, cells, seeds if content else 0)


def _title(name: str) -> str:
    return preset(name).title if name in names() else name


def _order(line: Line) -> tuple[int, int, tuple[str, ...]]:
    titles = [preset(name).title for name in names()]
    baseline = not line.words[2]
    known = titles.index(line.words[1]) if line.words[1] in titles else len(titles)
    return (2 if baseline else line.words[0] != fields.ORIGINAL, known, line.words)


def _cell(spread: Spread | None, name: str) -> str:
    if spread is None:
        return ""
    factor = 100.0 if fields.greater_is_better(name) else 1.0
    text = f"{factor * spread.mean:.2f}"
    return text + (f" ± {factor * spread.std:.2f}" if spread.std is not None else "")


def print_paper(board: Board, console: Console) -> None:
    """The table for a terminal.

    Raises:
        InputError: nothing was measured on the test split.
    """
    lines, columns = _tested(board), columns_of(board)
    table = Table(
        title=Text(title_of(board), style="italic"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for head in HEADS:
        table.add_column(head, overflow="fold")
    for name in columns:
        table.add_column(head_of(name), justify="right", no_wrap=True)
    before = ""
    for line in lines:
        kind = line.words[0] or "baselines"
        if before and kind != before:
            table.add_section()
        before = kind
        cells = [*line.words, *(line.cells[name] for name in columns)]
        table.add_row(*(Text(cell) for cell in cells), style="" if line.seeds else "dim")
    console.print(table)
    for note in notes(lines):
        console.print(note, style="dim", markup=False, soft_wrap=True)


def to_markdown(board: Board) -> str:
    """The table as Markdown.

    Raises:
        InputError: nothing was measured on the test split.
    """
    lines, columns = _tested(board), columns_of(board)
    heads = [*HEADS, *(head_of(name) for name in columns)]
    rows = [heads, [":--"] * len(HEADS) + ["--:"] * len(columns)]
    rows += [[*line.words, *(line.cells[name] for name in columns)] for line in lines]
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    told = "".join(f"- {note}\n" for note in notes(lines))
    return f"### {title_of(board)}\n\n{text}\n\n{told}"


def title_of(board: Board) -> str:
    """Which data, and what kind of numbers."""
    told = not board.synthetic or "synthetic" in board.title.lower()
    return f"{board.title}{'' if told else ' (synthetic data)'}, test split, in percent"


def _tested(board: Board) -> list[Line]:
    lines = paper_lines(board)
    if not lines:
        message = "nothing was measured on the test split"
        raise InputError(Problem(board.title, message, "final trainings are; see `final`"))
    return lines


def notes(lines: list[Line]) -> list[str]:
    """What a reader has to know of the rows."""
    seeds = sorted({line.seeds for line in lines if line.seeds})
    told = " or ".join(map(str, seeds))
    found = [] if not seeds else [f"mean ± standard deviation over {told} seeds"]
    if seeds == [1]:
        found = ["one seed"]
    titles = {line.words[1] for line in lines}
    for name in names():
        known = preset(name)
        if known.title in titles and known.note and not name.endswith(AUGMENTED):
            found.append(f"{known.title}: {known.note}; what was run stands in brackets")
    return found + _plain(lines)


def _plain(lines: list[Line]) -> list[str]:
    """Models for text that a language model wrote, and that read plain text here."""
    known = [preset(name) for name in names()]
    meant = {p.title for p in known if p.augmented}
    only = meant - {p.title for p in known if not p.augmented}
    titles = [line.words[1] for line in lines if line.words[0] == fields.ORIGINAL]
    found = []
    for title in dict.fromkeys(title for title in titles if title in meant):
        if title in only or titles.count(title) > 1:
            row = "" if title in only else ", its second row"
            found.append(f"{title}{row}: read text that no language model had augmented")
    return found


def head_of(metric: str) -> str:
    """`ndcg@5` as papers write it."""
    known = {**METRICS, **OTHERS}.get(metric, metric)
    return known.replace("ndcg@", "nDCG@").replace("hit@", "Hit@").replace("recall@", "Recall@")
