"""The Pareto front's models in MLflow and in the leaderboard, with a real SQLite store."""

from __future__ import annotations

import io
import json

import pytest
from made_sweeps import model_folder, on_disk, sweep_info, trial
from rich.console import Console

from legoray.spaceconfig import ObjectiveConfig
from legoray.zoo.boardtext import print_board, to_csv, to_markdown
from legoray.zoo.leaderboard import leaderboard
from legoray.zoo.record import Recorder

GOALS = [ObjectiveConfig(name="auc"), ObjectiveConfig(name="latency", limit=9.0)]
VALUES = [(0.60, 1.0), (0.70, 5.0), (0.65, 6.0), (0.80, 9.5)]  # 2 is beaten by 1, 3 too slow


def costed(number, auc, latency, **more):
    costs = {"seconds": 9.5, "parameters": 12345.0, "latency_ms": latency}
    return trial(number, auc=auc, costs=costs, **more)


@pytest.fixture
def sweep(project):
    """A sweep of two objectives that has ended, on disk."""
    info = sweep_info(objectives=GOALS)
    records = [costed(number, *pair) for number, pair in enumerate(VALUES)]
    records.append(costed(4, 0.9, 0.1, status="pruned"))
    folder = project / "sweeps" / info.name
    on_disk(folder, info, *records)
    for record in records[:4]:
        model_folder(folder, record)
    return info, folder, records


def test_the_front_is_marked_and_registered(sweep, client, tracking):
    info, folder, records = sweep
    recorder = Recorder(tracking, info, folder)
    assert recorder.finish(records[1]), recorder.problem
    experiment = client.get_experiment_by_name(info.name).experiment_id
    runs = {run.data.tags.get("legoray.number"): run for run in client.search_runs([experiment])}
    assert [runs[str(n)].data.tags.get("pareto") for n in range(5)] == [
        "true", "true", "false", "false", None,
    ]  # fmt: skip
    models = client.search_logged_models([experiment], filter_string="tags.pareto = 'true'")
    assert {model.source_run_id for model in models} == {runs[n].info.run_id for n in "01"}
    aliases = client.get_registered_model(info.name).aliases
    owners = {a: client.get_model_version(info.name, v).run_id for a, v in aliases.items()}
    assert owners == {
        "champion": runs["1"].info.run_id,
        "pareto-1": runs["1"].info.run_id,
        "pareto-2": runs["0"].info.run_id,
    }
    again = Recorder(tracking, info, folder)
    assert again.finish(records[1])
    assert len(client.search_model_versions(f"name = '{info.name}'")) == 2
    client.set_registered_model_alias(info.name, "pareto-7", aliases["pareto-1"])
    assert Recorder(tracking, info, folder).finish(records[1])
    assert "pareto-7" not in client.get_registered_model(info.name).aliases


def test_the_leaderboard_has_the_objectives_and_the_front(sweep, tracking):
    info, folder, records = sweep
    assert Recorder(tracking, info, folder).finish(records[1])
    for source in (folder, info.name):  # its records, and MLflow
        (board,) = leaderboard(source)
        assert [row.trial for row in board.rows if row.pareto] == [1, 0]
        assert [one.name for one in board.objectives] == ["auc", "latency"]
    screen = io.StringIO()
    print_board(board, Console(file=screen, width=120), 20)
    text = screen.getvalue()
    assert "* on the Pareto front of auc, latency in ms per 1,000 candidates" in text
    (line,) = [line for line in text.splitlines() if "0.7000" in line]
    assert " 5.00 " in line
    assert " * " in line
    assert "| 9.50 |" in to_markdown([board], 20)
    assert to_csv([board], 20).splitlines()[0].endswith("pareto")


def test_a_board_of_one_objective_has_no_front(project):
    folder = project / "sweeps" / "plain"
    on_disk(folder, sweep_info(), costed(0, 0.6, 1.0))
    (board,) = leaderboard(folder)
    assert board.objectives == ()
    assert "front" not in to_markdown([board], 20)
    assert "pareto" not in to_csv([board], 20)


def test_objectives_that_somebody_else_wrote_are_none():
    from legoray.zoo.board import entry_of_run

    for text in ("auc", json.dumps([{"nam": "auc"}, 3]), "7"):
        assert entry_of_run({"objectives": text, "select": "auc"}, {}).objectives == ()
