"""Amazon's reviews of a world in the format of each release; `write_raw` is that of 2018."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from worlds import Event, Item, World

PROCESSOR = "amazon"
OPTIONS: dict[str, object] = {"category": "Books", "negatives": 3}


def write_raw(folder: Path, world: World) -> None:
    """2018: Books_5.json.gz and meta_Books.json.gz, which repeats rows and has junk for titles."""
    reviews = [
        {
            "overall": float(event.value),
            **({"vote": "1,024"} if event.value == 2 else {}),
            "verified": event.value > 2,
            "reviewTime": time.strftime("%m %d, %Y", time.gmtime(event.time)),
            "reviewerID": f"A{event.user}",
            "asin": event.item,
            **({"style": {"Format:": " Kindle Edition"}} if event.value == 5 else {}),
            "reviewerName": f'Mr. "{event.user}"',
            "reviewText": f"I <3 it &amp; more\n{event.value}",
            "summary": "é",
            "unixReviewTime": event.time,
        }
        for event in world.events
    ]
    rows = [
        {
            "category": ["Books", "Arts &amp; Photography", "</span></span></span>", *item.tags],
            "tech1": "",
            "description": ["", f"<P>{escaped(item.text)}</P>", "More<br />text"],
            "fit": "",
            "title": title_2018(number, item),
            "also_buy": [world.items[0].key],
            "brand": f"{item.tags[0]} &amp; Co",
            "feature": [],
            "rank": [] if number % 2 else "4,061,883 in Books (",
            "details": {"Publisher:": "x"} if number % 3 else {},
            "main_cat": "Books",
            "price": "$9.99",
            "asin": item.key,
        }
        for number, item in enumerate(world.items)
    ]
    repeated = [row for row in rows for _ in range(1 + (row["asin"] in REPEATED))]
    write_lines(folder / "Books_5.json.gz", reviews)
    write_lines(folder / "meta_Books.json.gz", repeated)


REPEATED = ("1001", "1003", "1010")
JUNK = {
    1: '<span class="a-size-medium a-color-secondary"',
    2: "var aPageStart = (new Date()).getTime();\nvar ue_t0=ue_t0||+new Date();",
}


def title_2018(number: int, item: Item) -> str:
    return JUNK.get(number % 10, escaped(item.title))


def write_2014(folder: Path, world: World) -> None:
    """reviews_Books_5.json.gz is JSON; meta_Books.json.gz are Python literals."""
    reviews = [
        {
            "reviewerID": f"A{event.user}",
            "asin": event.item,
            "reviewerName": "J. McX",
            "helpful": [2, 3],
            "reviewText": "I 'like' \"it\"\n",
            "overall": float(event.value),
            "summary": "é",
            "unixReviewTime": event.time,
            "reviewTime": time.strftime("%m %d, %Y", time.gmtime(event.time)),
        }
        for event in world.events
    ]
    rows = [
        {
            "asin": item.key,
            "title": escaped(item.title),
            "description": escaped(item.text),
            "price": 9.99,
            "imUrl": "http://x/y.jpg",
            "related": {"also_bought": [world.items[0].key]},
            "salesRank": {"Books": number},
            "brand": item.tags[0],
            "categories": [["Books", item.tags[0]], ["Gifts & More"]],
        }
        for number, item in enumerate(world.items)
    ]
    for row in rows[1::7]:  # many lack some of it
        for key in ("title", "description", "brand", "salesRank"):
            del row[key]
    write_lines(folder / "reviews_Books_5.json.gz", reviews)
    write_lines(folder / "meta_Books.json.gz", rows, repr)


def write_2023(folder: Path, world: World) -> None:
    """Books.jsonl.gz and meta_Books.jsonl.gz; times in milliseconds."""
    reviews = [
        {
            "rating": float(event.value),
            "title": "é",
            "text": "x<br /><br />y",
            "images": [],
            "asin": f"{event.item}X",
            "parent_asin": event.item,
            "user_id": f"A{event.user}",
            "timestamp": event.time * 1000 + 321,
            "helpful_vote": 0,
            "verified_purchase": True,
        }
        for event in in_time(world)
    ]
    write_lines(folder / "Books.jsonl.gz", reviews)
    write_lines(folder / "meta_Books.jsonl.gz", rows_2023(world))


def rows_2023(world: World) -> list[dict[str, object]]:
    return [
        {
            "main_category": None if number % 5 else "Books",
            "title": escaped(item.title),
            "subtitle": "Paperback",
            "author": None if number % 2 else {"name": "X", "about": ["y"]},
            "average_rating": 4.5,
            "rating_number": 7,
            "features": ["a", "b"],
            "description": [] if number % 4 == 0 else [item.text, "More"],
            "price": None if number % 3 else 9.99,
            "images": [{"thumb": None, "large": "http://x", "variant": "MAIN"}],
            "videos": [],
            "store": None if number % 6 == 0 else f"{item.tags[0]} (Author)",
            "categories": ["Books", *item.tags],
            "details": {"Language": "English", "Best Sellers Rank": {"Books": number}},
            "parent_asin": item.key,
            "bought_together": None,
        }
        for number, item in enumerate(world.items)
    ]


def write_2023_core(folder: Path, world: World) -> None:
    """The 5-core ratings of 2023, Books.csv.gz, as its `benchmark/5core/rating_only` has them."""
    rows = [f"A{e.user},{e.item},{e.value}.0,{e.time * 1000 + 321}\n" for e in in_time(world)]
    text = "user_id,parent_asin,rating,timestamp\n" + "".join(rows)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Books.csv.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    write_lines(folder / "meta_Books.jsonl.gz", rows_2023(world))


RELEASES: dict[str, tuple[Callable[[Path, World], None], dict[str, object]]] = {
    "2018": (write_raw, OPTIONS | {"release": 2018}),
    "2014": (write_2014, OPTIONS | {"release": 2014}),
    "2023": (write_2023, OPTIONS | {"release": 2023}),
    "2023-5-core": (write_2023_core, OPTIONS | {"release": 2023, "reviews": "5-core"}),
}


def in_time(world: World) -> Iterable[Event]:
    """By user, as the files of 2023 stand."""
    return sorted(world.events, key=lambda event: (event.user, event.time))


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;")


def write_lines(
    path: Path, rows: Iterable[dict[str, object]], dump: Callable[..., str] = json.dumps
) -> Path:
    """One row per line, gzip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(f"{dump(r)}\n" for r in rows).encode(), mtime=0))
    return path
