"""A made-up corpus of MIND's size and shape, as the arrays and tables that training reads.

Counts and mean lengths are those of MIND-small (Wu et al., ACL 2020, and its files); histories and
titles are log-normal and as skewed as MIND's. The item of popularity rank r is drawn in proportion
to 1 / (r + 30): the most popular hundredth of all items makes up two fifths of what is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from legoray.config import ModelConfig, TrainConfig, TrialConfig, build
from legoray.data.corpus import Corpus, Split
from legoray.data.ragged import offsets_of
from legoray.data.schema import SCHEMA_VERSION, Manifest, items_schema
from legoray.model.presets import merged, preset
from legoray.records import write_json
from legoray.train.job import Job

MODELS = ("naml", "nrms", "lstur", "dcn-text", "fastformer")
LENGTH, HISTORY = 30, 50  # tokens of a title and items of a history that a model reads at most
HEAD = 30  # ranks below which popularity is about the same


@dataclass(frozen=True)
class Size:
    """How large a corpus is; the defaults are MIND-small's."""

    impressions: int = 156_965
    items: int = 65_238
    users: int = 50_000
    words: int = 30_000  # distinct ones in titles
    history: float = 32.0  # items, mean
    candidates: float = 37.0  # of an impression, mean
    clicks: float = 1.5  # of an impression, mean
    title: float = 10.7  # words, mean


LARGE = Size(impressions=2_232_748, items=161_013, users=711_222, words=60_000)  # MIND-large


def made_corpus(size: Size, seed: int = 0) -> Corpus:
    """Impressions of users whose histories are stored once; valid holds a few of train's."""
    rng = np.random.default_rng(seed)
    lengths = _lengths(rng, size.users, size.history, 1)
    lengths[rng.random(size.users) < 0.02] = 0
    train = _split(rng, size, lengths)
    return Corpus(
        name="made",
        fingerprint=f"made-{size}-{seed}".replace(" ", ""),
        item_count=size.items + 1,
        history_items=_popular(rng, size.items, int(lengths.sum())),
        history_offsets=offsets_of(lengths),
        splits={"train": train, "valid": head_of(train, 8), "test": head_of(train, 8)},
    )


def head_of(split: Split, count: int) -> Split:
    """The first impressions of a split."""
    rows = int(split.offsets[count])
    return Split(
        impression=split.impression[:count],
        history=split.history[:count],
        history_end=split.history_end[:count],
        user=split.user[:count],
        time=split.time[:count],
        offsets=split.offsets[: count + 1],
        clicks=split.clicks[:count],
        item=split.item[:rows],
        label=split.label[:rows],
    )


def _split(rng: np.random.Generator, size: Size, lengths: NDArray[np.int64]) -> Split:
    count = size.impressions
    user = rng.integers(0, size.users, count).astype(np.int32)
    shown = _lengths(rng, count, size.candidates, 2)
    clicks = np.minimum(rng.geometric(1 / size.clicks, count), shown - 1)
    offsets = offsets_of(shown)
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], shown)
    return Split(
        impression=np.arange(count, dtype=np.int64),
        history=user,
        history_end=lengths[user].astype(np.int32),
        user=user,
        time=np.full(count, -1, np.int64),
        offsets=offsets,
        clicks=clicks.astype(np.int32),
        item=_popular(rng, size.items, int(offsets[-1])),
        label=(place < np.repeat(clicks, shown)).astype(np.int8),
    )


def _lengths(
    rng: np.random.Generator, count: int, mean: float, least: int, sigma: float = 0.9
) -> NDArray[np.int64]:
    drawn = rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, count).astype(np.int64) + 1
    return np.clip(drawn, least, int(10 * mean))


def _popular(rng: np.random.Generator, items: int, count: int) -> NDArray[np.int32]:
    """Items drawn by popularity; which items are popular has nothing to do with their number."""
    share = rng.random(count, dtype=np.float32)
    rank = (HEAD * ((items + HEAD) / HEAD) ** share - HEAD).astype(np.int64).clip(0, items - 1)
    return (np.random.default_rng(9).permutation(items).astype(np.int32) + 1)[rank]


def write_tables(folder: Path, corpus: Corpus, size: Size, seed: int = 0) -> Path:
    """The items with their titles and the manifest, as preparation writes them."""
    rng = np.random.default_rng(seed)
    count = size.items
    lengths = _lengths(rng, count, size.title, 2, sigma=0.45)
    word = (rng.random(int(lengths.sum())) ** 2 * size.words).astype(np.int64)
    words = pa.array([f"w{number}" for number in range(size.words)]).take(pa.array(word))
    lists = pa.ListArray.from_arrays(pa.array(offsets_of(lengths).astype(np.int32)), words)
    titles = pa.compute.binary_join(lists, " ")
    numbers = np.arange(1, count + 1, dtype=np.int32)
    columns = {"item_id": numbers, "key": [f"N{number}" for number in numbers], "title": titles}
    (folder / "items").mkdir(parents=True)
    pq.write_table(pa.table(columns).cast(items_schema(["title"])), folder / "items" / "0.parquet")
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
        max_history=HISTORY,
        labeled=dict.fromkeys(corpus.splits, True),
        counts={"items": count},
        sources=[],
        files=["items/0.parquet"],
    )
    write_json(folder / "manifest.json", manifest)
    return folder


def model_config(name: str, hidden: int, **content: object) -> ModelConfig:
    """A preset's model in some width, reading titles."""
    data = merged(preset(name).model, {"hidden_size": hidden})
    if name != "id":
        data = merged(data, {"content": {"length": LENGTH, **content}})
    return build(ModelConfig, data)


def trial(model: ModelConfig, batch: int, **train: object) -> TrialConfig:
    """A training of a model with 4 negatives."""
    given = {"batch_size": batch, "negatives": 4, "max_history": HISTORY, **train}
    settings = build(TrainConfig, given)
    return TrialConfig(model=model, train=settings, seed=1)


def job_of(config: TrialConfig, tables: Path, folder: Path) -> Job:
    """A job on the tables; caches lie beside them."""
    home = str(tables.parent / "home")
    return Job(config=config, tables=str(tables), home=home, folder=str(folder))
