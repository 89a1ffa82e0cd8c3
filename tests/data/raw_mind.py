"""MIND's files of a world, and xMIND's translations of its news."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from raw_logs import Shown, american, impressions
from worlds import Item, World

PROCESSOR = "mind"
OPTIONS: dict[str, object] = {}


def write_raw(folder: Path, world: World) -> None:
    """MINDsmall_train and MINDsmall_dev; most news stand in both, in another order."""
    train, dev = impressions(world)
    _write_part(folder / "MINDsmall_train", world.items[:-3], train)
    _write_part(folder / "MINDsmall_dev", world.items[:4:-1], dev)


def write_xmind(folder: Path, world: World) -> None:
    """The same, and the Finnish titles of all news as the authors' script lays them down."""
    write_raw(folder, world)
    for part, items in (("train", world.items[:-3]), ("dev", world.items[:4:-1])):
        rows = [(i.key, f"{i.title} (fin)", "" if n % 5 == 0 else f"{i.text} (fin)")
                for n, i in enumerate(items)]  # fmt: skip
        lines = ["\t".join(map(_quoted, row)) for row in (("nid", "title", "abstract"), *rows)]
        path = folder / f"xMIND/fin/xMINDsmall_{part}/news.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _write_part(folder: Path, items: list[Item], shown: list[Shown]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    news = [
        "\t".join((i.key, i.tags[0], i.tags[1], i.title, "" if n % 5 == 0 else i.text,
                   f"https://x/{i.key}", "[]", '[{"Label": "X"}]'))
        for n, i in enumerate(items)
    ]  # fmt: skip
    (folder / "news.tsv").write_text("".join(f"{line}\n" for line in news), encoding="utf-8")
    lines = []
    for one in shown:
        candidates = [f"{key}-0" for key in one.others]
        candidates.insert(one.number % (len(candidates) + 1), f"{one.event.item}-1")
        history = " ".join(event.item for event in one.past)
        fields = (str(one.number), one.event.user, american(one.event.time), history)
        lines.append("\t".join((*fields, " ".join(candidates))))
    text = "".join(f"{line}\n" for line in lines)
    (folder / "behaviors.tsv").write_text(text, encoding="utf-8")


def _quoted(field: str) -> str:
    """As pandas writes TSV: a field with quotes is quoted, and they are doubled."""
    return '"' + field.replace('"', '""') + '"' if '"' in field else field


RELEASES: dict[str, tuple[Callable[[Path, World], None], dict[str, object]]] = {
    "xmind": (write_xmind, {"titles": "xMIND/fin"}),
}
