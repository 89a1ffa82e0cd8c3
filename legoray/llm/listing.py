"""The language models of the catalogue for a reader."""

from __future__ import annotations

from rich.console import Console

from legoray.llm.catalogue import Entry, entries, place_of

_PLACES = {"package": "installed", "cache": "hub's cache", "": "not here"}
_HEAD = ("name", "family", "layers", "size", "weights", "revision", "licence", "hub id")


def print_models(console: Console) -> None:
    """All short names, one line each: what they are, where their weights are, under which terms."""
    rows = [_HEAD, *(_row(name, entry) for name, entry in entries().items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        style = "bold" if row is _HEAD else None
        console.print("  ".join(cells).rstrip(), markup=False, soft_wrap=True, style=style)
    console.print(
        "a folder, a .gguf file or a hub id (owner/name) works too; how to get weights is said "
        "where a model is used",
        markup=False,
        soft_wrap=True,
    )


def _row(name: str, entry: Entry) -> tuple[str, ...]:
    return (
        name,
        entry.family,
        str(entry.layers),
        str(entry.hidden_size),
        _PLACES[place_of(entry)],
        (entry.revision or "not pinned")[:12],
        entry.licence,
        entry.hub,
    )
