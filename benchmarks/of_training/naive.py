"""Training steps against research code's: every occurrence encoded, rows collated one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from legoray.data.recipes import Tokens
from legoray.model import blocks
from legoray.model.base import Batch, History
from legoray.model.features import TokenFeatures
from of_training.common import Data, Opened, data_of, fastest, opened, plain_optimizer, table
from of_training.world import HISTORY, LENGTH, MODELS, Size, model_config, trial

PART = 32  # samples that research code is timed on at once: 512 would not fit into memory


class Rows(Dataset[dict[str, Any]]):
    """One sample at a time: the padded tokens of its history and of its candidates."""

    def __init__(self, own: Opened, count: int) -> None:
        self._own, self._count = own, count
        corpus = own.data.corpus
        self._split, self._items = corpus.splits["train"], corpus.history_items
        self._offsets = corpus.history_offsets
        features = own.inputs.items
        assert isinstance(features, TokenFeatures)
        tokens = features.gather(torch.arange(features.item_count))
        self._ids = np.zeros((features.item_count, LENGTH), np.int64)
        self._ids[:, : tokens.ids.shape[1]] = tokens.ids.numpy()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        split, samples = self._split, self._own.samples
        impression = samples.impression[index]
        start = self._offsets[split.history[impression]]
        items = self._items[start : start + split.history_end[impression]][-HISTORY:]
        history = np.zeros(HISTORY, np.int64)
        history[: len(items)] = items
        candidates = split.item[samples.rows[index]].astype(np.int64)
        return {
            "history": self._ids[history],
            "mask": history > 0,
            "candidates": self._ids[candidates],
            "labels": split.label[samples.rows[index]].astype(np.float32),
            "user": self._own.data.corpus.known_users[split.user[impression]],
        }


@contextmanager
def one_block() -> Iterator[None]:
    """Everything is computed at its padded size."""
    before = dict(blocks.PLACES)
    blocks.PLACES["cpu"] = 2**60
    try:
        yield
    finally:
        blocks.PLACES.update(before)


def naive_loss(own: Opened, rows: dict[str, Tensor]) -> Tensor:
    """The mean loss of a batch of padded tokens, every occurrence of an item encoded."""
    both = torch.cat([rows["history"], rows["candidates"]], dim=1)  # [B, H + K, L]
    ids = both.flatten(0, 1)
    with one_block():
        vectors = own.model.encode_items(Tokens(ids, ids > 0, torch.zeros_like(ids)))
        vectors = vectors.unflatten(0, both.shape[:2])
        history = History(vectors[:, :HISTORY], rows["mask"], rows["user"])
        user = own.model.encode_users(history)
        scores = own.model.score(user, vectors[:, HISTORY:])
    return own.loss(scores, rows["labels"])


def check_equal(own: Opened) -> float:
    """The difference of both losses without dropout.

    Raises:
        AssertionError: it is larger than 1e-4.
    """
    own.model.eval()
    loader: Any = DataLoader(Rows(own, PART), batch_size=PART)
    with torch.no_grad():
        theirs = float(naive_loss(own, next(iter(loader))))
        batch = own.batch(0, PART)
        ours = float(own.loss(own.model(batch), batch.labels))
    own.model.train()
    assert abs(ours - theirs) < 1e-4, f"losses {ours} and {theirs}"
    return abs(ours - theirs)


def encode_distinct(own: Opened, batch: Batch) -> Callable[[], None]:
    """Forward and backward of the content operator alone, on items without any padding.

    Items of exactly the same length stand together, in blocks of the size that is fastest.
    """
    tokens = batch.items
    assert isinstance(tokens, Tokens)
    lengths = tokens.mask.sum(dim=1)
    parts = []
    for length in lengths[lengths > 0].unique().tolist():
        rows = torch.nonzero(lengths == length).flatten()
        for some in rows.split(max(blocks.PLACES["cpu"] // length, 1)):
            cut = (tokens.ids[some, :length], tokens.mask[some, :length])
            parts.append(Tokens(*cut, tokens.attribute[some, :length]))

    def work() -> None:
        own.model.zero_grad(set_to_none=True)
        joined = torch.cat([own.model.encode_items(part) for part in parts])
        joined.sum().backward()

    return work


def predict_pairs(own: Opened, batch: Batch) -> Callable[[], None]:
    """Forward and backward of the click predictor alone, on users and candidates that are ready."""
    with torch.no_grad():
        table = F.pad(own.model.encode_items(batch.items), (0, 0, 1, 0))
        history = History(table[batch.history], batch.history > 0, batch.users)
        state = own.model.encode_users(history)
    user = dataclasses.replace(state, values=state.values.detach().requires_grad_())
    candidates = table[batch.candidates].requires_grad_()

    def work() -> None:
        own.model.zero_grad(set_to_none=True)
        own.loss(own.model.score(user, candidates), batch.labels).backward()

    return work


def compare(data: Data, name: str, hidden: int, batch_size: int, rounds: int) -> dict[str, float]:
    """Processor seconds a sample: ours, theirs, of encoding alone, and with predicting."""
    own = opened(data, trial(model_config(name, hidden), batch_size))
    difference = check_equal(own)
    plain = own.twin()
    runner = own.runner()
    optimizer = plain_optimizer(plain.model, own.config)
    loader: Any = iter(DataLoader(Rows(own, 10**9), batch_size=min(PART, batch_size)))
    parts = batch_size // min(PART, batch_size)
    numbers = iter(range(10**6))

    def ours() -> None:
        runner.steps(own.samples, 1, next(numbers), 1)

    def theirs() -> None:
        naive_loss(plain, next(loader)).backward()

    ours()
    batch = own.batch(0)
    encode, predict = encode_distinct(plain, batch), predict_pairs(plain, batch)
    stepped = fastest(rounds, ours, theirs, encode, optimizer.step, predict)
    naive = stepped[1] * parts + stepped[3]
    return {
        "ours": stepped[0] / batch_size,
        "naive": naive / batch_size,
        "limit": stepped[2] / batch_size,
        "needed": (stepped[2] + stepped[4]) / batch_size,
        "difference": difference,
    }


def run(folder: Path, *, full: bool) -> dict[str, float]:
    """Print the table; name of a ratio -> value."""
    data = data_of(folder, Size() if full else Size(impressions=20_000))
    wide, rounds = ((64, 256) if full else (64,)), (5 if full else 3)
    rows, found = [], {}
    for name in MODELS:
        for hidden in wide:
            for batch in (64, 512):
                one = compare(data, name, hidden, batch, rounds)
                ratio = one["naive"] / one["ours"]
                found[f"naive/{name}/{hidden}/{batch}"] = ratio
                found[f"naive-limit/{name}/{hidden}/{batch}"] = one["limit"] / one["ours"]
                found[f"naive-needed/{name}/{hidden}/{batch}"] = one["needed"] / one["ours"]
                speeds = [f"{1 / one[key]:,.0f}" for key in ("naive", "ours")]
                ratios = [f"{ratio:.1f}", f"{one['naive'] / one['limit']:.1f}"]
                ratios += [f"{one['ours'] / one[key]:.2f}" for key in ("limit", "needed")]
                ratios += [f"{one['difference']:.0e}"]
                rows.append([name, str(hidden), str(batch), *speeds, *ratios])
                print("  " + " ".join(rows[-1]), flush=True)
    head = ["model", "D", "batch", "research code, samples/s", "LegoRay, samples/s", "x"]
    head += ["x of encoding alone", "step / encoding", "step / (encoding + prediction)"]
    head += ["difference of losses"]
    table("Training steps against research code", head, rows)
    return found
