"""Feedback in tables of the user's own: items as CSV, events as JSON lines, users as TSV."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from worlds import World

PROCESSOR = "feedback"
OPTIONS = {
    "items": {"file": "recipes.csv", "key": "recipe", "attributes": ["title", "text"]},
    "events": {"file": "cooked.jsonl", "user": "cook", "item": "recipe", "value": "stars"},
    "users": {"file": "cooks.tsv", "key": "cook", "attributes": ["age"]},
    "like": 4.0,
    "negatives": 3,
}


def write_raw(folder: Path, world: World) -> None:
    """recipes.csv, cooked.jsonl and cooks.tsv."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "recipes.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [(item.key, item.title, item.text) for item in world.items]
        csv.writer(file).writerows([("recipe", "title", "text"), *rows])
    lines = [
        json.dumps({"cook": e.user, "recipe": e.item, "stars": e.value, "time": e.time})
        for e in world.events
    ]
    (folder / "cooked.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    users = sorted({event.user for event in world.events})
    table = ["cook\tage", *(f"{user}\t{int(user) % 7 * 10}" for user in users)]
    (folder / "cooks.tsv").write_text("\n".join(table) + "\n", encoding="utf-8")
