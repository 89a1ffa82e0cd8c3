"""Files in MIND's format with the size and shape of MIND-small, times a factor.

Counts are those of MIND-small (Wu et al., ACL 2020, and its files): a user's history is the same in
all impressions of a part, some are empty, popular news are shown more often, and the news of both
parts overlap. Words and entities are made up. Whole arrays are drawn: 1x takes 2 s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NEWS, USERS, WORDS = 65_238, 94_057, 40_000
HISTORY, CANDIDATES, CLICKS = 32.0, 37.0, 1.5  # means
STEP = 50_000  # impressions written at a time
FIRST_DAY = 1_573_257_600  # 9 November 2019


@dataclass(frozen=True)
class Part:
    """One official part: its impressions, days, and the shares of all news and users in it."""

    name: str
    impressions: int
    days: tuple[float, float]
    news: tuple[float, float]
    users: tuple[float, float]


PARTS = (
    Part("train", 156_965, (0, 6), (0, 0.786), (0, 0.5316)),
    Part("dev", 73_152, (6, 7), (0.35, 1), (0.4684, 1)),
)


def write_mind(folder: Path, factor: float) -> int:
    """Write train and dev with `factor` times the impressions, users and news of MIND-small.

    Returns:
        How many candidates there are.
    """
    random = np.random.default_rng(1)
    keys = _named("N", np.arange(int(NEWS * factor)))
    words = _vocabulary(random)
    for part in PARTS:
        (folder / part.name).mkdir(parents=True)
    for start in range(0, len(keys), STEP):
        lines = _news(random, keys.slice(start, STEP), words)
        for part in PARTS:
            first, end = (max(at - start, 0) for at in _range(part.news, len(keys)))
            with (folder / part.name / "news.tsv").open("ab") as file:
                _write(file, lines.slice(first, max(end - first, 0)))
    rows = 0
    for part in PARTS:
        with (folder / part.name / "behaviors.tsv").open("wb") as file:
            for lines, count in _impressions(random, part, keys, factor):
                _write(file, lines)
                rows += count
    return rows


def _vocabulary(random: np.random.Generator) -> pa.Array:
    letters = np.array(list("etaoinsrhldcumfpgwybvk"))
    drawn = letters[(random.random((WORDS, 9)) ** 1.5 * len(letters)).astype(np.int64)]
    sizes = random.integers(2, 10, WORDS)
    return pa.array(["".join(row[:size]) for row, size in zip(drawn, sizes, strict=True)])


def _news(random: np.random.Generator, keys: pa.Array, words: pa.Array) -> pa.Array:
    """A line for each news."""
    count = len(keys)
    entity = (
        '[{"Label": "Entity %d", "Type": "P", "WikidataId": "Q%d", "Confidence": 1.0, '
        '"OccurrenceOffsets": [48], "SurfaceForms": ["Entity %d"]}]'
    )
    entities = pa.array([entity % (n, n * 7, n) for n in range(2000)])
    kinds = [f"kind{number}" for number in range(18)]
    abstract = _lists(random, count, 37, 1, len(words))
    abstract[0][random.random(count) < 0.05] = 0  # some have none
    return pc.binary_join_element_wise(
        keys,
        pa.array(kinds).take(pa.array(random.integers(0, 18, count))),
        pa.array([f"{kinds[n % 18]}{n}" for n in range(270)]).take(
            pa.array(random.integers(0, 270, count))
        ),
        _texts(*_lists(random, count, 10.7, 2, len(words)), words),
        _texts(*abstract, words),
        pc.binary_join_element_wise("https://assets.example/labs/mind/", keys, ".html", ""),
        *[entities.take(pa.array(random.integers(0, 2000, count))) for _ in range(2)],
        "\t",
    )


def _impressions(
    random: np.random.Generator, part: Part, keys: pa.Array, factor: float
) -> Iterator[tuple[pa.Array, int]]:
    """Lines of behaviors.tsv, and how many candidates they have."""
    total = int(part.impressions * factor)
    first_user, end_user = _range(part.users, int(USERS * factor))
    first_news, end_news = _range(part.news, len(keys))
    length, item = _lists(random, end_user - first_user, HISTORY, 1, end_news)
    length[random.random(len(length)) < 0.02] = 0
    past = _texts(length, item, keys)
    users = _named("U", np.arange(first_user, end_user))
    shown = [
        _words(keys.slice(first_news, end_news - first_news), ending) for ending in ("-0", "-1")
    ]
    both, news = pa.concat_arrays(shown), end_news - first_news
    for start in range(0, total, STEP):
        size = min(STEP, total - start)
        user = pa.array(random.integers(0, len(users), size))
        count, item = _lists(random, size, CANDIDATES, 2, news)
        clicked = random.random(len(item)) < CLICKS / CANDIDATES
        line = pc.binary_join_element_wise(
            _named("", np.arange(start + 1, start + size + 1)),
            users.take(user),
            _times(random, size, part.days),
            past.take(user),
            _texts(count, item + news * clicked, both),
            "\t",
        )
        yield line, int(count.sum())


def _lists(
    random: np.random.Generator, count: int, mean: float, least: int, below: int
) -> tuple[Any, Any]:
    """Lengths (log-normal, as skewed as MIND's) and elements, low numbers more often."""
    sigma = 0.9
    length = random.lognormal(np.log(mean) - sigma**2 / 2, sigma, count).astype(np.int64) + 1
    length = np.clip(length, least, int(10 * mean))
    return length, (random.random(int(length.sum())) ** 2 * below).astype(np.int64)


def _texts(length: Any, element: Any, words: pa.Array) -> pa.Array:
    """Words of each list with spaces between; elements beyond the lengths' sum are not used."""
    offsets = np.append(0, np.cumsum(length)).astype(np.int32)
    taken = words.take(pa.array(element[: offsets[-1]]))
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), taken), " ")


def _times(random: np.random.Generator, count: int, days: tuple[float, float]) -> pa.Array:
    seconds = FIRST_DAY + (random.uniform(*days, count) * 86_400).astype(np.int64)
    text = pc.strftime(pa.array(seconds).cast(pa.timestamp("s")), format="%m/%d/%Y %I:%M:%S %p")
    return pc.replace_substring_regex(text, r"(^| )0", r"\1")


def _named(letter: str, numbers: Any) -> pa.Array:
    return _words(pa.array(numbers).cast(pa.string()), "", letter)


def _words(words: pa.Array, ending: str, start: str = "") -> pa.Array:
    return pc.binary_join_element_wise(start, words, ending, "")


def _range(shares: tuple[float, float], count: int) -> tuple[int, int]:
    return int(shares[0] * count), int(shares[1] * count)


def _write(file: Any, lines: pa.Array) -> None:
    """The lines of an array, each with its end."""
    if not len(lines):
        return
    joined = pc.binary_join(pa.ListArray.from_arrays([0, len(lines)], lines), "\n")
    file.write(joined[0].as_buffer())
    file.write(b"\n")
