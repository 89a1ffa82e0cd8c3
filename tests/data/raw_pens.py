"""PENS' files of a world: news, and train and validation logs with histories and their times."""

from __future__ import annotations

from pathlib import Path

from raw_logs import Shown, american, impressions
from worlds import World

PROCESSOR = "pens"
OPTIONS: dict[str, object] = {}

NEWS = ("News ID", "Category", "Topic", "Headline", "News body", "Title entity", "Entity content")
LOG = ("UserID", "ClicknewsID", "dwelltime", "exposure_time", "pos", "neg", "start", "end",
       "dwelltime_pos")  # fmt: skip


def write_raw(folder: Path, world: World) -> None:
    """news.tsv, train.tsv, valid.tsv, and personalized_test.tsv, which holds no impressions."""
    folder.mkdir(parents=True, exist_ok=True)
    news = [
        (i.key, i.tags[0], i.tags[1], i.title, "" if n % 9 == 0 else i.text, "{'X': 'Y'}",
         "{'Y': {'type': 'item'}}")
        for n, i in enumerate(world.items)
    ]  # fmt: skip
    _write(folder / "news.tsv", NEWS, news)
    for name, shown in zip(("train", "valid"), impressions(world), strict=True):
        _write(folder / f"{name}.tsv", LOG, [_row(one) for one in shown])
    told = ("NT1", "1001,1002", "1003,1004", "A better headline;;Another")
    header = ("userid", "clicknewsID", "posnewID", "rewrite_titles")
    _write(folder / "personalized_test.tsv", header, [told])


def _row(one: Shown) -> tuple[str, ...]:
    times = "#TAB#".join(american(event.time) for event in one.past)
    start, end = one.event.time, one.event.time + 600
    return (
        one.event.user, " ".join(event.item for event in one.past),
        " ".join("30" for _ in one.past), times, one.event.item, " ".join(one.others),
        american(start), american(end), "34",
    )  # fmt: skip


def _write(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    lines = ["\t".join(row) for row in (header, *rows)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
