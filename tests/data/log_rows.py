"""What arrived of an impression log, in the keys of its files."""

from __future__ import annotations

import pyarrow.parquet as pq

from legoray.data.load import load_corpus, load_items
from legoray.data.prepare import Prepared

Row = tuple[int, str, int, list[str], list[str], list[str]]


def arrived(made: Prepared, split: str) -> list[Row]:
    """(impression, user, time, history, clicked, others) of each impression of a split."""
    corpus = load_corpus(made.tables)
    keys = load_items(made.tables, ["key"])["key"].to_pylist()
    users = pq.read_table(made.tables / "users")["key"].to_pylist()
    part = corpus.splits[split]
    rows = []
    for i in range(len(part)):
        start = corpus.history_offsets[part.history[i]]
        past = corpus.history_items[start : start + part.history_end[i]].tolist()
        shown = slice(part.offsets[i], part.offsets[i + 1])
        items = [keys[item - 1] for item in part.item[shown]]
        clicks = part.clicks[i]
        assert part.label[shown].tolist() == [1] * clicks + [0] * (len(items) - clicks)
        rows.append(
            (
                int(part.impression[i]),
                users[part.user[i]],
                int(part.time[i]),
                [keys[item - 1] for item in past],
                items[:clicks],
                items[clicks:],
            )
        )
    return rows


def split_times(made: Prepared) -> dict[str, tuple[int, int]]:
    """The first and the last time of each split."""
    corpus = load_corpus(made.tables)
    return {name: (int(s.time.min()), int(s.time.max())) for name, s in corpus.splits.items()}
