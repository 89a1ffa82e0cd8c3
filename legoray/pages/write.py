"""Writing a page: whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from legoray.errors import InputError, Problem
from legoray.records import SHARED


def check_place(html: Path, option: str) -> None:
    """Refuse a place where no page can be written, before any work is done.

    Raises:
        InputError: it is a folder, or there is no folder for it.
    """
    if html.is_dir():
        raise InputError(Problem(f"{option} {html}", "is a folder, a file was expected"))
    if not html.absolute().parent.is_dir():
        raise InputError(Problem(f"{option} {html}", f"there is no folder {html.parent}"))


def write_page(html: Path, text: str, where: str = "") -> None:
    """Write under a temporary name and move into place.

    Args:
        html: the file.
        text: the page.
        where: what to call the file in an error; its path if empty.

    Raises:
        InputError: it cannot be written.
    """
    temporary = ""
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=html.absolute().parent, prefix=f".{html.name}.", delete=False, encoding="utf-8"
        ) as file:
            temporary = file.name
            file.write(text)
        os.chmod(temporary, SHARED)
        os.replace(temporary, html)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True) if temporary else None
        problem = Problem(where or str(html), f"cannot be written: {error.strerror}")
        raise InputError(problem) from None
