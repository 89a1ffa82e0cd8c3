"""Prepared tables -> all that is told of them."""

from __future__ import annotations

from pathlib import Path

from legoray.config import DatasetConfig
from legoray.data.inspecting.examples import draw_examples
from legoray.data.inspecting.result import Inspection, SliceFacts, SplitFacts
from legoray.data.inspecting.splits import (
    cold_of,
    pass_histories,
    pass_split,
    sparsity_of,
)
from legoray.data.inspecting.spread import popularity_of, timeline_of
from legoray.data.inspecting.texts import texts_of
from legoray.data.schema import SLICES, SPLITS, Manifest
from legoray.data.slices import seen_by_train


def measure(
    tables: Path, manifest: Manifest, config: DatasetConfig, *, examples: int = 3, seed: int = 0
) -> Inspection:
    """Look at all tables, a file at a time.

    Memory: one file of each table, one attribute's texts, eight bytes for each click, and arrays
    over users, items and histories; it does not grow with the candidates.

    Args:
        tables: folder of the prepared tables.
        manifest: of these tables.
        config: the YAML, for what it says of licence and source.
        examples: how many impressions to show.
        seed: of their draw.

    Raises:
        DamagedError: a file is missing or damaged.
    """
    histories = pass_histories(tables, manifest)
    names = [name for name in SPLITS if name in manifest.labeled]
    passes = {name: pass_split(tables, manifest, name, histories.user) for name in names}
    seen = seen_by_train(tables, histories.user, manifest.counts)
    splits = [one.facts(manifest) for one in passes.values()]
    later = [one for name, one in passes.items() if name != "train"]
    shown = _split_to_show(splits)
    return Inspection(
        manifest=manifest,
        licence=config.licence,
        citation=config.citation,
        url=config.url,
        tables=str(tables),
        splits=splits,
        sparsity=sparsity_of(list(passes.values()), manifest),
        stored=histories.lengths,
        cold=[cold_of(one, seen, manifest) for one in later],
        slices=_slices(manifest, names),
        popularity=popularity_of(passes["train"].clicked[1:], seen.head[1:]),
        timeline=timeline_of(list(passes.values())),
        texts=texts_of(tables, manifest),
        examples=draw_examples(tables, manifest, shown, count=examples, seed=seed),
    )


def _slices(manifest: Manifest, splits: list[str]) -> list[SliceFacts]:
    """How many impressions are marked with each slice."""
    counts = manifest.counts
    return [
        SliceFacts(slice=name, impressions={split: counts[f"{name}/{split}"] for split in splits})
        for name in SLICES
    ]


def _split_to_show(splits: list[SplitFacts]) -> SplitFacts:
    """Where examples are drawn from: valid, or train where valid holds nothing."""
    order = sorted(splits, key=lambda one: ("valid", "train", "test").index(one.name))
    return next((one for one in order if one.impressions), order[0])
