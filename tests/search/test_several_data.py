"""One space on several data sets: each is searched by itself, and the command goes on anywhere."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path

import pytest
from space_cases import edited, make_space, problems_of_space, write_space
from test_resume_kill import Driver, records

from legoray.records import SweepInfo, read_json
from legoray.search.opening import open_sweep
from legoray.search.several import refuse_one, refuse_several
from legoray.search.space import read_spaces
from legoray.zoo.leaderboard import leaderboard

ROOT = Path(__file__).resolve().parents[2]
OTHER = "name: other\nprocessor: mind\npath: elsewhere\ntext: [title]\n"
TWO = edited("data: data.yaml", "data: [data.yaml, other.yaml]")
TRAINED = """\
name: both
data: [{root}/datasets/mind_sample.yaml, again.yaml]
model:
  hidden_size: 8
  content: {{choice: [{{name: id}}, {{name: pooling}}]}}
  behavior: {{name: pooling}}
  predictor: {{name: dot}}
train: {{epochs: 2, learning_rate: {{log: [1e-3, 1e-1]}}}}
evaluate: {{metrics: [auc], select: auc}}
search: {{trials: 2, concurrent: 1, trainer: local, scheduler: {{name: none}}}}
final: {{top: 1, seeds: 1, baselines: [random]}}
"""


def test_each_data_set_has_a_search_of_its_own(tmp_path):
    path = write_space(tmp_path, TWO)
    (tmp_path / "other.yaml").write_text(OTHER)
    first, second = read_spaces(path)
    assert [s.config.name for s in (first, second)] == ["tiny-tiny", "tiny-other"]
    assert [s.config.tracking.experiment for s in (first, second)] == ["tiny", "tiny"]
    assert [s.document.data["data"] for s in (first, second)] == ["data.yaml", "other.yaml"]
    assert second.dataset_config.name == "other"
    assert first.corners() == second.corners()
    assert not make_space(tmp_path / "one").several


def test_what_is_wrong_with_the_list(tmp_path):
    told = problems_of_space(tmp_path, edited("data: data.yaml", "data: [data.yaml, data.yaml]"))
    assert len(told) == 1
    assert ":2: data[1]: the data set 'tiny' stands twice" in told[0]
    told = problems_of_space(tmp_path, edited("data: data.yaml", "data: [data.yaml, date.yaml]"))
    assert len(told) == 1
    assert "did you mean 'data.yaml'" in told[0]
    assert ":2: data" in problems_of_space(tmp_path, edited("data: data.yaml", "data: []"))[0]
    assert len(problems_of_space(tmp_path, edited("data: data.yaml", "data: {a: 1}"))) == 1


def test_another_data_set_in_the_list_is_no_other_sweep_on_the_first(tmp_path):
    import tinytrain

    path = write_space(tmp_path, edited("data: data.yaml", "data: [data.yaml]"))
    (tmp_path / "other.yaml").write_text(OTHER)

    def opened():
        return open_sweep(
            read_spaces(path)[0], tmp_path / "sweep", tmp_path / "tables", tinytrain.MANIFEST
        )

    sweep = opened()
    sweep.begin("key", "search", "a", tinytrain.config(0.1), {})
    sweep.close()
    path.write_text(TWO)
    opened().close()
    path.write_text(TWO.replace("epochs: 3", "epochs: 4"))
    with pytest.raises(Exception, match="epochs: has changed") as caught:
        opened()
    assert str(caught.value).count("has changed") == 1


def test_folders_of_one_and_of_several_are_not_mixed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "sweep.json").touch()
    refuse_one(tmp_path)
    refuse_several(tmp_path / "a")
    with pytest.raises(Exception, match="holds a sweep on one data set"):
        refuse_one(tmp_path / "a")
    with pytest.raises(Exception, match="holds sweeps on several data sets, such as a"):
        refuse_several(tmp_path)


@pytest.mark.slow
def test_a_search_on_two_data_sets_is_interrupted_and_goes_on(sample_tables, tmp_path, monkeypatch):
    monkeypatch.setenv("LEGORAY_HOME", str(sample_tables.parents[1]))
    own = (ROOT / "datasets/mind_sample.yaml").read_text()
    own = own.replace("name: mind_sample", "name: again")
    own = own.replace("path: mind_sample", f"path: {ROOT}/datasets/mind_sample")
    (tmp_path / "again.yaml").write_text(own.replace("valid_share: 0.15", "valid_share: 0.2"))
    space, sweeps = tmp_path / "both.yaml", tmp_path / "sweeps"
    space.write_text(TRAINED.format(root=ROOT))
    first, second = sweeps / "mind_sample", sweeps / "again"
    driver = Driver(space, sweeps, sleep=0.3)
    try:
        driver.until(lambda: any(r.epochs for r in records(second)), "a trial on the second")
        os.kill(driver.process.pid, signal.SIGINT)
        assert driver.ended() == 130, driver.told()
        assert read_json(first / "sweep.json", SweepInfo).state == "finished"
        assert read_json(second / "sweep.json", SweepInfo).state == "interrupted"
        before = records(first)
        driver = Driver(space, sweeps, sleep=0.0)
        assert driver.ended() == 0, driver.told()
        assert "each data set's winner on its own test split" in driver.told()
        assert records(first) == before
        for folder in (first, second):
            found = records(folder)
            assert [r.status for r in found if r.phase == "search"] == ["completed"] * 2
            assert [r.status for r in found if r.phase == "final"] == ["completed"]
        boards = leaderboard(sweeps)
        assert len(boards) == 2
        assert all(len(board.rows) for board in boards)
        with sqlite3.connect(tmp_path / "mlflow.db") as store:
            names = store.execute("select name from experiments").fetchall()
            parents = store.execute("select name from runs where name like 'sweep %'").fetchall()
        assert ("both",) in names
        assert sorted(parents) == [("sweep both-again",), ("sweep both-mind_sample",)]
    finally:
        driver.end()
