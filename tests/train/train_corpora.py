"""Small corpora made by hand for the tests of training: readers who click on one topic each."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from legoray.config import TrialConfig, build
from legoray.data.corpus import Corpus, Split
from legoray.data.schema import SCHEMA_VERSION, Manifest, items_schema
from legoray.records import write_json
from legoray.train.job import Job

TOPICS = 4
WORDS = ["match goal team", "vote law party", "star film song", "bank price stock"]


def make_split(rng, impressions, items, histories, *, most=9, without_others=0.1, shortest=0):
    """Impressions with their clicks first; some have no non-click, some no history."""
    clicks = rng.integers(1, 3, impressions)
    others = rng.integers(1, most, impressions)
    others[rng.random(impressions) < without_others] = 0
    sizes = clicks + others
    history = rng.integers(0, len(histories), impressions)
    end = np.array([rng.integers(shortest, len(histories[h]) + 1) for h in history])
    item = []
    for h, c, o in zip(history, clicks, others, strict=True):
        all_items = rng.permutation(items - 1) + 1
        on_topic = all_items % TOPICS == h % TOPICS
        item += [*all_items[on_topic][:c], *all_items[~on_topic][:o]]
    label = np.concatenate([np.repeat([1, 0], [c, o]) for c, o in zip(clicks, others, strict=True)])
    return Split(
        impression=np.arange(impressions, dtype=np.int64) + 100,
        history=history.astype(np.int32),
        history_end=end.astype(np.int32),
        user=(history // 2).astype(np.int32),
        time=np.full(impressions, -1, dtype=np.int64),
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        clicks=clicks.astype(np.int32),
        item=np.array(item, dtype=np.int32),
        label=label.astype(np.int8),
    )


def make_corpus(seed=0, *, items=60, users=20, impressions=80, shortest=0, longest=12):
    """A corpus with histories of one topic each (some empty) and three splits."""
    rng = np.random.default_rng(seed)
    histories = [
        rng.integers(0, (items - 1 - h % TOPICS) // TOPICS, rng.integers(shortest, longest))
        * TOPICS
        + (h % TOPICS or TOPICS)
        for h in range(users)
    ]
    lengths = np.array([len(history) for history in histories])
    return Corpus(
        name="made",
        fingerprint=f"made-{seed}",
        item_count=items,
        history_items=np.concatenate(histories).astype(np.int32),
        history_offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        splits={
            name: make_split(
                rng, impressions // share, items, histories, most=most, shortest=shortest
            )
            for name, share, most in (("train", 1, 9), ("valid", 2, 30), ("test", 2, 30))
        },
        protocol={"split": "made by hand"},
    )


def against_all(corpus, *splits):
    """The same, but in these splits the clicks stand alone, to be ranked against all items."""
    changed = dict(corpus.splits)
    for name in splits or ("valid", "test"):
        split = changed[name]
        click = split.label == 1
        changed[name] = replace(
            split,
            offsets=np.concatenate([[0], np.cumsum(split.clicks)]).astype(np.int64),
            item=split.item[click],
            label=split.label[click],
            full_ranking=True,
        )
    return replace(corpus, splits=changed)


def with_slices(corpus, seed=0):
    """The same with three slices that overlap, and one that no impression is of."""
    rng = np.random.default_rng(seed)
    shares = {"cold-user": 0.3, "short-history": 0.5, "tail-item": 0.7, "cold-item": 0.0}
    changed = {
        name: replace(
            split, slices={one: rng.random(len(split)) < share for one, share in shares.items()}
        )
        for name, split in corpus.splits.items()
    }
    return replace(corpus, splits=changed)


def write_tables(folder, corpus, seed=0, *, distinct=False):
    """The items (with titles of their topic) and the manifest, as preparation writes them.

    Items may share a title, and then their scores but for rounding, unless they are `distinct`.
    """
    rng = np.random.default_rng(seed)
    number = np.arange(1, corpus.item_count)
    titles = [
        " ".join(rng.permutation([*WORDS[n % TOPICS].split(), f"w{n % 7}"])[: rng.integers(1, 5)])
        for n in number
    ]
    if distinct:  # by words that are frequent enough to be known
        titles = [f"{title} x{n % 8} y{n // 8}" for n, title in enumerate(titles)]
    columns = {"item_id": number.astype(np.int32), "key": [f"N{n}" for n in number]}
    table = pa.table({**columns, "title": titles}).cast(items_schema(["title"]))
    (folder / "items").mkdir(parents=True)
    pq.write_table(table, folder / "items" / "0.parquet")
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=corpus.name,
        title="",
        synthetic=True,
        processor="own",
        config_hash="0" * 16,
        fingerprint=corpus.fingerprint,
        attributes=["title"],
        text=["title"],
        group="impression",
        max_history=50,
        labeled=dict.fromkeys(corpus.splits, True),
        counts={"items": corpus.item_count - 1},
        sources=[],
        files=["items/0.parquet"],
    )
    write_json(folder / "manifest.json", manifest)
    return folder


def trial(content="id", behavior="pooling", predictor="dot", *, seed=1, evaluate=None, **train):
    """A small trial's configuration; parts by name or with settings."""
    parts = {"content": content, "behavior": behavior, "predictor": predictor}
    named = {k: {"name": v} if isinstance(v, str) else v for k, v in parts.items()}
    settings = {"epochs": 3, "batch_size": 16, "learning_rate": 0.02, "max_history": 8, **train}
    data = {
        "model": {"hidden_size": 16, **named},
        "train": settings,
        "evaluate": evaluate or {},
        "seed": seed,
    }
    return build(TrialConfig, data)


def make_job(tables, folder, config, **more):
    """A job on prepared tables; caches lie beside them."""
    home = Path(tables).parent / "home"
    return Job(config=config, tables=str(tables), home=str(home), folder=str(folder), **more)
