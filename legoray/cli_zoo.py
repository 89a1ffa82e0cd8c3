"""Commands over the model zoo: which model is better than which, and which one is champion."""

from __future__ import annotations

from typing import Annotated

import typer

from legoray.cli_common import DEFAULT_TRACKING, HELP, Tracking, say

zoo_app = typer.Typer(**HELP)


@zoo_app.command()
def promote(
    version: Annotated[str, typer.Argument(help="A registered version: models:/<name>/<version>.")],
    tracking: Tracking = DEFAULT_TRACKING,
) -> None:
    """Make a registered version champion, whatever its numbers are.

    A search does so by itself where its winner is better than the champion for sure.
    """
    from legoray.zoo.promotion import champion_line
    from legoray.zoo.promotion import promote as run

    say(champion_line(run(version, tracking)))
