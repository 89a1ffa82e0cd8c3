"""The metrics of each group by itself, kept so that models can be compared group by group later.

<model folder>/test_groups.safetensors

    group    int32 [G]    number of the impression in its split, or of the user, rising
    user     int32 [G]    number of the user whose group it is
    <metric> float32 [G]  one for each grouped metric

Groups are those that have both a click and a non-click, which follows from the data alone: the
files of two models on the same data have the same groups. The header says which data these are.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from legoray.data.corpus import Corpus, Split
from legoray.errors import InputError, Problem
from legoray.records import SHARED
from legoray.train.metrics import POOLED, group_values
from legoray.train.ties import TieBlocks

FILE = "test_groups.safetensors"
_ABOUT = "legoray"


@dataclass(frozen=True)
class Origin:
    """Of which groups values are: two models compare group by group where these are equal."""

    split: str
    kind: str  # impression | user
    data: str
    fingerprint: str
    protocol: str  # JSON


@dataclass(frozen=True)
class GroupValues:
    """A model's metrics of each group."""

    origin: Origin
    group: NDArray[np.int32]  # [G]
    user: NDArray[np.int32]  # [G]
    metrics: Mapping[str, NDArray[np.float32]]  # name -> [G]

    def matches(self, other: GroupValues) -> bool:
        """Whether the groups of both are the same."""
        return self.origin == other.origin and np.array_equal(self.group, other.group)


def values_of(
    blocks: TieBlocks, split: Split, name: str, corpus: Corpus, kind: str, metrics: Sequence[str]
) -> GroupValues:
    """The values of a split that was put in order.

    Args:
        blocks: of the split's rows; their groups are its impressions or users.
        split: see there.
        name: its name.
        corpus: whose split it is.
        kind: `impression` or `user`.
        metrics: names; those of all rows together (`logloss`, `pooled_auc`) are left out.
    """
    group = blocks.key.astype(np.int32)
    protocol = json.dumps(corpus.protocol, sort_keys=True, default=str)
    return GroupValues(
        origin=Origin(name, kind, corpus.name, corpus.fingerprint, protocol),
        group=group,
        user=group if kind == "user" else split.user[group].astype(np.int32),
        metrics={
            metric: group_values(metric, blocks).astype(np.float32)
            for metric in metrics
            if metric not in POOLED
        },
    )


def write_values(folder: Path, values: GroupValues) -> None:
    """Write them into a model's folder: a file that is there is whole.

    Raises:
        InputError: the folder cannot be written.
    """
    tensors = {"group": values.group, "user": values.user, **values.metrics}
    temporary = ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{FILE}.")
        os.close(handle)
        about = {_ABOUT: json.dumps(values.origin.__dict__)}
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, temporary, about)
        os.chmod(temporary, SHARED)
        os.replace(temporary, folder / FILE)
    except (OSError, SafetensorError) as error:
        Path(temporary).unlink(missing_ok=True) if temporary else None
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(Problem(str(folder / FILE), f"cannot be written: {reason}")) from None


def read_values(folder: Path) -> GroupValues | None:
    """The values in a model's folder; None where there are none.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, "np") as file:
            origin = Origin(**json.loads((file.metadata() or {})[_ABOUT]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        group, user = tensors.pop("group"), tensors.pop("user")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(Problem(str(path), f"is damaged: {error}")) from None
    if any(len(values) != len(group) for values in [user, *tensors.values()]):
        raise InputError(Problem(str(path), "is damaged: its columns differ in length"))
    return GroupValues(origin, group, user, tensors)
