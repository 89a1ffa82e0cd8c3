"""Writes the synthetic news corpus `datasets/mind_sample` in MIND's raw format.

    python datasets/make_mind_sample.py            # datasets/mind_sample again, byte for byte
    python datasets/make_mind_sample.py --report   # counts, share of unseen items, reference AUCs
    python datasets/make_mind_sample.py --scale 50 --out /data/mind_big

How a click comes about: every news item has a topic, a tone and names, and its headline says all
three in one of many wordings (mind_sample_words.txt). Every reader has a few favourite categories,
in each of them one or two favourite subcategories, tones that he likes or dislikes (in some
categories other ones: sports, but only if upbeat), a few names that he follows, and one interest
that is on his mind just now. Alarming news and the weather are read by everybody and say little
about anybody. He clicks on what fits best, plus noise. News lives about a day, so most of what is
to be ranked in the last days was never seen in training, and what it is about must be read.

`--report` measures on dev, impression-averaged AUC: the tastes behind the clicks (oracle) .951,
popularity .502, a constant .500. Models trained on the files (dot predictor, test split, one or two
seeds, differing by up to .02), over 3 epochs in batches of 256 with histories of 12: identifiers
.49 to .50, cnn+additive .59 to .61, pooling+gru .61 to .63, pooling+pooling .65 to .66,
llm+additive (MiniLM, split 5, LoRA) .68; over 6 epochs in batches of 64 with histories of 30:
cnn+additive .62, pooling+additive .67, attention+additive .68; llm+additive, 3 such epochs, .69.
"""

from __future__ import annotations

import argparse
import json
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from mind_sample_text import Draws, News
from mind_sample_world import SEED, Impression, Settings, World, make_world

HERE = Path(__file__).resolve().parent
START = datetime(2026, 3, 5)  # train: 3/5 to 3/10, dev: 3/11, so days of one and of two digits


def write_world(world: World, folder: Path, seed: int = SEED) -> None:
    """Write `train` and `dev` as MIND has them, with some of its quirks."""
    draws = Draws(seed, 4)
    by_key = {item.key: item for item in world.news}
    archive = [item.key for item in world.news if item.published < 0]
    fresh = [item.key for item in world.news if item.published >= 0]
    lacking = {*draws.several(archive, 4), *draws.several(fresh, 2)}  # MIND's news lacks some too
    for part, rows in (("train", world.train), ("dev", world.dev)):
        used = {key for row in rows for key in row.history}
        used |= {world.news[place].key for row in rows for place in row.candidates}
        news = [by_key[key] for key in sorted(used - lacking)]
        bare = set(draws.several([item.key for item in news], 2))  # entities empty, not '[]'
        lines = [_news_line(item, world, item.key in bare) for item in news]
        _write(folder / part / "news.tsv", lines)
        rows = draws.shuffled(rows)
        lines = [_behavior_line(number, row, world) for number, row in enumerate(rows, 1)]
        _write(folder / part / "behaviors.tsv", lines)


def _write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    os.replace(new, path)


def _news_line(item: News, world: World, bare: bool) -> str:
    topic = world.words.topics[item.topic]
    title, brief = (
        "" if bare else _entities(text, item, world) for text in (item.title, item.abstract)
    )
    url = f"https://news.example/{item.key}.html"
    fields = [item.key, topic.category, topic.name, item.title, item.abstract, url, title, brief]
    return "\t".join(fields)


TYPES = {"org": "O", "person": "P", "place": "G"}


def _entities(text: str, item: News, world: World) -> str:
    """The names in a text, written as MIND writes them; the Wikidata numbers are of nothing."""
    found = []
    for kind, name in item.names.items():
        if name in text:
            number = 990000000 + zlib.crc32(name.encode()) % 1000000
            found.append(
                {
                    "Label": name,
                    "Type": TYPES[kind],
                    "WikidataId": f"Q{number}",
                    "Confidence": 1.0,
                    "OccurrenceOffsets": [text.index(name)],
                    "SurfaceForms": [name],
                }
            )
    return json.dumps(found)


def _behavior_line(number: int, row: Impression, world: World) -> str:
    time = START + timedelta(minutes=row.time, seconds=(row.time * 37 + number) % 60)
    half = "AM" if time.hour < 12 else "PM"
    clock = f"{time.hour % 12 or 12}:{time:%M:%S} {half}"
    candidates = " ".join(
        f"{world.news[place].key}-{label}"
        for place, label in zip(row.candidates, row.labels, strict=True)
    )
    date = f"{time.month}/{time.day}/{time.year} {clock}"
    return "\t".join([str(number), row.user, date, " ".join(row.history), candidates])


def mean_auc(rows: list[Impression], score: Callable[[Impression], Sequence[float]]) -> float:
    """Impression-averaged AUC, ties counted half; impressions of one label are left out."""
    values = []
    for row in rows:
        scores, labels = np.asarray(score(row), dtype=float), np.array(row.labels)
        gap = scores[labels == 1][:, None] - scores[labels == 0]
        if gap.size:
            values.append(np.mean((gap > 0) + 0.5 * (gap == 0)))
    return float(np.mean(values))


def report(world: World, valid_share: float = 0.15) -> dict[str, float]:
    """Counts, shares of unseen candidates, and the AUC of some scores on the dev part."""
    cut = len(world.train) - round(valid_share * len(world.train))
    early, late = world.train[:cut], world.train[cut:]
    clicks: dict[int, int] = {}
    for row in world.train:
        for place, label in zip(row.candidates, row.labels, strict=True):
            clicks[place] = clicks.get(place, 0) + label
    everything = world.train + world.dev
    return {
        "news": len(world.news),
        "users": len({row.user for row in everything}),
        "impressions/train": len(world.train),
        "impressions/dev": len(world.dev),
        "candidates per impression": _mean(len(row.candidates) for row in everything),
        "history": _mean(len(row.history) for row in everything),
        "empty histories": _mean(not row.history for row in everything),
        "valid candidates unseen before": _unseen(early, late, world),
        "dev candidates unseen in train": _unseen(world.train, world.dev, world),
        "dev items unseen in train": _unseen(world.train, world.dev, world, distinct=True),
        "auc/oracle": mean_auc(world.dev, lambda row: row.scores),
        "auc/random": mean_auc(world.dev, lambda row: [0.0] * len(row.scores)),
        "auc/popularity": mean_auc(
            world.dev, lambda row: [clicks.get(place, 0) for place in row.candidates]
        ),
    }


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _unseen(
    before: list[Impression], after: list[Impression], world: World, *, distinct: bool = False
) -> float:
    """Share of candidates in `after` that stand in no candidates and no history of `before`."""
    seen = {world.news[place].key for row in before for place in row.candidates}
    seen |= {key for row in before for key in row.history}
    keys = [world.news[place].key for row in after for place in row.candidates]
    return _mean(key not in seen for key in (set(keys) if distinct else keys))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write the synthetic news corpus mind_sample.")
    parser.add_argument("--out", type=Path, help="folder to write to; datasets/mind_sample itself")
    parser.add_argument("--scale", type=int, default=1, help="so many times the users and news")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--report", action="store_true", help="measure, and write nothing")
    args = parser.parse_args()
    if args.scale < 1:
        parser.error(f"--scale {args.scale}: 1 or more was expected")
    if args.out is None and not args.report and (args.scale, args.seed) != (1, SEED):
        parser.error("another --scale or --seed is another data set: give its folder with --out")
    world = make_world(Settings().scaled(args.scale), args.seed)
    if args.report:
        for name, value in report(world).items():
            print(f"{name:32s}{value:10.4f}" if isinstance(value, float) else f"{name:32s}{value}")
        return
    folder = args.out or HERE / "mind_sample"
    write_world(world, folder, args.seed)
    print(f"wrote {len(world.train) + len(world.dev)} impressions to {folder}")


if __name__ == "__main__":
    main()
