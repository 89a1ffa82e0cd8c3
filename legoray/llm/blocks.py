"""Blocks of hidden states, and the lists that say where each item's states lie.

A block holds, for some texts, `h [T, H]`, `offsets [n + 1]` and `texts [n, 16]`, the digests of
their token ids. Its name is a digest of these digests, it never changes, and its note tells what
its stored type costs against what was computed. A list (`sets/`) is written when all of its blocks
are there: one that is not whole does not exist.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from legoray.data.tensorfile import check_file, damaged, map_tensors, read_header, write_tensors
from legoray.errors import InputError, Problem
from legoray.llm.compute import Lower, run_texts
from legoray.llm.plan import Digests
from legoray.llm.text import Encoded
from legoray.llm.units import WHAT, Unit
from legoray.storage.folders import send_file

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Places:
    """Where n texts lie: text i owns `count[i]` rows from row `first[i]` of block `block[i]`."""

    block: NDArray[np.int64]
    first: NDArray[np.int64]
    count: NDArray[np.int64]


@dataclass(frozen=True)
class Known:
    """The texts that a unit has, by digest in ascending order."""

    names: tuple[str, ...]  # of its blocks
    digests: Digests
    places: Places


def block_file(folder: Path, name: str) -> Path:
    """The file of a block of a unit's folder."""
    return folder / "blocks" / f"{name}{SUFFIX}"


def block_name(digests: Digests) -> str:
    """The name of the block of these texts."""
    return hashlib.blake2b(digests.tobytes(), digest_size=12).hexdigest()


class _Gathered:
    """What one unit keeps of the texts of a block, while it is computed."""

    def __init__(self, unit: Unit, encoded: Encoded, digests: Digests) -> None:
        self.unit = unit
        count = len(digests)
        layers = len(unit.layers)
        self.offsets = np.arange(count + 1) * layers if unit.pooling else encoded.offsets
        self.digests = digests
        self.hidden: Tensor | None = None
        self.squares = self.errors = self.worst = 0.0

    def add(self, model: str, layer: int, rows: NDArray[np.int64], states: Tensor) -> None:
        """Keep the states `[n, T, H]` after a layer of the texts `rows [n]`."""
        if self.unit.pooling:
            states = pool(states, self.unit.pooling).unsqueeze(1)
        width = states.shape[-1]
        if self.hidden is None:
            kind = getattr(torch, self.unit.dtype)
            self.hidden = torch.empty(int(self.offsets[-1]), width, dtype=kind)
        if self.hidden.shape[1] != width:
            widths = sorted({self.hidden.shape[1], width})
            message = f"its layers give states of different widths: {widths}"
            raise InputError(Problem(model, message, "choose another model"))
        first = self.offsets[rows][:, None] + self.unit.layers.index(layer) * bool(
            self.unit.pooling
        )
        positions = torch.from_numpy((first + np.arange(states.shape[1])).ravel())
        exact = states.flatten(0, 1)
        stored = exact.to(self.hidden.dtype)
        self._measure(exact, stored)
        self.hidden[positions] = stored.cpu()

    def _measure(self, exact: Tensor, stored: Tensor) -> None:
        if exact.dtype == stored.dtype:
            self.squares += float(exact.double().square().sum())
            return
        squares = exact.double().square().sum(dim=1)
        errors = (exact.double() - stored.double()).square().sum(dim=1)
        self.squares += float(squares.sum())
        self.errors += float(errors.sum())
        share = errors / squares.clamp_min(torch.finfo(torch.float64).tiny)
        self.worst = max(self.worst, float(share.max()) ** 0.5)

    def tensors(self) -> dict[str, Tensor]:
        """The content of the block's file."""
        assert self.hidden is not None
        texts = np.frombuffer(self.digests.tobytes(), np.uint8).reshape(-1, 16)
        offsets = torch.from_numpy(np.ascontiguousarray(self.offsets, np.int64))
        return {"h": self.hidden, "offsets": offsets, "texts": torch.from_numpy(texts.copy())}

    def note(self, folder: Path) -> dict[str, str]:
        """What the block's file says of itself."""
        return {
            "unit": folder.name,
            "name": block_name(self.digests),
            "texts": str(len(self.digests)),
            "squares": repr(self.squares),
            "errors": repr(self.errors),
            "worst": repr(self.worst),
        }


def compute_block(
    lower: Lower, units: Sequence[Unit], encoded: Encoded, digests: Digests
) -> list[_Gathered]:
    """The states of some texts, for several units in one pass.

    Raises:
        NotFiniteError: a hidden state is NaN or infinite.
        InputError: layers that are pooled side by side differ in width.
    """
    gathered = [_Gathered(unit, encoded, digests) for unit in units]
    layers = {layer for unit in units for layer in unit.layers}

    def sink(layer: int, rows: NDArray[np.int64], states: Tensor) -> None:
        for one in gathered:
            if layer in one.unit.layers:
                one.add(lower.base.source.name, layer, rows, states)

    run_texts(lower, encoded, sorted(layers), sink)
    return gathered


def write_blocks(folders: Sequence[Path], gathered: Sequence[_Gathered]) -> None:
    """Write a computed block into the folder of each of its units.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    for folder, one in zip(folders, gathered, strict=True):
        path = block_file(folder, block_name(one.digests))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, one.tensors(), one.note(folder))
        send_file(path)


def pool(states: Tensor, pooling: str) -> Tensor:
    """`[n, H]` in float32 of `states [n, T, H]` without padding: mean, first or last token."""
    if pooling == "mean":
        return states.float().mean(dim=1)
    return (states[:, 0] if pooling == "cls" else states[:, -1]).float()


def known_texts(folder: Path) -> Known:
    """All texts that a unit has; headers and lists are read, no states.

    Raises:
        DamagedError: a block is cut short or no block.
    """
    names = sorted(file.stem for file in (folder / "blocks").glob(f"[!.]*{SUFFIX}"))
    return known_of(names, [_contents(block_file(folder, name)) for name in names])


def known_of(names: Sequence[str], contents: Sequence[tuple[Digests, NDArray[np.int64]]]) -> Known:
    """The texts of some blocks: of each its digests `[n]` and offsets `[n + 1]`."""
    digests = np.concatenate([np.zeros(0, "S16"), *[digests for digests, _ in contents]])
    empty = np.zeros(0, np.int64)
    firsts = np.concatenate([empty, *[offsets[:-1] for _, offsets in contents]])
    counts = np.concatenate([empty, *[np.diff(offsets) for _, offsets in contents]])
    block = np.repeat(np.arange(len(contents)), [len(digests) for digests, _ in contents])
    order = np.argsort(digests, kind="stable")
    return Known(tuple(names), digests[order], Places(block[order], firsts[order], counts[order]))


def _contents(path: Path) -> tuple[Digests, NDArray[np.int64]]:
    tensors = map_tensors(path, read_header(path, WHAT))
    try:
        return np.frombuffer(tensors["texts"].numpy().tobytes(), "S16"), tensors["offsets"].numpy()
    except KeyError as error:
        raise damaged(path, WHAT, f"it has no {error}") from None


def look_up(known: Known, digests: Digests) -> tuple[list[str], Places]:
    """The blocks that some texts need, and where in these each text lies.

    Raises:
        KeyError: a text is not known.
    """
    at = np.searchsorted(known.digests, digests)
    inside = at < len(known.digests)
    if not (inside.all() and (known.digests[at] == digests).all()):
        raise KeyError("a text")
    used, block = np.unique(known.places.block[at], return_inverse=True)
    names = [known.names[number] for number in used]
    return names, Places(block.ravel(), known.places.first[at], known.places.count[at])


def set_file(folder: Path, texts: str) -> Path:
    """The file of a list of texts with this fingerprint."""
    return folder / "sets" / f"{texts[:32]}{SUFFIX}"


def write_set(path: Path, names: Sequence[str], places: Places) -> None:
    """Write where the items of a list lie.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = np.frombuffer(bytes.fromhex("".join(names)), np.uint8).reshape(len(names), -1)
    fields: Mapping[str, NDArray[np.int64]] = vars(places)
    tensors = {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in fields.items()}
    note = {"items": str(len(places.block))}
    write_tensors(path, {"names": torch.from_numpy(raw.copy()), **tensors}, note)
    send_file(path)


def read_set(path: Path) -> tuple[list[str], Places]:
    """What `write_set` wrote.

    Raises:
        DamagedError: the file is not as it was written.
    """
    tensors = map_tensors(path, check_file(path, WHAT))
    try:
        names = [bytes(row).hex() for row in tensors["names"].numpy()]
        places = Places(*(tensors[name].numpy() for name in ("block", "first", "count")))
    except KeyError as error:
        raise damaged(path, WHAT, f"it has no {error}") from None
    return names, places


def open_block(path: Path, unit: str) -> Tensor:
    """The states `[T, H]` of a block, checked and mapped.

    Raises:
        DamagedError: the file is not as it was written, or of another unit.
    """
    header = check_file(path, WHAT)
    if (header.note.get("unit"), header.note.get("name")) != (unit, path.stem):
        own = f"{header.note.get('unit')}/{header.note.get('name')}"
        raise damaged(path, WHAT, f"it is the block {own}")
    return map_tensors(path, header)["h"]
