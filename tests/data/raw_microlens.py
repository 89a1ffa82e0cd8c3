"""MicroLens' releases of a world: titles of 50K as CSV, of 100K and 1M in a form of their own."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from worlds import World

PROCESSOR = "microlens"
OPTIONS = {"negatives": 3}


def write_raw(folder: Path, world: World) -> None:
    """MicroLens-50k: titles with a header and quotes."""
    text = io.StringIO()
    rows = [(item.key, f"{item.title} # {item.tags[0]}") for item in world.items]
    csv.writer(text, lineterminator="\n").writerows([("item", "title"), *rows])
    _write(folder, world, "50k", "titles", text.getvalue())


def write_100k(folder: Path, world: World) -> None:
    """MicroLens-100k: no header, a space after the first comma, spaces at the ends."""
    rows = [f"{item.key}, {item.title} # {item.tags[0]}  \n" for item in world.items]
    _write(folder, world, "100k", "title_en", "".join(rows))


def write_1m(folder: Path, world: World) -> None:
    """MicroLens-1M: no header, quotes and further commas as the authors typed them."""
    typed = ("{0},{1}\n", '{0},{1}, "{2}\n')
    rows = [typed[int(i.key) % 2].format(i.key, i.title, i.tags[0]) for i in world.items]
    _write(folder, world, "1M", "title", "".join(rows))


def _write(folder: Path, world: World, release: str, titles: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"MicroLens-{release}_{titles}.csv").write_text(text, encoding="utf-8")
    pairs = sorted((e.user, e.item, e.time * 1000 + 123) for e in world.events)
    rows = ["user,item,timestamp", *(f"{u},{i},{t}" for u, i, t in pairs)]
    path = folder / f"MicroLens-{release}_pairs.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


RELEASES = {"100k": (write_100k, OPTIONS), "1m": (write_1m, OPTIONS)}
