"""The rows that need no model: random and popularity, each measured once in a sweep."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from legoray.records import TrialRecord, digest
from legoray.search.comparing import keep_baseline
from legoray.search.sweep import ENDED, Sweep
from legoray.spaceconfig import SpaceConfig

if TYPE_CHECKING:
    from legoray.data.corpus import Corpus


def run_baselines(
    sweep: Sweep,
    config: SpaceConfig,
    corpus: Callable[[], Corpus],
    *,
    labeled: Mapping[str, bool],
    push: Callable[[TrialRecord], None],
) -> None:
    """Measure what is not on record, and keep the values of each group of the test.

    Args:
        sweep: where records go.
        config: which baselines, and how they are measured.
        corpus: loads the data; asked only where something is left to do.
        labeled: whether the labels of a split are known.
        push: takes a record that has ended.
    """
    for name in config.final.baselines:
        content = {"baseline": name, "seed": config.seed, "metrics": config.evaluate.metrics}
        key = digest({**content, "data": sweep.info.fingerprint})
        known = sweep.find(key, "baseline")
        if known is None or known.status not in ENDED:
            push(_measured(sweep, config, corpus(), name, key, labeled))
        if labeled.get("test"):
            keep_baseline(sweep.model_folder(key), name, corpus, config.evaluate, config.seed)


def _measured(
    sweep: Sweep,
    config: SpaceConfig,
    corpus: Corpus,
    name: str,
    key: str,
    labeled: Mapping[str, bool],
) -> TrialRecord:
    from legoray.train.baselines import baseline_metrics

    record = sweep.begin(key, "baseline", name, {}, {})
    values = {
        split: baseline_metrics(
            name, corpus, split, config.evaluate, config.seed, slices=split == "test"
        )
        for split in ("valid", "test")
        if labeled.get(split)
    }
    return sweep.change(
        record.number,
        status="completed",
        best=values.get("valid", {}),
        test=values.get("test", {}),
        ended=time.time(),
    )
