"""What the contract of all processors is checked with: their releases, and what tables hold.

Each family writes its raw files of one small world in a module `raw_<processor>.py`.
"""

from __future__ import annotations

import importlib
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from raw_files import prepared
from worlds import World, world

from legoray.data.load import load_corpus, load_items, load_users
from legoray.data.prepare import Prepared
from legoray.data.processors import PROCESSORS, processor_class
from legoray.data.processors.feedback import FeedbackProcessor
from legoray.model.inputs import Inputs
from legoray.train.batches import Collator, draw_samples

WORLD = world()


@dataclass(frozen=True, eq=False)
class Case:
    """A release of a family: how its files are written, and the options that read them."""

    processor: str
    release: str
    write: Callable[[Path, World], None]
    options: dict[str, Any]

    def prepare(self, folder: Path, world: World | None = None, **keys: Any) -> Prepared:
        """The world's files, written anew where one is given, and their tables."""
        if world is not None:
            shutil.rmtree(folder / "raw", ignore_errors=True)
            self.write(folder / "raw", world)
        options = {**self.options, **keys.pop("options", {})}
        return prepared(folder, self.processor, options=options, **keys)

    @property
    def feedback(self) -> FeedbackProcessor | None:
        cls = processor_class(self.processor)
        made = cls(cls.Options.model_validate(self.options))
        return made if isinstance(made, FeedbackProcessor) else None


def raw_module(name: str) -> ModuleType | None:
    """The module that writes a processor's raw files, if there is one."""
    if not (Path(__file__).parent / f"raw_{name}.py").exists():
        return None
    return importlib.import_module(f"raw_{name}")


def cases() -> Iterator[Case]:
    for name in PROCESSORS:
        module = raw_module(name)
        if module is not None:
            yield Case(name, "", module.write_raw, module.OPTIONS)
            for release, (write, options) in getattr(module, "RELEASES", {}).items():
                yield Case(name, release, write, options)


CASES = list(cases())
each = pytest.mark.parametrize("case", CASES, ids=[f"{c.processor} {c.release}" for c in CASES])
FIRST = [case for case in CASES if not case.release]
each_family = pytest.mark.parametrize("case", FIRST, ids=[case.processor for case in FIRST])


@dataclass(frozen=True)
class Seen:
    """An interaction by the world's keys."""

    split: str
    time: int
    user: str
    clicked: frozenset[str]
    history: tuple[str, ...]
    shown: frozenset[str]

    def without_candidates(self, *, ordered: bool = True) -> tuple[Any, ...]:
        """What does not depend on negatives; the history as a set where its order is open."""
        history = self.history if ordered else frozenset(self.history)
        return (self.time, self.user, self.clicked, history)


def batches_in(made: Prepared) -> list[dict[str, list[Any]]]:
    """The training batches of the first epoch, by the world's keys."""
    corpus, users, items = load_corpus(made.tables), *keys_of(made)
    split = corpus.splits["train"]
    samples = draw_samples(split, task="matching", negatives=2, seed=1, epoch=1)
    collate = Collator(corpus, split, Inputs(Ids()), max_history=8)  # type: ignore[arg-type]
    found = []
    for start in range(0, len(samples), 16):
        impression, rows = samples.impression[start:][:16], samples.rows[start:][:16]
        batch = collate(impression, rows)
        keys = np.array(["", *(items[n] for n in batch.items.tolist())])  # type: ignore[union-attr]
        shown = {name: keys[getattr(batch, name).numpy()] for name in ("history", "candidates")}
        who = [users[number] for number in split.user[impression]]
        labels = batch.labels.tolist()
        found.append({"users": who, "labels": labels, **{n: k.tolist() for n, k in shown.items()}})
    return found


class Ids:
    """Items as their numbers."""

    def gather(self, items: Any) -> Any:
        return items


def keys_of(made: Prepared) -> tuple[list[str], list[str]]:
    """The world's keys of users and, from 1, items."""
    users = [world_key(key) for key in load_users(made.tables, ["key"])["key"].to_pylist()]
    items = [world_key(key) for key in load_items(made.tables, ["key"])["key"].to_pylist()]
    return users, ["", *items]


def world_key(key: str) -> str:
    """Families write the world's numbers in their own way: N1001, 0000001001."""
    found = re.search(r"(\d+)$", key)
    return str(int(found[1])) if found else key


def seen_in(made: Prepared) -> list[Seen]:
    corpus, users, items = load_corpus(made.tables), *keys_of(made)
    found = []
    for name, split in corpus.splits.items():
        for i in range(len(split)):
            start = corpus.history_offsets[split.history[i]]
            history = corpus.history_items[start : start + split.history_end[i]]
            shown = split.item[split.offsets[i] : split.offsets[i + 1]]
            label = split.label[split.offsets[i] : split.offsets[i + 1]]
            found.append(
                Seen(
                    name,
                    int(split.time[i]),
                    users[split.user[i]],
                    frozenset(items[number] for number in shown[label == 1]),
                    tuple(items[number] for number in history),
                    frozenset(items[number] for number in shown),
                )
            )
    return found
