"""Yelp's businesses, reviews and users of a world: plain JSON lines, as the archive holds them."""

from __future__ import annotations

import json
import time
from pathlib import Path

from worlds import World

PROCESSOR = "yelp"
OPTIONS = {"negatives": 3}


def write_raw(folder: Path, world: World) -> None:
    """yelp_academic_dataset_business.json, _review.json and _user.json."""
    businesses = [
        {
            "business_id": item.key,
            "name": item.title,
            "address": "935 Race St",
            "city": "Montréal" if number % 2 else "Philadelphia",
            "state": "PA",
            "postal_code": "19107",
            "latitude": 39.95,
            "longitude": -75.15,
            "stars": 4.0,
            "review_count": 80,
            "is_open": 1,
            "attributes": None if number % 3 == 0 else {"RestaurantsDelivery": "False"},
            "categories": None if number % 7 == 0 else ", ".join(item.tags),
            "hours": {"Monday": "7:0-20:0"},
        }
        for number, item in enumerate(world.items)
    ]
    reviews = [
        {
            "review_id": f"r{event.time}",
            "user_id": f"u{event.user}",
            "business_id": event.item,
            "stars": float(event.value),
            "useful": 0,
            "funny": 0,
            "cool": 0,
            "text": 'If you "decide" to eat here,\njust be aware 東京',
            "date": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(event.time)),
        }
        for event in world.events
    ]
    users = [
        {
            "user_id": f"u{user}",
            "name": "Walker",
            "review_count": 585,
            "yelping_since": f"20{7 + number % 10:02d}-01-25 16:47:26",
            "useful": 7217,
            "elite": "2007" if number % 2 else "",
            "friends": "None",
            "fans": 267,
            "average_stars": 3.91,
        }
        for number, user in enumerate(sorted({event.user for event in world.events}))
    ]
    write(folder, "business", businesses)
    write(folder, "review", reviews)
    write(folder, "user", users)


def write(folder: Path, name: str, rows: list[dict[str, object]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"yelp_academic_dataset_{name}.json"
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path
