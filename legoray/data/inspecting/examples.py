"""A few impressions of a split, with texts in place of numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from legoray.data.corpus import Int32, Int64
from legoray.data.inspecting.result import Candidate, Example, SplitFacts
from legoray.data.inspecting.rows import blocks_of, files_of, histories_of
from legoray.data.inspecting.texts import column_of
from legoray.data.load import read_files
from legoray.data.schema import Manifest

HISTORY = 8  # items of an example's history that are shown, the last ones
CANDIDATES = 12  # candidates that are shown, clicks first
LENGTH = 160  # characters of a text


@dataclass(frozen=True)
class _Drawn:
    """An impression as the tables have it."""

    id: int
    history: int
    end: int
    time: int
    item: Int32
    label: NDArray[np.int8]


def draw_examples(
    tables: Path, manifest: Manifest, split: SplitFacts, *, count: int, seed: int
) -> list[Example]:
    """Impressions drawn at random.

    Args:
        tables: folder of the prepared tables.
        manifest: of these tables.
        split: where to draw from.
        count: how many at most.
        seed: of the draw.
    """
    if not count or not split.impressions:
        return []
    random = np.random.Generator(np.random.PCG64(seed))
    chosen = np.sort(random.choice(split.impressions, min(count, split.impressions), False))
    drawn = list(_drawn(tables, manifest, split.name, chosen))
    histories = _histories(tables, manifest, sorted({one.history for one in drawn}))
    numbers = {int(n) for one in drawn for n in one.item[:CANDIDATES]}
    numbers |= {int(n) for one in drawn for n in _last(histories[one.history][1], one.end)}
    titles = _titles(tables, manifest, sorted(numbers))
    users = _users(tables, manifest, sorted({user for user, _ in histories.values()}))
    return [_example(one, split, histories, titles, users) for one in drawn]


def _drawn(tables: Path, manifest: Manifest, split: str, chosen: Int64) -> Iterator[_Drawn]:
    begin = 0
    for block in blocks_of(tables, manifest, split):
        inside = chosen[(chosen >= begin) & (chosen < begin + len(block.id))] - begin
        for i in inside.tolist():
            rows = slice(block.offsets[i], block.offsets[i + 1])
            order = np.argsort(-block.label[rows], kind="stable")
            yield _Drawn(
                id=int(block.id[i]),
                history=int(block.history[i]),
                end=int(block.end[i]),
                time=int(block.time[i]),
                item=block.item[rows][order],
                label=block.label[rows][order],
            )
        begin += len(block.id)


def _histories(
    tables: Path, manifest: Manifest, numbers: list[int]
) -> dict[int, tuple[int, Int32]]:
    """Some histories by their numbers: the user, and the items."""
    found, begin = {}, 0
    for user, offsets, items in histories_of(tables, manifest):
        for number in numbers:
            if begin <= number < begin + len(user):
                i = number - begin
                found[number] = (int(user[i]), items[offsets[i] : offsets[i + 1]])
        begin += len(user)
    return found


def _last(items: Int32, end: int) -> Int32:
    return items[max(end - HISTORY, 0) : end]


def _titles(tables: Path, manifest: Manifest, numbers: list[int]) -> dict[int, str]:
    """The items' texts, as text operators read them by default; their keys where these are blank.

    Args:
        tables: folder of the prepared tables.
        manifest: of these tables.
        numbers: item ids, from 1.
    """
    rows = pa.array(np.array(numbers, np.int64) - 1)
    names = manifest.text
    columns = [column_of(tables, manifest, name, "items").take(rows).to_pylist() for name in names]
    keys = _keys(tables, manifest, "items").take(rows).to_pylist()
    texts = [[_cut(texts[i] or "") for texts in columns] for i in range(len(numbers))]
    shown = [" | ".join(filter(None, parts)) for parts in texts]
    return {n: text or f"[{key}]" for n, text, key in zip(numbers, shown, keys, strict=True)}


def _users(
    tables: Path, manifest: Manifest, numbers: list[int]
) -> dict[int, tuple[str, dict[str, str]]]:
    """The keys of users, and what is known of them."""
    rows = pa.array(np.array(numbers, np.int64))
    keys = _keys(tables, manifest, "users").take(rows).to_pylist()
    known: list[dict[str, str]] = [{} for _ in numbers]
    for name in manifest.user_attributes:
        texts = column_of(tables, manifest, name, "users").take(rows).to_pylist()
        for attributes, text in zip(known, texts, strict=True):
            if text:
                attributes[name] = _cut(text)
    return dict(zip(numbers, zip(keys, known, strict=True), strict=True))


def _keys(tables: Path, manifest: Manifest, of: str) -> pa.ChunkedArray:
    return pa.concat_tables(read_files(files_of(tables, manifest, of), ["key"]))["key"]


def _example(
    one: _Drawn,
    split: SplitFacts,
    histories: dict[int, tuple[int, Int32]],
    titles: dict[int, str],
    users: dict[int, tuple[str, dict[str, str]]],
) -> Example:
    user, items = histories[one.history]
    key, attributes = users[user]
    shown = zip(one.item[:CANDIDATES].tolist(), one.label[:CANDIDATES].tolist(), strict=True)
    return Example(
        split=split.name,
        impression=one.id,
        user=key,
        user_attributes=attributes,
        time=one.time if one.time >= 0 else None,
        history=[titles[n] for n in _last(items, one.end).tolist()],
        history_length=one.end,
        candidates=[
            Candidate(text=titles[n], clicked=bool(label) if split.labeled else None)
            for n, label in shown
        ],
        candidates_count=len(one.item),
        alone=split.alone,
    )


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LENGTH else line[: LENGTH - 3].rstrip() + "..."
