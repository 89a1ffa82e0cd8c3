"""Adressa's light version of a world: JSON lines of events, one file per day, without an ending."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from pathlib import Path

from worlds import START, Event, Item, World

PROCESSOR = "adressa"
OPTIONS: dict[str, object] = {"negatives": 3}


def write_raw(folder: Path, world: World) -> None:
    """20200913 and so on; every third event is followed by one of the home page."""
    folder.mkdir(parents=True, exist_ok=True)
    items = {item.key: item for item in world.items}
    days = defaultdict(list)
    for number, event in enumerate(world.events):
        day = time.strftime("%Y%m%d", time.gmtime(max(event.time, START)))
        days[day].append(_event(number, event, items[event.item]))
        if number % 3 == 0:
            days[day].append(_home(number, event))
    for day, rows in days.items():
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (folder / day).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _home(number: int, event: Event) -> dict[str, object]:
    """What stands with every event; all there is of the home page."""
    return {
        "eventId": 7_000_000 + 2 * number, "city": "trondheim", "url": "http://adressa.no",
        "referrerHostClass": "direct", "region": "sor-trondelag", "time": event.time,
        "userId": event.user, "sessionStart": number % 4 == 0, "deviceType": "Mobile",
        "sessionStop": False, "country": "no", "os": "iPhone OS",
    }  # fmt: skip


def _event(number: int, event: Event, item: Item) -> dict[str, object]:
    row = _home(number, event)
    row |= {
        "eventId": 7_000_001 + 2 * number, "canonicalUrl": f"http://adressa.no/{item.key}.ece",
        "url": f"http://adressa.no/pluss/{item.key}.ece", "id": item.key, "newsId": item.key,
        "title": item.title, "publishtime": "2017-01-01T18:26:43.000Z",
        "category1": "|".join(item.tags), "keywords": ",".join(item.tags),
    }  # fmt: skip
    if number % 4:
        row["activeTime"] = 10 + number % 90
    if number % 5 == 0:
        row["author"] = "ola nordmann"
    return row
