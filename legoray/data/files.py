"""Raw files: found, or asked for with the advice of the data set's YAML."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from legoray.errors import InputError, Problem, nearest

_MAGIC = {
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}


@dataclass
class RawFolder:
    """The folder of a data set's raw files. Problems are gathered, then raised together."""

    path: Path
    where: str  # the YAML's place that names the folder
    advice: str  # how to get the files
    problems: list[Problem] = field(default_factory=list)

    def _advise(self) -> str:
        """The advice, once: with ten files missing it would else be read ten times."""
        advice, self.advice = self.advice, ""
        return advice

    def check(self) -> None:
        """Raise all problems found so far.

        Raises:
            InputError: something is missing, empty or not what it should be.
        """
        if self.problems:
            raise InputError(*self.problems)

    def exists(self) -> bool:
        """Whether the folder is there; notes a problem where it is not."""
        if self.path.is_dir():
            return True
        kind = "is a file, a folder was expected" if self.path.exists() else "no such folder"
        archive = _archive_of(self.path)
        hint = f"unzip {archive} first" if archive else self._advise()
        self.problems.append(Problem(f"{self.where}: {self.path}", kind, hint))
        return False

    def folder(self, names: Sequence[str]) -> Path | None:
        """The first of these subfolders that exists; notes a problem where none does."""
        for name in names:
            if (self.path / name).is_dir():
                return self.path / name
        for name in names:
            archive = _archive_of(self.path / name)
            if archive:
                self.problems.append(Problem(str(archive), "is still zipped", "unzip it here"))
                return None
        self._missing(self.path / names[0], "no such folder")
        return None

    def file(self, name: str, *, text: bool = True) -> Path:
        """The path of a raw file; notes a problem where it cannot be read as one."""
        path = self.path / name
        problem = _file_problem(path, text=text)
        if problem == "no such file":
            self._missing(path, problem)
        elif problem:
            self.problems.append(Problem(str(path), problem, self._advise()))
        return path

    def _missing(self, path: Path, message: str) -> None:
        archive = _archive_of(path)
        near = nearest(path.name, _names(path.parent))
        hint = f"unzip {archive} first" if archive else self._advise()
        if near and not archive:
            hint = f"there is a '{near}' beside it; {hint}" if hint else f"is it '{near}'?"
        self.problems.append(Problem(str(path), message, hint))


def _file_problem(path: Path, *, text: bool) -> str:
    if not path.exists():
        return "no such file"
    if path.is_dir():
        return "is a folder, a file was expected"
    if not os.access(path, os.R_OK):
        return "may not be read (permission denied)"
    if path.stat().st_size == 0:
        return "is empty (0 bytes)"
    with path.open("rb") as file:
        head = file.read(4)
    for magic, name in _MAGIC.items():
        if text and head.startswith(magic):
            return f"is {name}, plain text was expected"
    return ""


def _archive_of(path: Path) -> Path | None:
    """The zip in which this file or folder still lies, if there is one beside it."""
    names = (f"{path.name}.zip", f"{path.stem}.zip", f"{path.name}.gz", f"{path.parent.name}.zip")
    found = [path.parent / name for name in names if (path.parent / name).is_file()]
    return found[0] if found else None


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
