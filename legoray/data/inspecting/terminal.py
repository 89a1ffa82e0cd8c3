"""What was found, for a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from legoray.data.inspecting.result import Inspection
from legoray.data.inspecting.sections import WORDS, Section, sections


def print_inspection(found: Inspection, console: Console) -> None:
    """All tables, one after another."""
    for section in sections(found):
        console.print(Text(section.title, style="bold"))
        console.print(_table(section))
        for note in section.notes:
            console.print(Text(note, style="dim"))
        console.print()


def _table(section: Section) -> Table:
    """Texts of the data are shown as they are, whatever marks they hold."""
    head = section.head or ("", "")
    shown = box.SIMPLE_HEAD if section.head else None
    table = Table(box=shown, pad_edge=False, show_header=bool(section.head))
    for place, name in enumerate(head):
        left = place == 0 or not section.head or name in WORDS
        table.add_column(Text(name), justify="left" if left else "right", overflow="fold")
    for row in section.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
