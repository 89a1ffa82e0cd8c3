"""A node's own copies of blocks that lie on network storage: fetched once, then mapped from there.

`legoray.data.nodedisk` says whether and where. A copy is checked before it gets its name.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from legoray.data.built import Say, locked
from legoray.data.nodedisk import node_cache
from legoray.data.tensorfile import UNFINISHED, check_file, sync_folder
from legoray.errors import DamagedError, InputError
from legoray.llm.blocks import block_file
from legoray.llm.units import META, WHAT

_SPARE = 1 << 30  # bytes to leave free on a node's own disk


def local_folder(folder: Path, names: Sequence[str], say: Say) -> Path:
    """The folder to map a unit's blocks from: the shared one, or this node's, filled now.

    Args:
        folder: the unit's, in the shared store.
        names: of the blocks that are wanted.
        say: told what is copied.

    Raises:
        DamagedError: a shared block is not as it was written.
    """
    cache = node_cache(folder)
    if cache is None:
        return folder
    own = cache / folder.name
    try:
        if not _missing(own, names):
            return own  # whoever fetched them
        (own / "blocks").mkdir(parents=True, exist_ok=True)
        with locked(own, "another process fetches these hidden states; waiting for it", say):
            return own if _fetch(folder, own, names, say) else folder
    except DamagedError:
        raise
    except (OSError, InputError) as error:  # no lock can be had where another user's folder is
        reason = error.strerror if isinstance(error, OSError) else error.problems[0].message
        _log(f"{own}: cannot be written ({reason}); the shared files are read")
        return folder


def _missing(own: Path, names: Sequence[str]) -> list[str]:
    return [name for name in names if not block_file(own, name).exists()]


def _fetch(folder: Path, own: Path, names: Sequence[str], say: Say) -> bool:
    """Copy what is not there yet; False where there is no room."""
    for left in (own / "blocks").glob(f"{UNFINISHED}*"):
        left.unlink(missing_ok=True)
    missing = _missing(own, names)
    need = sum(block_file(folder, name).stat().st_size for name in missing)
    free = shutil.disk_usage(own).free
    if missing and free < need + _SPARE:
        _log(
            f"{own}: no room for {need / 1e6:,.0f} MB of hidden states "
            f"({free / 1e6:,.0f} MB free); the shared files are read"
        )
        return False
    started = time.monotonic()
    for name in missing:
        _copy(block_file(folder, name), block_file(own, name))
    if missing:
        shutil.copyfile(folder / META, own / META)
        seconds = time.monotonic() - started
        say(f"fetched {len(missing)} blocks ({need / 1e6:,.0f} MB) to {own} in {seconds:.1f} s")
    return True


def _copy(source: Path, target: Path) -> None:
    working = target.with_name(f"{UNFINISHED}{target.name}")
    try:
        shutil.copyfile(source, working)
        with working.open("rb") as file:
            os.fsync(file.fileno())
        if not _whole(working):
            check_file(source, WHAT)  # names the shared file where that is the damaged one
            raise OSError(errno.EIO, "the copy differs from the shared file")
        os.replace(working, target)
        sync_folder(target.parent)
    finally:
        working.unlink(missing_ok=True)


def _whole(working: Path) -> bool:
    try:
        check_file(working, WHAT)
    except DamagedError:
        return False
    return True


def _log(message: str) -> None:
    logging.getLogger("legoray").warning(message)
