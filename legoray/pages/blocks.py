"""The blocks that pages are made of. Every text is escaped here, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import plotly.graph_objects as go

from legoray.pages.looks import HEIGHT


@dataclass(frozen=True)
class Cell:
    """One cell of a table that can be sorted."""

    text: str
    value: float | str | None = None  # what it is sorted by, where that is not its text


def card(title: str, content: str, *, key: str = "", wide: bool = False, notes: str = "") -> str:
    """A titled box.

    Args:
        title: a text.
        content: HTML.
        key: its address within the page.
        wide: it takes the whole width.
        notes: HTML below the content, as `notes_of` makes it.
    """
    at = f' id="{escape(key)}"' if key else ""
    return (
        f'<section class="card{" wide" if wide else ""}"{at}><h2>{escape(title)}</h2>'
        f"{content}{notes}</section>"
    )


def notes_of(texts: Iterable[str]) -> str:
    """Small print."""
    return "".join(f'<p class="note">{escape(text)}</p>' for text in texts)


def warning(text: str) -> str:
    """What a reader must not miss."""
    return f'<p class="warning">{escape(text)}</p>'


def scrolled(content: str) -> str:
    """HTML that may be wider than the page: it scrolls by itself."""
    return f'<div class="scroll">{content}</div>'


def plot(place: int | str, figure: go.Figure, *, width: int = 0) -> str:
    """A figure, which lies in a block of JSON that ends at no mark inside it.

    Args:
        place: tells it from the page's other plots.
        figure: the names in it are escaped already.
        width: in pixels, below which it scrolls instead of shrinking.
    """
    data = (figure.to_json() or "").replace("<", "\\u003c")
    at = f"plot-{place}"
    tall = figure.layout.height or HEIGHT
    size = f"min-height: {tall}px" + (f"; min-width: {width}px" if width else "")
    drawn = f'<div class="plot" id="{escape(at)}" style="{size}"></div>'
    return (
        f"{scrolled(drawn) if width else drawn}"
        "<noscript>Plots need JavaScript; the tables do not.</noscript>"
        f'<script type="application/json" id="{escape(at)}-data">{data}</script>'
    )


def pairs(rows: Iterable[Sequence[str]]) -> str:
    """A table of names and what they stand for."""
    lines = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in rows
    )
    return f'<table class="pairs"><tbody>{lines}</tbody></table>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], words: Sequence[str] = ()) -> str:
    """A table of texts.

    Args:
        head: names of the columns.
        rows: of cells.
        words: columns of words, beside the first; all others are numbers.
    """
    kinds = _kinds(head, words)
    heads = "".join(f"<th{k}>{escape(n)}</th>" for k, n in zip(kinds, head, strict=True))
    lines = "".join(
        "<tr>"
        + "".join(f"<td{k}>{escape(cell)}</td>" for k, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"


def sortable(
    head: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    words: Sequence[str] = (),
    long: Sequence[str] = (),
    below: Sequence[Sequence[Cell]] = (),
    caption: str = "",
) -> str:
    """A table that is sorted by a click on a head (`legoray.pages.document.SORTING`).

    Args:
        head: names of the columns.
        rows: of cells.
        words: columns of words, beside the first; all others are numbers.
        long: those of them whose texts take several lines.
        below: rows that stay below the others however they are sorted.
        caption: read aloud by screen readers.
    """
    kinds = _kinds(head, words)
    kinds = [' class="long"' if n in long else k for k, n in zip(kinds, head, strict=True)]
    heads = "".join(
        f'<th{k} scope="col"><button type="button">{escape(n)}</button></th>'
        for k, n in zip(kinds, head, strict=True)
    )
    told = f"<caption>{escape(caption)}</caption>" if caption else ""
    more = f'<tbody class="below">{_lines(below, kinds)}</tbody>' if below else ""
    return (
        f'<table class="sortable">{told}<thead><tr>{heads}</tr></thead>'
        f"<tbody>{_lines(rows, kinds)}</tbody>{more}</table>"
    )


def _lines(rows: Sequence[Sequence[Cell]], kinds: Sequence[str]) -> str:
    return "".join(
        "<tr>" + "".join(_cell(k, cell) for k, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )


def _cell(kind: str, cell: Cell) -> str:
    by = "" if cell.value is None else f' data-sort="{escape(str(cell.value))}"'
    return f"<td{kind}{by}>{escape(cell.text)}</td>"


def _kinds(head: Sequence[str], words: Sequence[str]) -> list[str]:
    return [
        "" if place == 0 or name in words else ' class="number"' for place, name in enumerate(head)
    ]
