"""What all commands of the command line share: its looks, and arguments of several commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

HELP: dict[str, Any] = {
    "no_args_is_help": True,
    "add_completion": False,
    "rich_markup_mode": "markdown",
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
DatasetFile = Annotated[Path, typer.Argument(help="A data set, such as datasets/mind_sample.yaml")]
Tracking = Annotated[
    str,
    typer.Option("--tracking", envvar="MLFLOW_TRACKING_URI", help="MLflow tracking URI."),
]
DEFAULT_TRACKING = "sqlite:///mlflow.db"


def console_of(*, stderr: bool = False) -> Console:
    """Where a command prints: a terminal, or a file or pipe as wide as a page."""
    console = Console(stderr=stderr, highlight=False, soft_wrap=stderr)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 120  # a file or a pipe has no width of its own
    return console


def say(text: str) -> None:
    """Print one line as it is."""
    console_of().print(text, markup=False, soft_wrap=True)
