"""Commands over data sets: what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from legoray.cli_common import HELP, DatasetFile, console_of, say

data_app = typer.Typer(**HELP)


@data_app.command()
def inspect(
    dataset: DatasetFile,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with plots to this file, too.")
    ] = None,
    examples: Annotated[int, typer.Option(min=0, max=50, help="Impressions to show.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Of the examples' draw.")] = 0,
) -> None:
    """Show what is in a data set: counts, lengths, cold shares, popularity, texts, examples.

    A data set that is not prepared yet is prepared first.
    """
    from legoray.data.inspecting.command import inspect_dataset

    inspect_dataset(dataset, console_of(), say, html=html, examples=examples, seed=seed)
