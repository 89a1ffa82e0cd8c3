"""Whole folders at an address: another node sees the old content or the new one, never a mixture.

    <address>/folder.json               `Listing`: the files, each with its checksum
    <address>/files/<name>-<checksum>   their content

A changed file is a new object beside the old one, and writing `folder.json` puts all of them in
place at once; what is no longer named goes then. On this node a note says which files are those of
the listing, so that what is here already is neither read nor moved again.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from pydantic import Field, ValidationError

from legoray.config import Strict
from legoray.errors import DamagedError, InputError, Problem
from legoray.records import digest, read_json, write_json
from legoray.storage import remote
from legoray.storage.address import Address, address_of, mirrors

NAME, FILES = "folder.json", "files"
_LAST = ("manifest.json", "whole.json", "config.json")  # what says that a folder is whole
_TRIES = 5  # times that a folder may change while it is fetched


class Listing(Strict):
    """What a folder holds."""

    files: dict[str, str]  # name -> SHA-256


class Mine(Strict):
    """What this node has of a listing: name -> SHA-256, bytes, nanoseconds of its last change."""

    files: dict[str, tuple[str, int, int]] = Field(default_factory=dict)

    def sums(self) -> dict[str, str]:
        return {name: sum_ for name, (sum_, _, _) in self.files.items()}


def fetch(folder: Path) -> bool:
    """Make a mirrored folder hold what its address holds; what else lies in it stays.

    Returns:
        Whether the address holds something; True for a folder that mirrors none.

    Raises:
        InputError: the service or this node's disk refuse; a file is not what was written.
    """
    address = address_of(folder)
    if address is None:
        return True
    with _locked(folder):
        for _ in range(_TRIES):
            found = _listing(address)
            if found is None:
                _note(folder).unlink(missing_ok=True)
                return False
            if _bring(folder, address, found):
                return True
    raise InputError(Problem(str(address), "changes faster than it can be fetched", "try again"))


def share(folder: Path, leave: Collection[str] = ()) -> None:
    """Make the address of a mirrored folder hold what the folder holds; nothing for other folders.

    Args:
        folder: there, and whole.
        leave: names of subfolders and files at its top that are not shared.

    Raises:
        InputError: the service refuses, or a file cannot be read.
    """
    address = address_of(folder)
    if address is None or not folder.is_dir():
        return
    with _locked(folder):
        mine = _mine(folder)
        now = Mine(files={name: _state(folder, name, mine) for name in _names(folder, leave)})
        if now.sums() == mine.sums() and _note(folder).exists():
            write_json(_note(folder), now)
            return
        old = _listing(address) or Listing(files={})
        for name, sum_ in now.sums().items():
            if old.files.get(name) != sum_:
                remote.upload(folder / name, _object(address, name, sum_))
        remote.write(address / NAME, Listing(files=now.sums()).model_dump_json(indent=1).encode())
        write_json(_note(folder), now)
        for name, sum_ in old.files.items():
            if now.sums().get(name) != sum_:
                remote.remove(_object(address, name, sum_))


def withdraw(folder: Path, *, of_any_node: bool = False) -> None:
    """Remove a mirrored folder from its address.

    Args:
        folder: of this node; a plain folder mirrors no address, and nothing is removed.
        of_any_node: also what another node has put there or changed since.

    Raises:
        InputError: the service refuses.
    """
    address = address_of(folder)
    if address is None:
        return
    with _locked(folder):
        if of_any_node:  # with what one has sent that died before it named it
            for name in sorted(remote.listing(address), key=lambda name: name != NAME):
                remote.remove(address / name)
        elif (found := _listing(address)) is not None and found.files == _mine(folder).sums():
            remote.remove(address / NAME)
            for name, sum_ in found.files.items():
                remote.remove(_object(address, name, sum_))
        _note(folder).unlink(missing_ok=True)


def send_file(path: Path) -> None:
    """Send one file that nobody changes in place; nothing where it mirrors no address.

    Raises:
        InputError: the service refuses.
    """
    address = address_of(path)
    if address is not None:
        remote.upload(path, address)


def get_file(path: Path) -> bool:
    """See that such a file is here, fetched now if need be; False where nobody has it.

    Raises:
        InputError: the service or this node's disk refuse.
    """
    if path.exists():
        return True
    address = address_of(path)
    return address is not None and remote.download(address, path)


def names_below(folder: Path) -> list[str]:
    """The names of what lies directly below a folder's address; empty where it mirrors none.

    Raises:
        InputError: the service refuses.
    """
    address = address_of(folder)
    if address is None:
        return []
    return sorted({name.split("/")[0] for name in remote.listing(address)})


# --- the address's side


def _object(address: Address, name: str, sum_: str) -> Address:
    return address / FILES / f"{name}-{sum_[:20]}"


def _listing(address: Address) -> Listing | None:
    """What an address says that it holds.

    A read asks for the size first: of a listing that is replaced meanwhile it gets a part, and
    another look shows the new one.
    """
    seen = b""
    while True:
        content = remote.read(address / NAME)
        if content is None:
            return None
        try:
            return Listing.model_validate_json(content)
        except ValidationError as error:
            if content != seen:
                seen = content
                continue
            message = f"is damaged: {str(error).splitlines()[0]}"
            hint = "delete all that is below it"
            raise DamagedError(Problem(str(address / NAME), message, hint)) from None


# --- this node's side


def _bring(folder: Path, address: Address, found: Listing) -> bool:
    """Fetch what differs; False where the listing was replaced meanwhile."""
    mine = _mine(folder)
    now: dict[str, tuple[str, int, int]] = {}
    for name in sorted(found.files, key=lambda name: (Path(name).name in _LAST, name)):
        sum_ = found.files[name]
        if not (folder / name).is_file() or _state(folder, name, mine)[0] != sum_:
            source = _object(address, name, sum_)
            if not remote.download(source, folder / name, sha256=sum_):
                if _listing(address) == found:
                    hint = f"delete all that is below {address}"
                    raise DamagedError(Problem(str(source), "is missing", hint))
                return False
            mine.files.pop(name, None)
        now[name] = _state(folder, name, mine, sum_)
    for name in mine.files.keys() - found.files.keys():
        (folder / name).unlink(missing_ok=True)
    write_json(_note(folder), Mine(files=now))
    return True


def _state(folder: Path, name: str, mine: Mine, sum_: str = "") -> tuple[str, int, int]:
    """A file's checksum, size and time; read only where they are not those noted."""
    path = folder / name
    state = path.stat()
    known = mine.files.get(name)
    if known is not None and known[1:] == (state.st_size, state.st_mtime_ns):
        return known
    return sum_ or _sha256(path), state.st_size, state.st_mtime_ns


def _names(folder: Path, leave: Collection[str]) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        if path.is_file() and not hidden and name.parts[0] not in leave:
            yield name.as_posix()


def _mine(folder: Path) -> Mine:
    try:
        return read_json(_note(folder), Mine)
    except InputError:
        return Mine()


def _note(folder: Path) -> Path:
    return mirrors() / ".notes" / f"{digest(str(folder), 24)}.json"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process of a node at a time moves a folder."""
    locks = mirrors() / ".locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / digest(str(folder), 24)):
            yield
    except InputError:
        raise
    except OSError as error:
        message = f"cannot be written: {error.strerror or error}"
        where = str(error.filename or folder)
        raise InputError(Problem(where, message, "LEGORAY_NODE_CACHE names the folder")) from None


def forget(folder: Path) -> None:
    """Remove this node's copy of a mirrored folder; its address keeps its own."""
    if address_of(folder) is not None:
        with _locked(folder):
            _note(folder).unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(8 << 20):
            found.update(block)
    return found.hexdigest()
