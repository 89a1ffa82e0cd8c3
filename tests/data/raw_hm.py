"""H&M's files of a world: ids with zeros in front, days instead of times, customers without age."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path

from worlds import World

PROCESSOR = "hm"
OPTIONS = {"negatives": 3}
ARTICLES = (
    "article_id", "product_code", "prod_name", "product_type_no", "product_type_name",
    "product_group_name", "graphical_appearance_no", "graphical_appearance_name",
    "colour_group_code", "colour_group_name", "perceived_colour_value_id",
    "perceived_colour_value_name", "perceived_colour_master_id", "perceived_colour_master_name",
    "department_no", "department_name", "index_code", "index_name", "index_group_no",
    "index_group_name", "section_no", "section_name", "garment_group_no", "garment_group_name",
    "detail_desc",
)  # fmt: skip
CUSTOMERS = ("customer_id", "FN", "Active", "club_member_status", "fashion_news_frequency",
             "age", "postal_code")  # fmt: skip


def customer(user: str) -> str:
    """64 hexadecimal digits, of which the world's number is the last."""
    return user.rjust(64, "0")


def write_raw(folder: Path, world: World) -> None:
    """articles.csv, customers.csv and transactions_train.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_article(item.key, item.title, item.text, item.tags[0]) for item in world.items]
    _write(folder / "articles.csv", ARTICLES, rows)
    users = sorted({event.user for event in world.events})
    told = [("", "", "ACTIVE", "NONE", "49"), ("1.0", "1.0", "PRE-CREATE", "None", "")]
    people = [(customer(user), *told[int(user) % 2], "52043ee2162cf5aa7e") for user in users]
    _write(folder / "customers.csv", CUSTOMERS, people)
    bought = sorted(
        (_day(e.time), customer(e.user), e.item.rjust(10, "0"), "0.05083050847457627", "2")
        for e in world.events
    )
    names = ("t_dat", "customer_id", "article_id", "price", "sales_channel_id")
    _write(folder / "transactions_train.csv", names, bought)


def _article(key: str, title: str, text: str, tag: str) -> tuple[str, ...]:
    ident = key.rjust(10, "0")
    return (ident, ident[:7], title, "253", "Vest top", "Garment Upper body", "1010016", "Solid",
            "09", "Black", "4", "Dark", "5", "Black", "1676", "Jersey Basic", "A", "Ladieswear",
            "1", "Ladieswear", "16", "Womens Everyday Basics", "1017", f"Under-, {tag}",
            text)  # fmt: skip


def _day(time: int) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d")


def _write(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
