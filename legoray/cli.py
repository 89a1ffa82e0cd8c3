"""The command line. Each command imports what it needs when it runs, so that all start at once.

A user's mistake ends with its message on stderr and exit code 2, never with a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from legoray import __version__
from legoray.cli_common import DEFAULT_TRACKING, HELP, DatasetFile, Tracking, console_of, say
from legoray.cli_data import data_app
from legoray.cli_texts import text_app
from legoray.cli_zoo import zoo_app
from legoray.errors import InputError

app = typer.Typer(help="Compose, train and search content-based recommenders on Ray.", **HELP)
search_app = typer.Typer(**HELP)

SpaceFile = Annotated[
    Path, typer.Argument(help="A search space, such as search_spaces/mind_llm.yaml")
]


def _show_version(value: bool) -> None:
    if value:
        say(f"legoray {__version__}")
        raise typer.Exit


@app.callback()
def _main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Compose, train and search content-based recommenders on Ray."""


@app.command()
def prepare(dataset: DatasetFile) -> None:
    """Turn raw files into normalized tables. Going on after a kill; a second call does nothing."""
    from legoray.data.prepare import prepare as run

    prepared = run(dataset, say=say)
    say(f"{'prepared' if prepared.fresh else 'already prepared'}: {prepared.tables}")
    if not prepared.fresh:
        counts = prepared.manifest.counts.items()
        say(", ".join(f"{name} {count:,}" for name, count in counts))


@app.command()
def check(
    space: SpaceFile,
    address: Annotated[str | None, typer.Option(help="Ray cluster to use.")] = None,
) -> None:
    """Validate a search space, build every corner of it and run one batch of each."""
    from legoray.search.run import run_search

    raise typer.Exit(run_search(space, address=address, check_only=True, console=console_of()))


@search_app.command()
@app.command()
def search(
    space: SpaceFile,
    check: Annotated[
        bool,
        typer.Option("--check", help="Only validate: build every corner, run a batch of each."),
    ] = False,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trials in total, instead of the file's number.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            envvar="RAY_ADDRESS", help="Ray cluster: auto, host:port, or ray://host:port."
        ),
    ] = None,
    folder: Annotated[
        str | None,
        typer.Option(
            help="The sweep's folder; sweeps/<name> here. On a cluster shared storage: a path, "
            "s3://bucket/prefix or gs://bucket/prefix."
        ),
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Set an earlier sweep of this name aside and start anew."),
    ] = False,
    no_reuse: Annotated[
        bool,
        typer.Option("--no-reuse", help="Train also what an earlier sweep has measured."),
    ] = False,
) -> None:
    """Search a space of recommenders. Started again, an interrupted search goes on.

    The data are prepared, the space is checked, then trials run on Ray until the budget is spent;
    the best model is retrained on several seeds and measured once on the test split. Every model
    lands in MLflow: look at them with `mlflow ui`.
    """
    from legoray.search.run import run_search

    code = run_search(
        space,
        address=address,
        trials=trials,
        fresh=fresh,
        folder=folder,
        check_only=check,
        console=console_of(),
        reuse=not no_reuse,
    )
    raise typer.Exit(code)


@app.command()
def leaderboard(
    source: Annotated[
        str | None,
        typer.Argument(help="A sweep's folder or an experiment's name; all experiments if absent."),
    ] = None,
    tracking: Tracking = DEFAULT_TRACKING,
    top: Annotated[int, typer.Option(min=1, help="Rows of each table.")] = 20,
    form: Annotated[
        str, typer.Option("--format", help="table, markdown, csv, json, paper or paper-markdown.")
    ] = "table",
) -> None:
    """Rank the models of a sweep, numbers of unlike protocols in tables of their own."""
    from legoray.zoo.leaderboard import print_leaderboard

    print_leaderboard(source, tracking=tracking, top=top, form=form, console=console_of())


@app.command()
def report(
    sweep: Annotated[Path, typer.Argument(help="A sweep's folder, such as sweeps/mind_llm.")],
    html: Annotated[
        Path | None, typer.Option(help="Where to write it; report.html in the folder if absent.")
    ] = None,
) -> None:
    """Write a sweep's report: one HTML page that opens offline. It may still be running."""
    from legoray.search.report.command import write_reports

    for page in write_reports(sweep, html):
        say(str(page))


@app.command()
def schema(
    kind: Annotated[str, typer.Argument(help="search-space, dataset or preset.")] = "search-space",
) -> None:
    """Print the JSON schema of a kind of YAML file, by which editors complete and check it."""
    from legoray.search.schema import text_of_schema

    sys.stdout.write(text_of_schema(kind))


@app.command()
def evaluate(
    model: Annotated[
        str, typer.Argument(help="A model folder, models:/name@champion, or a run's id.")
    ],
    data: Annotated[Path, typer.Option(help="The data set that it was trained on.")],
    split: Annotated[str, typer.Option(help="valid, test or train.")] = "valid",
    metric: Annotated[
        list[str] | None, typer.Option(help="Such as ndcg@10; repeatable; its training's if none.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="impression or user; as in its training if absent.")
    ] = None,
    tracking: Tracking = DEFAULT_TRACKING,
    form: Annotated[str, typer.Option("--format", help="table, markdown or json.")] = "table",
) -> None:
    """Measure a model on a split: every metric, of all impressions and of each slice.

    Slices are cold users and items, short and long histories, head and tail items.
    """
    from legoray.zoo.evaluating import check_form, evaluate_model, print_evaluation

    check_form(form)
    stderr = console_of(stderr=True)
    found = evaluate_model(
        model,
        data,
        split=split,
        metrics=metric or (),
        group=group,
        tracking=tracking,
        say=lambda text: stderr.print(text, markup=False, highlight=False),
    )
    print_evaluation(found, form=form, console=console_of())


@app.command()
def recommend(
    model: Annotated[
        str, typer.Argument(help="A model folder, models:/name@champion, or a run's id.")
    ],
    candidates: Annotated[
        Path, typer.Option(help="New items: text lines, JSON lines, or CSV with attributes.")
    ],
    history: Annotated[
        list[str] | None, typer.Option(help="Text of an item that the user read; repeatable.")
    ] = None,
    history_file: Annotated[
        Path | None, typer.Option(help="The user's history in a file, oldest first.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many to show.")] = 10,
    tracking: Tracking = DEFAULT_TRACKING,
) -> None:
    """Score items that the model has never seen, from their text alone."""
    from legoray.zoo.recommend import read_texts
    from legoray.zoo.recommend import recommend as run

    past: list[Any] = list(history or [])
    past += read_texts(history_file) if history_file else []
    for rank, score, text in run(model, past, read_texts(candidates), top=top, tracking=tracking):
        say(f"{rank:>3}  {score:>9.4f}  {text}")


@app.command()
def catalog(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="Nothing, or: explain <part> <part> [<part>]; or: models; or: datasets [<name>]"
        ),
    ] = None,
    explain: Annotated[
        str | None, typer.Option(help="Say whether parts fit together, such as cnn+none+dot.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="The table of data sets for a Markdown page.")
    ] = False,
) -> None:
    """List all parts with their papers, the presets, and how many compositions are valid.

    `catalog models` lists the language models, and where their weights are on this machine;
    `catalog datasets` the data sets of the folder `datasets`, and `catalog datasets NAME` how to
    get one.
    """
    if words and words[0] == "datasets":
        from legoray.data.datasetscmd import catalog_datasets

        catalog_datasets(words[1:], console_of(), say, markdown=markdown)
        return
    from legoray.errors import unknown
    from legoray.model.catalog import explain_text, print_catalog

    asked = [explain] if explain else (words or [])[1:]
    if words == ["models"] and not explain:
        from legoray.llm.listing import print_models

        print_models(console_of())
        return
    if words and words[0] != "explain":
        raise InputError(
            unknown("subcommand of catalog", words[0], ["datasets", "explain", "models"])
        )
    if asked or words:
        say(explain_text(asked))
    else:
        print_catalog(console_of())


@app.command()
def train(
    preset: Annotated[
        str | None, typer.Option(help="A model of the literature, such as naml; see --list.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A composition of one's own: YAML with model and train.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A data set, such as datasets/mind_sample.yaml")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting to change, such as train.epochs=3; repeatable."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the file's, which is 1.")] = None,
    folder: Annotated[
        str | None, typer.Option(help="Of records and models; runs/<name> here.")
    ] = None,
    test: Annotated[
        bool, typer.Option("--test", help="Measure the best epoch on the test split at the end.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Set earlier trainings in the folder aside.")
    ] = False,
    tracking: Tracking = DEFAULT_TRACKING,
    listed: Annotated[bool, typer.Option("--list", help="List the presets.")] = False,
) -> None:
    """Train one model alone: a preset, or a composition of one's own. Going on after a kill."""
    if listed:
        from legoray.model.catalog import print_presets

        print_presets(console_of())
        return
    if data is None:
        raise InputError("give --data, such as datasets/mind_sample.yaml")
    from legoray.search.single import Asked, train_one

    asked = Asked(
        data=data,
        preset=preset,
        file=config,
        changes=changes or (),
        seed=seed,
        folder=folder,
        test=test,
        fresh=fresh,
        tracking=tracking,
    )
    raise typer.Exit(train_one(asked, console_of()))


app.add_typer(data_app)
app.add_typer(text_app)
app.add_typer(zoo_app)


def run(command: Callable[[], Any]) -> None:
    """Run a command; print a user's mistakes and exit with 2, end quietly on Ctrl-C and pipes."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # where a user's own parts may stand
    try:
        command()
    except InputError as error:
        console = console_of(stderr=True)
        for problem in error.problems:
            console.print(f"error: {problem}", markup=False, style="red")
        sys.exit(2)
    except KeyboardInterrupt:
        console_of(stderr=True).print("interrupted", markup=False)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def main() -> None:
    """Entry of the `legoray` command."""
    run(app)


def run_search_main() -> None:
    """Entry of `run_search.py`."""
    run(search_app)


if __name__ == "__main__":
    main()
