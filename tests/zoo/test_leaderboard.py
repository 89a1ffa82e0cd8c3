"""What the leaderboard says, from a sweep's folder and from MLflow alike."""

from __future__ import annotations

import csv
import io
import json
import shutil
import statistics

import pytest
from made_sweeps import baseline, on_disk, sweep_info, trial
from rich.console import Console

from legoray.errors import InputError
from legoray.spaceconfig import TrackingConfig
from legoray.zoo.board import settings_text
from legoray.zoo.leaderboard import leaderboard, print_leaderboard
from legoray.zoo.record import Recorder

TESTS = [0.61, 0.64, 0.62]


def records():
    best = trial(3, auc=0.66, params={"model/content": "cnn", "train/learning_rate": 0.0012})
    finals = [
        trial(10 + n, phase="final", seed=8 + n, label=best.label, auc=0.65,
              test={"auc": value, "ndcg@5": 0.3})
        for n, value in enumerate(TESTS)
    ]  # fmt: skip
    return [
        trial(0, auc=0.60, rate=0.01),
        trial(1, auc=0.62, rate=0.02),
        trial(2, auc=0.70, rate=0.03, status="pruned"),
        best,
        trial(4, rate=0.04, status="failed", epochs=0, reason="ValueError: no"),
        *finals,
        baseline(20, "random"),
        baseline(21, "popularity", 0.55),
    ]


@pytest.fixture(scope="module")
def told(tmp_path_factory, empty_store):
    """One sweep, told by its folder and by MLflow."""
    project = tmp_path_factory.mktemp("board")
    shutil.copy(empty_store, project / "mlflow.db")
    folder = project / "sweeps" / "mind-test"
    on_disk(folder, sweep_info(), *records())
    uri = f"sqlite:///{project / 'mlflow.db'}"
    recorder = Recorder(TrackingConfig(uri=uri), sweep_info(), folder)
    assert recorder.finish(), recorder.problem
    return {"folder": (folder, {}), "mlflow": ("mind-test", {"tracking": uri})}


@pytest.fixture(params=["folder", "mlflow"])
def source(request, told):
    """The same sweep from both sources."""
    return told[request.param]


def test_order_and_numbers(source):
    (board,) = leaderboard(source[0], **source[1])
    assert [(row.rank, row.trial, row.status) for row in board.rows] == [
        (1, 3, "completed"),
        (2, 1, "completed"),
        (3, 0, "completed"),
        (4, 2, "pruned"),  # what was stopped stands below what ran to its end
        (None, 4, "failed"),
    ]
    winner = board.rows[0]
    assert winner.valid == {"auc": pytest.approx(0.66), "ndcg@5": pytest.approx(0.32)}
    assert winner.settings == "learning_rate=0.0012"
    assert winner.test["auc"].mean == pytest.approx(statistics.fmean(TESTS))
    assert winner.test["auc"].std == pytest.approx(statistics.stdev(TESTS))
    assert winner.test["auc"].seeds == 3
    assert winner.costs["trainable"] == 12000
    assert all(not row.test for row in board.rows[1:])
    assert {row.label: row.test["auc"].mean for row in board.baselines} == {
        "random": 0.5,
        "popularity": 0.55,
    }
    assert board.metrics[0] == board.select == "auc"
    assert board.synthetic


def test_unlike_protocols_never_share_a_ranking(project, tracking):
    changes = [
        {},
        {"fingerprint": "other"},
        {"protocol": {"split": "random"}},
        {"select": "ndcg@5"},
    ]
    folders = []
    for number, change in enumerate(changes):
        info = sweep_info(id=f"s{number}", **change)
        folder = project / "sweeps" / info.id
        on_disk(folder, info, trial(0, auc=0.5 + 0.1 * number))
        assert Recorder(tracking, info, folder).finish()
        folders.append(folder)
    boards = leaderboard()
    assert [len(board.rows) for board in boards] == [1] * 4
    same = sweep_info(id="again")
    folder = project / "sweeps" / "again"
    on_disk(folder, same, trial(0, auc=0.7))
    assert Recorder(tracking, same, folder).finish()
    assert sorted(len(board.rows) for board in leaderboard()) == [1, 1, 1, 2]


def printed(source, width, **options):
    console = Console(width=width, file=io.StringIO(), highlight=False)
    print_leaderboard(source[0], console=console, **source[1], **options)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_table_fits_the_terminal_and_says_what_it_shows(source, width):
    text = printed(source, width)
    assert "MIND sample (synthetic data), ranked by validation auc" in text.replace("\n", " ")
    assert "attention+pooling+dot" in text
    assert "0.6600" in text
    assert f"{statistics.fmean(TESTS):.4f} ± {statistics.stdev(TESTS):.4f}" in text
    assert "over 3 seeds" in text
    assert "official dev; valid is the last tenth of train" in text
    assert "ValueError: no" in text
    lines = text.splitlines()
    assert lines.index(line_with(lines, "popularity")) > lines.index(line_with(lines, "id+gru"))
    assert all(len(line) <= width for line in lines if "─" in line or "0.6" in line)
    assert ("learning_rate=0.0012" in text) == (width >= 120)
    assert ("ndcg@5" in text) == (width >= 200)


def line_with(lines, text):
    return next(line for line in lines if text in line)


def test_only_the_first_rows(source):
    text = printed(source, 100, top=2)
    assert "attention+pooling+dot" in text
    assert "id+gru+dcn" not in text
    assert "not shown: 1 completed, 1 pruned, 1 failed" in text
    assert "popularity" in text


def test_markdown_has_every_metric(source):
    lines = printed(source, 80, form="markdown").splitlines()
    assert lines[0] == "### MIND sample (synthetic data), ranked by validation auc"
    head = [cell.strip() for cell in lines[2].strip("|").split("|")]
    rows = [dict(zip(head, [c.strip() for c in line.strip("|").split("|")], strict=True))
            for line in lines[4:] if line.startswith("|")]  # fmt: skip
    assert rows[0]["valid ndcg@5"] == "0.3200"
    assert rows[0]["test auc"] == "0.6233 ± 0.0153"
    assert rows[-1]["status"] == "baseline"


def test_csv_and_json_hold_the_full_numbers(source):
    rows = list(csv.DictReader(io.StringIO(printed(source, 80, form="csv"))))
    assert [row["trial"] for row in rows[:4]] == ["3", "1", "0", "2"]
    assert float(rows[0]["valid auc"]) == pytest.approx(0.66, abs=1e-12)
    assert float(rows[0]["test auc std"]) == pytest.approx(statistics.stdev(TESTS))
    assert json.loads(rows[0]["protocol"]) == sweep_info().protocol
    (board,) = json.loads(printed(source, 80, form="json"))
    assert board["rows"][0]["test"]["auc"]["seeds"] == 3
    assert board["baselines"][0]["label"] == "random"


def test_lower_is_better_where_it_is(project):
    info = sweep_info(select="logloss")
    folder = project / "sweep"
    made = [
        trial(n, rate=0.1 * n).model_copy(update={"best": {"epoch": 1.0, "logloss": value}})
        for n, value in enumerate([0.7, 0.5, 0.6])
    ]
    on_disk(folder, info, *made)
    (board,) = leaderboard(folder)
    assert [row.trial for row in board.rows] == [1, 2, 0]


def test_finals_without_their_trial_have_a_row_of_their_own(project):
    folder = project / "sweep"
    made = trial(5, phase="final", seed=9, auc=0.6, test={"auc": 0.5})
    on_disk(folder, sweep_info(), trial(0, rate=0.5), made)
    (board,) = leaderboard(folder)
    assert [(row.rank, row.trial) for row in board.rows] == [(1, 0), (None, 5)]
    assert board.rows[1].test["auc"].std is None


def test_settings_are_short_and_told_apart():
    chosen = {
        "model/content": "llm",
        "model/content.llm/split": 5,
        "model/content.llm/dropout": 0.1,
        "model/predictor.dnn/dropout": 0.25,
        "model/hidden_size": 64,
        "train/learning_rate": 0.000123456,
    }
    assert settings_text(chosen) == (
        "split=5 content.dropout=0.1 predictor.dropout=0.25 hidden_size=64 learning_rate=0.000123"
    )


def test_mistakes_are_told(project, tracking):
    with pytest.raises(InputError, match="did you mean 'csv'"):
        print_leaderboard(form="csw")
    with pytest.raises(InputError, match="no trials are recorded here yet"):
        leaderboard()
    folder = project / "sweeps" / "mind-test"
    on_disk(folder, sweep_info(), trial(0))
    assert Recorder(tracking, sweep_info(), folder).finish()
    with pytest.raises(InputError, match=r"no experiment or sweep folder 'mind-tset'.*'mind-test'"):
        leaderboard("mind-tset")
    with pytest.raises(InputError, match="no such file"):
        leaderboard(project)
    with pytest.raises(InputError, match="there is no model zoo here"):
        leaderboard(tracking=f"sqlite:///{project / 'no.db'}")
    (folder / "trials" / "0.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        leaderboard(folder)


def test_a_file_that_is_no_database_is_told(tmp_path):
    (tmp_path / "mlflow.db").write_text("this is no database " * 100)
    with pytest.raises(InputError, match="cannot be read"):
        leaderboard(tracking=f"sqlite:///{tmp_path / 'mlflow.db'}")


def test_another_experiment_name(project):
    folder = project / "sweeps" / "mind-test"
    on_disk(folder, sweep_info(), trial(0))
    assert Recorder(TrackingConfig(experiment="mine"), sweep_info(), folder).finish()
    assert len(leaderboard("mine")[0].rows) == 1
