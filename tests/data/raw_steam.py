"""Steam's games and reviews of a world: Python literals, as McAuley's lab publishes them (v2)."""

from __future__ import annotations

import time
from pathlib import Path

from raw_amazon import write_lines
from worlds import World

PROCESSOR = "steam"
OPTIONS = {"negatives": 3}
STEP = 86_400  # reviews have days, not seconds: what is cut in time is cut between days


def write_raw(folder: Path, world: World) -> None:
    """steam_games.json.gz and steam_reviews.json.gz."""
    games = [
        {
            "publisher": "X, Y",
            "genres": [tag.title() for tag in item.tags],
            "app_name": item.title,
            "title": item.title,
            "url": f"http://store.steampowered.com/app/{item.key}/x/",
            "release_date": "Soon.." if number % 5 == 0 else "2018-01-04",
            "tags": ["Indie", *item.tags],
            "discount_price": 4.49,
            "reviews_url": f"http://steamcommunity.com/app/{item.key}/reviews/",
            "specs": ["Single-player"],
            "price": "Free To Play" if number % 3 == 0 else 4.99,
            "early_access": False,
            "id": item.key,
            "developer": "Kotoshiro" if number % 2 else "",
        }
        for number, item in enumerate(world.items)
    ]
    for row in games[1::6]:  # many lack some of it
        for key in ("title", "developer", "genres"):
            del row[key]
    nameless = {"url": "http://store.steampowered.com/", "reviews_url": "http://x", "price": 19.99}
    games.insert(3, nameless)  # the real file has such a row
    games.append(games[0])  # and a game that stands twice
    reviews = [
        {
            "username": f"Kid O'Né {event.user}",
            "hours": event.value + 0.1,
            "products": 41,
            "product_id": event.item,
            "page_order": 0,
            "date": time.strftime("%Y-%m-%d", time.gmtime(event.time)),
            "text": 'It\'s "good"\n\u6771',
            "early_access": False,
            "page": 1,
        }
        for event in world.events
    ]
    for number, row in enumerate(reviews):
        if number % 3 == 0:
            row["user_id"] = "76561197970982479"
        if number % 4 == 0:
            del row["hours"]
    write_lines(folder / "steam_games.json.gz", games, python_2)
    write_lines(folder / "steam_reviews.json.gz", reviews, python_2)


def python_2(row: dict[str, object]) -> str:
    """As Python 2 writes a dictionary of unicode strings: `{u'date': u'2017-12-17', ...}`."""
    return "{" + ", ".join(f"{literal(k)}: {literal(v)}" for k, v in row.items()) + "}"


def literal(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(literal, value)) + "]"
    return f"u{value!a}" if isinstance(value, str) else repr(value)
