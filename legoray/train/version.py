"""Which code computed a result: results of other code are not taken for a training's own."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import legoray

COMPUTING = ("data", "llm", "model", "train")  # packages that numbers depend on
APART = ("processors",)  # what they make is in the data's fingerprint


@cache
def training_version() -> str:
    """A digest of the code that trains and measures: any change to it is another version."""
    return digest_of(Path(legoray.__file__).parent)


def digest_of(package: Path) -> str:
    """The digest of a package's computing code."""
    found = hashlib.sha256()
    for name in COMPUTING:
        for file in sorted((package / name).rglob("*.py")):
            place = file.relative_to(package)
            if not set(place.parts) & set(APART):
                found.update(f"{place.as_posix()}\0".encode() + file.read_bytes() + b"\0")
    return found.hexdigest()[:16]
