"""`legoray inspect`: prepare a data set if that is not done, look at it, show what was found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from legoray.config import read_dataset
from legoray.data.inspecting.measure import measure
from legoray.data.inspecting.terminal import print_inspection
from legoray.data.prepare import prepare
from legoray.pages.write import check_place, write_page


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
        check_place(html, "--html")
    prepared = prepare(dataset, say=say)
    config, _ = read_dataset(dataset)
    found = measure(prepared.tables, prepared.manifest, config, examples=examples, seed=seed)
    print_inspection(found, console)
    if html is not None:
        from legoray.data.inspecting.page import page_of

        write_page(html, page_of(found), f"--html {html}")
        say(f"the page with plots: {html}")
