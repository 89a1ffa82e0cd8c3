"""What runs and experiments say of themselves in MLflow, as Markdown.

MLflow's interface renders tables and images of notes, and of an image's address only what a browser
finds by itself: a run's picture is its own artifact, named by a relative address.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from legoray.errors import InputError
from legoray.records import SweepInfo, TrialRecord, read_trials
from legoray.zoo import fields
from legoray.zoo.board import Row, entry_of_record, make_boards
from legoray.zoo.picture import composition_svg, parts_of
from legoray.zoo.slicetable import to_markdown

PICTURE = "composition.svg"
WIDE = 680  # pixels of a picture: what MLflow's interface leaves of an ordinary window
TOP = 10  # rows of a sweep's table
EXAMPLE = "--history 'a title that was read' --candidates new_titles.txt"


def picture_of(record: TrialRecord) -> str:
    """The composition as SVG; empty for a baseline."""
    reads = fields.reads_text(record) or "item texts"
    return composition_svg(record.config, record.params, reads=reads, wide=WIDE)


def trial_note(record: TrialRecord, sweep: SweepInfo, run_id: str, model: str | None) -> str:
    """The composition as a picture and as a table, the outcome, and how to load the model.

    Args:
        record: the trial.
        sweep: its sweep.
        run_id: the run that has the picture.
        model: id of the logged model, if there is one.
    """
    lines = [*_outcome(record, sweep), ""]  # the interface shows the first lines, then 'Show more'
    if record.config:
        lines += [_image(run_id, record.label), "", *_parts(record)]
    if model:
        lines += [
            "", "Load it by either of", "",
            f"    mlflow.pyfunc.load_model('models:/{model}')",
            f"    mlflow.pyfunc.load_model('runs:/{run_id}/{fields.model_name(record.label)}')",
            "", "or use it from a shell:", "",
            f"    legoray recommend models:/{model} {EXAMPLE}",
        ]  # fmt: skip
    table = to_markdown(record.test)
    lines += ["", "Test split by slice:", "", *table] if table else []
    return "\n".join(lines).strip()


def _image(run_id: str, label: str) -> str:
    return f"![{_plain(label)}](get-artifact?path={quote(PICTURE)}&run_uuid={quote(run_id)})"


def _parts(record: TrialRecord) -> list[str]:
    """The three operators, for whoever does not see the picture."""
    lines = ["| part | operator | chosen by the search | given |", "| :-- | :-- | :-- | :-- |"]
    for part in parts_of(record.config, record.params, most=12):
        cells = [f"**{part.kind}**", part.name, ", ".join(part.chosen), ", ".join(part.others)]
        lines.append(f"| {' | '.join(_plain(cell) for cell in cells)} |")
    return lines


def _outcome(record: TrialRecord, sweep: SweepInfo) -> list[str]:
    """Status, value and reason."""
    select = sweep.select
    lines = []
    if select in record.best:
        epoch = record.best.get("epoch")
        when = "" if epoch is None else f" in epoch {epoch:.0f} of {len(record.epochs)}"
        lines.append(f"Validation {select} **{record.best[select]:.4f}**{when}.")
    if select in record.test:
        lines.append(f"Test {select} **{record.test[select]:.4f}**.")
    if record.reason:
        lines.append(f"{record.status}: {_plain(record.reason.splitlines()[0][:400])}")
    if record.reused:
        lines.append("Reused: this was measured before, under the same data and protocol.")
    return ["  \n".join(lines)] if lines else []


def sweep_note(
    sweep: SweepInfo,
    winner: TrialRecord | None,
    name: str,
    version: str | None,
    *,
    registry: str = "",
    winner_run: str | None = None,
    rows: Sequence[Row] = (),
) -> str:
    """Data, protocol, winner, the best trials, and the commands that use the result.

    Args:
        sweep: the sweep.
        winner: its winner, if there is one.
        name: of the registered model.
        version: the winner's in the registry.
        registry: what became of the champion.
        winner_run: the run that has the winner's picture.
        rows: of the leaderboard.
    """
    title = sweep.data_title or sweep.data
    kind = "synthetic data, " if sweep.synthetic else ""
    lines = [
        f"### {sweep.name}: {title}",
        f"{kind}fingerprint `{sweep.fingerprint[:12]}`, selected by validation `{sweep.select}`, "
        f"seed {sweep.seed}",
    ]
    if winner is not None:
        value = winner.best.get(sweep.select)
        score = "" if value is None else f": validation {sweep.select} {value:.4f}"
        lines += ["", f"**Winner: {winner.label} (trial {winner.number})**{score}"]
        lines += ["", _image(winner_run, winner.label)] if winner_run and winner.config else []
    lines += ["", _plain(registry)] if registry else []
    if version:
        lines += ["", f"    legoray recommend models:/{name}/{version} {EXAMPLE}"]
    lines += _leaders(rows, sweep.select)
    table = to_markdown(winner.test) if winner is not None else []
    if table:
        lines += ["", "Test split of the winner, by slice:", "", *table]
    if winner is not None:
        lines += ["", "Plots of all trials: `report.html` among the artifacts of this run."]
    command = sweep.command or f"python run_search.py {sweep.space_file}"
    lines += ["", f"    {command}", "", "| protocol | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in sorted(sweep.protocol.items())]
    return "\n".join(lines)


def leaders(folder: Path, sweep: SweepInfo) -> list[Row]:
    """The first rows of a sweep's leaderboard."""
    boards = make_boards(entry_of_record(record, sweep) for record in records_of(folder))
    return [row for row in boards[0].rows if row.rank][:TOP] if boards else []


def records_of(folder: Path) -> list[TrialRecord]:
    """A sweep's records; none where they cannot be read, which is told elsewhere."""
    try:
        return read_trials(folder)
    except InputError:
        return []


def _leaders(rows: Sequence[Row], select: str) -> list[str]:
    if not rows:
        return []
    lines = ["", f"| # | model | settings | valid {select} | test {select} | seconds | status |",
             "| --: | :-- | :-- | --: | --: | --: | :-- |"]  # fmt: skip
    for row in rows:
        test = row.test.get(select)
        spread = "" if test is None or test.std is None else f" ± {test.std:.4f}"
        seconds = row.costs.get("seconds")
        cells = [
            str(row.rank), _plain(row.label), _plain(row.settings), f"{row.valid[select]:.4f}",
            "" if test is None else f"{test.mean:.4f}{spread}",
            "" if seconds is None else f"{seconds:.1f}", row.status,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def experiment_note(sweep: SweepInfo) -> str:
    """What an experiment holds, and how to read its table."""
    title = sweep.data_title or sweep.data
    kind = " (synthetic data)" if sweep.synthetic and "synthetic" not in title.lower() else ""
    return (
        f"Searches for recommenders on **{_plain(title)}**{kind}: compositions of content "
        "operator, behavior operator and click predictor.\n\n"
        "A run named `sweep ...` is a search; its trials, final trainings (`seed ...`) and "
        f"baselines are its children. `{fields.metric_key('best', sweep.select)}` is validation's, "
        "of the epoch that it selected; `test/...` was measured once, after the search; "
        "`valid/...` and `train/...` have a value per epoch. Numbers compare where the tags "
        "`fingerprint` and `protocol` are equal. The saved view *Leaderboard* sorts and names the "
        "columns."
    )


def _plain(text: str) -> str:
    """A text without marks of Markdown's tables, nor of HTML."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
