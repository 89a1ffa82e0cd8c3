"""Own tables of a world: CSV, JSON lines or Parquet; interactions with candidates not clicked."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from worlds import World

PROCESSOR = "own"
Row = dict[str, Any]


def options(ending: str) -> dict[str, Any]:
    return {
        "items": {"file": f"items.{ending}", "attributes": ["title", "text"]},
        "events": f"events.{ending}",
        "interactions": f"interactions.{ending}",
        "users": {"file": f"users.{ending}", "attributes": ["city"]},
    }


OPTIONS = options("csv")


def rows_of(world: World) -> dict[str, list[Row]]:
    """The four tables: each event is a click of an impression with two others beside it."""
    clicks = [{"user": e.user, "item": e.item, "time": e.time} for e in world.events]
    keys = [item.key for item in world.items]
    seen: list[Row] = []
    for number, event in enumerate(world.events):
        draw = random.Random(f"{event.user} {event.item} {event.time}")
        others = draw.sample([key for key in keys if key != event.item], 2)
        for key, label in ((others[0], 0), (event.item, 1), (others[1], 0)):
            row = {"impression": number + 1, "user": event.user, "item": key}
            seen.append({**row, "label": label, "time": event.time})
    users = sorted({event.user for event in world.events})
    return {
        "items": [{"item": i.key, "title": i.title, "text": i.text} for i in world.items],
        "events": clicks,
        "interactions": seen,
        "users": [{"user": user, "city": f"city {int(user) % 3}"} for user in users],
    }


def write_raw(folder: Path, world: World) -> None:
    """Four CSV files."""
    _write(folder, world, "csv", write_csv)


def write_jsonl(folder: Path, world: World) -> None:
    """The same as JSON lines."""
    _write(folder, world, "jsonl", _jsonl)


def write_parquet(folder: Path, world: World) -> None:
    """The same as Parquet."""
    _write(folder, world, "parquet", lambda path, rows: pq.write_table(_arrow(rows), path))


def _write(
    folder: Path, world: World, ending: str, write: Callable[[Path, list[Row]], None]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in rows_of(world).items():
        write(folder / f"{name}.{ending}", rows)


def write_csv(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)


def _jsonl(path: Path, rows: list[Row]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _arrow(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows)


RELEASES = {
    "jsonl": (write_jsonl, options("jsonl")),
    "parquet": (write_parquet, options("parquet")),
}
