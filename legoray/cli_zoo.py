"""Commands over the model zoo: which model is better than which, and which one is champion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from legoray.cli_common import DEFAULT_TRACKING, HELP, Tracking, console_of, say

zoo_app = typer.Typer(**HELP)


@zoo_app.command()
def compare(
    models: Annotated[
        list[str],
        typer.Argument(help="Two or more: model folders, models:/name@champion, runs' ids."),
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="The data set that they were trained on; their kept tests if absent."),
    ] = None,
    split: Annotated[str, typer.Option(help="valid, test or train; with --data.")] = "valid",
    metric: Annotated[
        list[str] | None, typer.Option(help="The first is tested, others are shown; repeatable.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="impression or user; as in their training if absent.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
    tracking: Tracking = DEFAULT_TRACKING,
) -> None:
    """Say which of some models is better than which, and what is a tie.

    A paired bootstrap over users, with Holm's correction. Without --data nothing is measured: the
    values are compared that each model kept of its test.
    """
    from legoray.zoo.versus import Asked, check_form, compare_models, print_versus

    check_form(form)
    asked = Asked(models, data, split, metric or (), group, tracking)
    quiet = form == "json"
    found = compare_models(asked, (lambda text: None) if quiet else say)
    print_versus(found, form=form, console=console_of())


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
