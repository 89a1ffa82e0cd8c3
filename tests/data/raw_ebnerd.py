"""EB-NeRD's files of a world: Parquet, with histories per user and official part."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from raw_logs import Shown, impressions
from worlds import Event, World

PROCESSOR = "ebnerd"
OPTIONS: dict[str, object] = {}

_TIME = pa.timestamp("us")
_IDS = pa.large_list(pa.int32())
BEHAVIORS = pa.schema([
    ("impression_id", pa.uint32()), ("article_id", pa.int32()), ("impression_time", _TIME),
    ("read_time", pa.float32()), ("scroll_percentage", pa.float32()), ("device_type", pa.int8()),
    ("article_ids_inview", _IDS), ("article_ids_clicked", _IDS), ("user_id", pa.uint32()),
    ("is_sso_user", pa.bool_()), ("gender", pa.int8()), ("postcode", pa.int8()),
    ("age", pa.int8()), ("is_subscriber", pa.bool_()), ("session_id", pa.uint32()),
    ("next_read_time", pa.float32()), ("next_scroll_percentage", pa.float32()),
])  # fmt: skip
HISTORY = pa.schema([
    ("user_id", pa.uint32()), ("impression_time_fixed", pa.large_list(_TIME)),
    ("scroll_percentage_fixed", pa.large_list(pa.float32())), ("article_id_fixed", _IDS),
    ("read_time_fixed", pa.large_list(pa.float32())),
])  # fmt: skip
ARTICLES = pa.schema([
    ("article_id", pa.int32()), ("title", pa.string()), ("subtitle", pa.string()),
    ("last_modified_time", _TIME), ("premium", pa.bool_()), ("body", pa.string()),
    ("published_time", _TIME), ("image_ids", pa.large_list(pa.int64())),
    ("article_type", pa.string()), ("url", pa.string()),
    ("ner_clusters", pa.large_list(pa.string())), ("entity_groups", pa.large_list(pa.string())),
    ("topics", pa.large_list(pa.string())), ("category", pa.int16()),
    ("subcategory", pa.large_list(pa.int16())), ("category_str", pa.string()),
    ("total_inviews", pa.int32()), ("total_pageviews", pa.int32()),
    ("total_read_time", pa.float32()), ("sentiment_score", pa.float32()),
    ("sentiment_label", pa.string()),
])  # fmt: skip
# Not in the test set, which says in place of them which rows are none of the log.
OUTCOMES = ("article_id", "article_ids_clicked", "next_read_time", "next_scroll_percentage")


def write_raw(folder: Path, world: World) -> None:
    """articles.parquet, and train and validation with their behaviours and histories."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "articles.parquet", [_article(world, n) for n in range(len(world.items))],
           ARTICLES)  # fmt: skip
    for part, shown in zip(("train", "validation"), impressions(world), strict=True):
        _write_part(folder / part, shown, world)


def write_with_test(folder: Path, world: World) -> None:
    """The same, and a test set in a folder of its own, with rows that are none of the log."""
    write_raw(folder, world)
    shown = impressions(world)[1]
    target = folder / "ebnerd_testset"
    _write_part(target / "test", shown, world)
    rows = [_behaviour(one) | {"is_beyond_accuracy": False} for one in shown]
    keys = [int(item.key) for item in world.items]
    beyond = {"impression_id": 0, "article_ids_inview": keys, "is_beyond_accuracy": True}
    rows += [rows[0] | beyond, rows[-1] | beyond]
    fields = [field for field in BEHAVIORS if field.name not in OUTCOMES]
    schema = pa.schema([*fields, pa.field("is_beyond_accuracy", pa.bool_())])
    kept = [{name: row[name] for name in schema.names} for row in rows]
    _write(target / "test/behaviors.parquet", kept, schema)
    articles = [_article(world, n) for n in range(len(world.items))]
    _write(target / "articles.parquet", articles, ARTICLES)


def _write_part(folder: Path, shown: list[Shown], world: World) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "behaviors.parquet", [_behaviour(one) for one in shown], BEHAVIORS)
    start = shown[0].event.time
    rows = []
    for user in dict.fromkeys(one.event.user for one in shown):
        past = [e for e in world.events if e.user == user and e.time < start]
        # The owners' histories end before the week begins; a later event here would be a leak.
        rows.append(_history(user, past))
    _write(folder / "history.parquet", rows, HISTORY)


def _behaviour(one: Shown) -> dict[str, object]:
    inview = [int(key) for key in one.others]
    inview.insert(one.number % (len(inview) + 1), int(one.event.item))
    number = int(one.event.user)
    front = one.number % 10 < 7  # most impressions are of the front page
    known = number % 5 == 0  # few users tell who they are
    return {
        "impression_id": one.number, "article_id": None if front else inview[0],
        "impression_time": _moment(one.event.time), "read_time": 14.0,
        "scroll_percentage": None if front else 50.0, "device_type": 1 + one.number % 3,
        "article_ids_inview": inview,
        "article_ids_clicked": [int(one.event.item)] * (2 if one.number % 50 == 0 else 1),
        "user_id": number, "is_sso_user": known, "gender": number % 2 if known else None,
        "postcode": number % 4 if known else None, "age": 40 if known else None,
        "is_subscriber": False, "session_id": one.number // 3,
        "next_read_time": 8.0, "next_scroll_percentage": None,
    }  # fmt: skip


def _history(user: str, past: list[Event]) -> dict[str, object]:
    return {
        "user_id": int(user), "impression_time_fixed": [_moment(e.time) for e in past],
        "scroll_percentage_fixed": [None if n % 3 else float("nan") for n in range(len(past))],
        "article_id_fixed": [int(e.item) for e in past], "read_time_fixed": [7.0] * len(past),
    }  # fmt: skip


def _article(world: World, number: int) -> dict[str, object]:
    item = world.items[number]
    return {
        "article_id": int(item.key), "title": item.title, "subtitle": item.text[:20],
        "last_modified_time": _moment(1), "premium": False,
        "body": None if number % 7 == 0 else item.text, "published_time": _moment(0),
        "image_ids": None, "article_type": "article_default", "url": f"https://x/{item.key}",
        "ner_clusters": [], "entity_groups": [], "topics": list(item.tags), "category": 1,
        "subcategory": [2, 3], "category_str": item.tags[0], "total_inviews": None,
        "total_pageviews": None, "total_read_time": None, "sentiment_score": 0.5,
        "sentiment_label": "Neutral",
    }  # fmt: skip


def _moment(seconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).replace(tzinfo=None)


def _write(path: Path, rows: list[dict[str, object]], schema: pa.Schema) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=64)


RELEASES: dict[str, tuple[Callable[[Path, World], None], dict[str, object]]] = {
    "with-test": (write_with_test, {"test": "ebnerd_testset/test", "valid": "validation"}),
}
