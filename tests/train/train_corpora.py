"""Small corpora made by hand for the tests of training."""

import numpy as np

from legoray.data.corpus import Corpus, Split


def make_split(rng, impressions, items, histories, *, most=9, without_others=0.1):
    """Random impressions with their clicks first; some have no non-click."""
    clicks = rng.integers(1, 3, impressions)
    others = rng.integers(1, most, impressions)
    others[rng.random(impressions) < without_others] = 0
    sizes = clicks + others
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    item = np.concatenate([rng.choice(items - 1, n, replace=False) + 1 for n in sizes])
    label = np.concatenate([np.repeat([1, 0], [c, o]) for c, o in zip(clicks, others, strict=True)])
    history = rng.integers(0, len(histories), impressions)
    end = np.array([rng.integers(0, len(histories[h]) + 1) for h in history])
    return Split(
        impression=np.arange(impressions, dtype=np.int64) + 100,
        history=history.astype(np.int32),
        history_end=end.astype(np.int32),
        user=(history // 2).astype(np.int32),
        time=np.full(impressions, -1, dtype=np.int64),
        offsets=offsets.astype(np.int64),
        clicks=clicks.astype(np.int32),
        item=item.astype(np.int32),
        label=label.astype(np.int8),
    )


def make_corpus(seed=0, *, items=60, users=20, impressions=80, longest=12):
    """A corpus with random histories (some empty) and splits."""
    rng = np.random.default_rng(seed)
    histories = [rng.integers(1, items, rng.integers(0, longest)) for _ in range(users)]
    lengths = np.array([len(history) for history in histories])
    return Corpus(
        name="made",
        fingerprint=f"made-{seed}",
        item_count=items,
        history_items=np.concatenate(histories).astype(np.int32),
        history_offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        splits={
            "train": make_split(rng, impressions, items, histories),
            "valid": make_split(rng, impressions // 2, items, histories, most=30),
            "test": make_split(rng, impressions // 2, items, histories, most=30),
        },
    )
