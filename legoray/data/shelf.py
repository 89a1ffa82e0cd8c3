"""What the shared caches hold, and making room: the least used goes first.

A folder of hidden states (one per model, layer, template and so on, whatever the texts), a node's
own copy of one, or a folder of codes is stamped when it is opened (`note_use`); what
was never opened since it was made counts as used then. Removing one loses no result: whoever needs
it again computes it again. Processes that have it open keep it until they close it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from legoray.data.built import Say, locked, quietly
from legoray.data.nodedisk import node_cache
from legoray.data.tensorfile import UNFINISHED, read_header
from legoray.errors import DamagedError, InputError, Problem, nearest

REMOVED = "-removed"  # how the names of folders end that are being removed
KINDS = ("states", "pooled", "codes")  # `pooled` is of older versions alone
COPY = "copy"  # of hidden states, on this node
STAMP = "used"  # its time is when the folder was last opened


@dataclass(frozen=True)
class Stored:
    """One folder of a shared cache."""

    kind: str
    folder: Path
    size: int  # bytes on the disk
    used: float  # seconds since 1970
    content: str  # in words

    @property
    def key(self) -> str:
        """The folder's name: a hash of everything that decides its content."""
        return self.folder.name


def note_use(folder: Path) -> None:
    """Stamp a folder as used now; one that cannot be written is left as it is."""
    with contextlib.suppress(OSError):
        (folder / STAMP).touch()


def stored(home: Path) -> list[Stored]:
    """Everything in the shared caches, what was used last at the end."""
    found = [
        _described(kind, folder)
        for kind, place in _places(home)
        for folder in sorted(place.glob("[!.]*"))
        if folder.is_dir()
    ]
    return sorted(found, key=lambda one: (one.used, one.key, one.kind))


def _places(home: Path) -> list[tuple[str, Path]]:
    """The folders that hold what is stored, and of which kind it is."""
    places = [(kind, home / kind) for kind in KINDS]
    copies = node_cache(home)
    return places if copies is None else [*places, (COPY, copies)]


def finish_removals(home: Path, say: Say = quietly) -> None:
    """Remove what killed removals left: nobody reads it, and no list shows it.

    Args:
        home: folder of the shared caches.
        say: told what goes.
    """
    for _, place in _places(home):
        for left in place.glob(f"{UNFINISHED}*{REMOVED}"):
            key = left.name.removeprefix(UNFINISHED).removesuffix(REMOVED)
            with locked(place / key, f"{key} is being removed; waiting for it", say):
                if left.exists():
                    say(f"removing {left}, which a removal that was killed left")
                    shutil.rmtree(left, ignore_errors=True)


def to_remove(
    found: Sequence[Stored],
    *,
    keys: Sequence[str] = (),
    keep: int | None = None,
    unused: float | None = None,
) -> list[Stored]:
    """What to remove, least used first: all that any of the rules names.

    Args:
        found: as `stored` gives it.
        keys: of these folders; the first letters are enough where they are one folder's alone.
        keep: as much as is over this many bytes in all.
        unused: what was not used in this many seconds.

    Raises:
        InputError: a key is nobody's, or several folders'.
    """
    named = {one.folder for key in keys for one in _named(found, key)}
    limit = time.time() - unused if unused is not None else None
    over = sum(one.size for one in found) - keep if keep is not None else 0
    chosen = []
    for one in found:
        if one.folder in named or (limit is not None and one.used < limit) or over > 0:
            chosen.append(one)
            over -= one.size
    return chosen


def remove(chosen: Sequence[Stored], say: Say = quietly) -> None:
    """Remove folders; each is gone for all readers at once.

    Args:
        chosen: of `stored`.
        say: told who is waited for.

    Raises:
        InputError: one cannot be removed.
    """
    for one in chosen:
        gone = one.folder.with_name(f"{UNFINISHED}{one.key}{REMOVED}")
        with locked(one.folder, f"{one.key} is being made; waiting until it is whole", say):
            if not one.folder.exists():
                continue  # somebody else was first
            try:
                shutil.rmtree(gone, ignore_errors=True)  # of a removal that was killed
                os.replace(one.folder, gone)
                shutil.rmtree(gone)
            except OSError as error:
                message = f"cannot be removed: {error.strerror}"
                raise InputError(Problem(str(one.folder), message)) from None


def _named(found: Sequence[Stored], key: str) -> list[Stored]:
    """What a key names: a folder, with this node's copy of it where there is one."""
    matching = [one for one in found if key and one.key.startswith(key)]
    if len({one.key for one in matching}) == 1:
        return matching
    if matching:
        keys = ", ".join(dict.fromkeys(one.key for one in matching))
        raise InputError(Problem(key, f"stands for several: {keys}", "write more of it"))
    close = nearest(key, [one.key for one in found])
    hint = f"did you mean '{close}'?" if close else "`legoray store list` shows the keys"
    raise InputError(Problem(key, "there is nothing of this key in the store", hint))


def _described(kind: str, folder: Path) -> Stored:
    found = dict(_states(folder))
    files = {path: state for path, state in found.items() if stat.S_ISREG(state.st_mode)}
    times = [state.st_mtime for state in (files or found).values()]
    stamp = files.get(folder / STAMP)
    return Stored(
        kind=kind,
        folder=folder,
        size=sum(state.st_size for state in files.values()),
        used=stamp.st_mtime if stamp else max(times, default=0.0),
        content=_words(kind, folder),
    )


def _states(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """A folder and what is below it; what another process moves away meanwhile is passed over."""
    for path in (folder, *folder.rglob("*")):
        with contextlib.suppress(OSError):
            yield path, path.stat()


def _words(kind: str, folder: Path) -> str:
    """What a folder holds; said to be damaged where it does not say."""
    if kind == "codes":
        return "codes by residual k-means"
    if kind == "pooled" or (folder / "states.safetensors").exists():
        return "of an older version of LegoRay: nothing reads it"
    try:
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        first, last = meta["layers"][0], meta["layers"][-1]
        after = f"layers {first} to {last}" if last > first else f"layer {last}"
        pooled = f"{meta['pooling']}-pooled " if meta["pooling"] else ""
        return (
            f"{meta['model']} {pooled}after {after}, {_texts(folder)}, '{meta['template']}', "
            f"{meta['length']} tokens, {meta['precision']}, stored in {meta['dtype']}"
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, DamagedError):
        return "damaged: it does not say what it is"


def _texts(folder: Path) -> str:
    """How many texts the blocks hold, what their type costs, and whether they are finished."""
    notes = [
        read_header(file, "hidden states").note
        for file in (folder / "blocks").glob("[!.]*.safetensors")
    ]
    squares = sum(float(note["squares"]) for note in notes)
    errors = sum(float(note["errors"]) for note in notes)
    said = f"{sum(int(note['texts']) for note in notes):,} texts"
    if errors:
        said += f" with an error of {math.sqrt(errors / squares):.2%}"
    shared = (folder / "sets").is_dir()
    return said if shared or folder.parent.name != "states" else f"{said} (not finished)"
