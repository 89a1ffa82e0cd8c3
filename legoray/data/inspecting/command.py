"""`legoray inspect`: prepare a data set if that is not done, look at it, show what was found."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from legoray.config import read_dataset
from legoray.data.inspecting.measure import measure
from legoray.data.inspecting.terminal import print_inspection
from legoray.data.prepare import prepare
from legoray.errors import InputError, Problem
from legoray.records import SHARED


def inspect_dataset(
    dataset: Path,
    console: Console,
    say: Callable[[str], None],
    *,
    html: Path | None = None,
    examples: int = 3,
    seed: int = 0,
) -> None:
    """Show what is in a data set.

    Args:
        dataset: a `datasets/*.yaml`; its tables are made if they are not there.
        console: where tables are printed.
        say: told what goes on.
        html: a file for the page with plots.
        examples: how many impressions to show.
        seed: of their draw.

    Raises:
        InputError: as `prepare`; or the page cannot be written.
    """
    if html is not None:
        _check_place(html)
    prepared = prepare(dataset, say=say)
    config, _ = read_dataset(dataset)
    found = measure(prepared.tables, prepared.manifest, config, examples=examples, seed=seed)
    print_inspection(found, console)
    if html is not None:
        from legoray.data.inspecting.page import page_of

        _write(html, page_of(found))
        say(f"the page with plots: {html}")


def _check_place(html: Path) -> None:
    """Refuse a place where no page can be written, before any work is done."""
    if html.is_dir():
        raise InputError(Problem(f"--html {html}", "is a folder, a file was expected"))
    if not html.absolute().parent.is_dir():
        raise InputError(Problem(f"--html {html}", f"there is no folder {html.parent}"))


def _write(html: Path, text: str) -> None:
    """Write under a temporary name and move into place."""
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
        raise InputError(
            Problem(f"--html {html}", f"cannot be written: {error.strerror}")
        ) from None
