"""The checkpoint of a training: one file that is there as a whole or not at all.

<folder>/last/checkpoint.safetensors

It holds what the model's folder would hold (`legoray.model.io.model_state`), the optimizer's state
by name of parameter, and as JSON in the header how far the training is. There is no random state: a
new epoch starts from the seed and its number.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from legoray.config import Strict, TrialConfig
from legoray.errors import DamagedError, InputError, Problem
from legoray.records import digest

FORMAT = 1
FILE = "checkpoint.safetensors"
Tensors = dict[str, Tensor]


class Progress(Strict):
    """How far a training is."""

    format: int = FORMAT
    config: str  # digest of what decides the weights
    run: str  # of the process that wrote it
    epochs: list[dict[str, float]] = Field(default_factory=list)  # what was reported, in order
    best: dict[str, float] = Field(default_factory=dict)  # the best of them so far
    since_best: int = 0  # epochs since then
    accumulate: int = 1  # micro-batches per step; more than configured where memory ran out
    costs: dict[str, float] = Field(default_factory=dict)  # seconds so far


def config_digest(
    config: TrialConfig, fingerprint: str, reads: Mapping[str, str] | None = None
) -> str:
    """What a checkpoint must agree on: everything but how long to train.

    Args:
        config: of the training.
        fingerprint: of the data.
        reads: attribute -> fingerprint of its texts, where they were written later.
    """
    content = config.model_dump()
    for key in ("epochs", "patience"):
        del content["train"][key]
    written = {name: texts for name, texts in (reads or {}).items() if texts}
    return digest([content, fingerprint, written] if written else [content, fingerprint])


def last(folder: Path) -> Path:
    """Where a job's checkpoint lies."""
    return folder / "last"


def write_checkpoint(folder: Path, progress: Progress, tensors: Tensors) -> None:
    """Replace a job's checkpoint.

    Raises:
        InputError: the folder cannot be written or the disk is full.
    """
    place, temporary = last(folder), ""
    metadata = {"progress": progress.model_dump_json(), "checksum": _checksum(tensors)}
    try:
        place.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=place, prefix=f".{FILE}.")
        os.close(handle)
        save_file(tensors, temporary, metadata)
        os.replace(temporary, place / FILE)
    except (OSError, SafetensorError) as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(Problem(str(place), f"cannot be written: {reason}")) from None


def read_checkpoint(folder: Path) -> tuple[Progress, Tensors] | None:
    """A job's checkpoint on the CPU; None where there is none.

    Raises:
        InputError: it is damaged or of another version; the hint names the folder to delete.
    """
    file = last(folder) / FILE
    if not file.exists():
        return None
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        progress = Progress.model_validate_json(metadata["progress"])
        if metadata["checksum"] != _checksum(tensors):
            raise ValueError("its checksum is another")
    except (SafetensorError, ValidationError, OSError, KeyError, ValueError) as error:
        raise _unusable(folder, f"is damaged: {str(error).splitlines()[0]}") from None
    if progress.format != FORMAT:
        raise _unusable(folder, f"has format {progress.format}, expected {FORMAT}")
    return progress, tensors


def read_epochs(folder: Path) -> list[dict[str, float]]:
    """What a job has reported so far according to its checkpoint, without reading the weights.

    Raises:
        InputError: the checkpoint is damaged.
    """
    file = last(folder) / FILE
    if not file.exists():
        return []
    try:
        with safe_open(file, framework="pt") as opened:
            return Progress.model_validate_json((opened.metadata() or {})["progress"]).epochs
    except (SafetensorError, ValidationError, OSError, KeyError) as error:
        raise _unusable(folder, f"is damaged: {str(error).splitlines()[0]}") from None


def matching_checkpoint(folder: Path, config: str) -> tuple[Progress, Tensors] | None:
    """As `read_checkpoint`, for a training with this `config_digest`.

    Raises:
        InputError: it is damaged, or belongs to another training.
    """
    found = read_checkpoint(folder)
    if found is not None and found[0].config != config:
        raise _unusable(folder, "belongs to another configuration or other data")
    return found


def remove_checkpoint(folder: Path, run: str) -> None:
    """Delete a job's checkpoint, unless another process has taken the job over meanwhile."""
    try:
        with safe_open(last(folder) / FILE, framework="pt") as opened:
            metadata: Mapping[str, str] = opened.metadata() or {}
        if Progress.model_validate_json(metadata["progress"]).run == run:
            shutil.rmtree(last(folder), ignore_errors=True)
    except (SafetensorError, ValidationError, OSError, KeyError):
        return


def _checksum(tensors: Tensors) -> str:
    total = 0
    for name in sorted(tensors):
        values = tensors[name].contiguous().reshape(-1).view(torch.uint8)
        total = zlib.crc32(values.numpy().data, total)
    return f"{total:08x}"


def _unusable(folder: Path, message: str) -> DamagedError:
    place = last(folder)
    hint = f"delete the folder {place} to train from the start"
    return DamagedError(Problem(str(place / FILE), f"the checkpoint {message}", hint))
