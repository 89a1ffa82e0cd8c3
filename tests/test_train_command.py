"""`legoray train`: one model alone, from a preset or a file, resumed, recorded, and checked."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from rich.console import Console

from legoray import cli
from legoray.errors import InfeasibleError, InputError
from legoray.model.io import load_model
from legoray.model.presets import names
from legoray.records import read_trials
from legoray.search.single import Asked, train_one
from legoray.search.single_config import read_changes, read_single

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "datasets" / "mind_sample.yaml"
SMALL = (
    "train.epochs=2",
    "train.batch_size=512",
    "train.max_history=5",
    "model.hidden_size=8",
    "evaluate.metrics=[auc, mrr, ndcg@5]",
)


@pytest.fixture
def desk(tmp_path, monkeypatch, sample_tables):
    """The embedded corpus, prepared for all tests, and an empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LEGORAY_HOME", str(sample_tables.parents[1]))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def asked(**changes):
    given = {"data": DATA, "preset": "naml-id", "changes": SMALL, "folder": Path("run"), **changes}
    return Asked(**given)


def trained(capsys, **changes):
    code = train_one(asked(**changes), Console(highlight=False, width=200))
    return code, capsys.readouterr().out


def test_a_preset_is_trained_tested_and_recorded(desk, capsys):
    code, out = trained(capsys, test=True)
    assert code == 0
    assert "training naml-id (id+additive+dot) for 2 epochs, seed 1" in out
    assert re.search(r"^epoch 1  loss \d\.\d{4}  auc 0\.\d{4}  mrr .*  \d+\.\d s$", out, re.M)
    assert re.search(r"^test split: auc 0\.\d{4}, mrr 0\.\d{4}, ndcg@5 0\.\d{4}$", out, re.M)
    (record,) = read_trials(desk / "run")
    assert (record.phase, record.status, len(record.epochs)) == ("final", "completed", 2)
    assert record.config["model"]["preset"] == "naml-id"
    assert record.config["model"]["behavior"]["attention_size"] == 200, "the preset's own"
    folder = Path(re.search(r"^model: (\S+)$", out, re.M).group(1))
    assert load_model(folder).config.content["name"] == "id"
    assert "MLflow does not have" not in out
    assert "legoray recommend" not in out, "identifiers cannot score new texts"

    from legoray.zoo.leaderboard import leaderboard, print_leaderboard

    for board in (leaderboard("run")[0], leaderboard("naml-id")[0]):
        (row,) = board.rows
        assert row.label == "naml-id (id+additive+dot)"
        assert row.test["auc"].mean == pytest.approx(record.test["auc"])
        assert row.model["preset"] == "naml-id"
    print_leaderboard("run", form="paper-markdown")
    line = next(li for li in capsys.readouterr().out.splitlines() if "NAML-ID" in li)
    assert line.startswith("| original | NAML-ID | id | additive | dot | ")
    assert f"| {100 * record.test['auc']:.2f} |" in line


def test_the_same_again_is_not_trained_and_other_seeds_share_the_folder(desk, capsys):
    trained(capsys)
    code, out = trained(capsys)
    assert code == 0
    assert "was trained before" in out
    assert "epoch 1" not in out
    trained(capsys, seed=2)
    assert [record.config["seed"] for record in read_trials(desk / "run")] == [1, 2]
    code, out = trained(capsys, fresh=True)
    assert "epoch 1" in out
    assert len(read_trials(desk / "run")) == 1


def test_an_interrupted_training_goes_on(desk, capsys, monkeypatch):
    from legoray.search import single

    epoch = single._Run._epoch

    def stop(self, number, metrics):
        epoch(self, number, metrics)
        raise KeyboardInterrupt

    monkeypatch.setattr(single._Run, "_epoch", stop)
    code, out = trained(capsys)
    assert code == 130
    assert "to go on: legoray train --data" in out
    assert "--set train.epochs=2" in out
    (record,) = read_trials(desk / "run")
    assert record.status == "interrupted"
    monkeypatch.setattr(single._Run, "_epoch", epoch)
    code, out = trained(capsys)
    assert code == 0
    assert "going on after epoch 1" in out
    assert "epoch 1  loss" not in out
    (record,) = read_trials(desk / "run")
    assert (record.status, [e["epoch"] for e in record.epochs]) == ("completed", [1, 2])


def test_a_training_that_diverges_ends_with_its_reason(desk, capsys, monkeypatch):
    def diverge(job, runtime, report):
        raise InfeasibleError("the loss is NaN in epoch 1")

    monkeypatch.setattr("legoray.train.loop.train", diverge)
    code, out = trained(capsys)
    (record,) = read_trials(desk / "run")
    assert code == 1
    assert (record.status, record.reason) == ("infeasible", "the loss is NaN in epoch 1")
    assert "naml-id (id+additive+dot) cannot be trained so: the loss is NaN" in out


def test_all_mistakes_come_at_once(desk):
    changes = (
        "train.epoch=3",
        "model.content.kernl_size=4",
        "model.behavior.attention_size=x",
        "modle.hidden_size=3",
        "nothing",
        "evaluate.select=auk",
    )
    with pytest.raises(InputError) as caught:
        train_one(asked(preset="naml", changes=changes, data=Path("nowhere.yaml")), Console())
    told = [str(problem) for problem in caught.value.problems]
    assert len(told) == 7
    for word in (
        "'epochs'",
        "'kernel_size'",
        "'x'",
        "'model'",
        "path and a value",
        "'auk'",
        "no such",
    ):
        assert sum(word in problem for problem in told) == 1, (word, told)
    assert not (desk / "run").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--preset", "nmal", "--data", str(DATA)], "did you mean 'naml'?"),
        (["--data", str(DATA)], "give either --preset"),
        (["--preset", "naml"], "give --data"),
        (["--preset", "naml", "--config", "x.yaml", "--data", str(DATA)], "give either --preset"),
        (["--config", "nowhere.yaml", "--data", str(DATA)], "nowhere.yaml: no such file"),
    ],
)
def test_the_command_refuses(desk, monkeypatch, capsys, words, told):
    monkeypatch.setattr(sys, "argv", ["legoray", "train", *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert told in capsys.readouterr().err


def test_the_presets_are_listed(desk, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["legoray", "train", "--list"])
    with pytest.raises(SystemExit):
        cli.main()
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:2] == "  "]
    assert listed == list(names())


OWN = """\
name: mine
model:
  hidden_size: 8
  content: {name: pooling, length: 6}
  behavior: {name: gru}
  predictor: {name: bilinear}
train: {epochs: 1, batch_size: 512, max_history: 5}
"""


def test_a_composition_of_ones_own(desk, capsys):
    (desk / "own.yaml").write_text(OWN)
    code, out = trained(capsys, preset=None, file=Path("own.yaml"), changes=(), folder=None)
    assert code == 0
    assert "training pooling+gru+bilinear for 1 epoch," in out
    assert re.search(r"legoray recommend runs/mine/models/\w+/best --candidates", out)
    assert (desk / "runs" / "mine" / "sweep.json").exists()


def test_a_mistake_in_the_file_is_told_with_its_line(desk):
    (desk / "own.yaml").write_text(OWN.replace("length: 6", "lenth: 6"))
    with pytest.raises(InputError, match=r"own.yaml:4: model.content.lenth: .*'length'"):
        read_single(None, Path("own.yaml"), (), None)


def test_a_file_may_build_on_a_preset(desk):
    (desk / "own.yaml").write_text("model: {preset: nrms, content: {heads: 4}}\n")
    config = read_single(None, Path("own.yaml"), ("model.behavior.name=gru",), 5).config
    assert config.model.label() == "nrms (attention+gru+dot)"
    assert config.model.content["heads"] == 4
    assert config.model.content["attention_size"] == 200
    assert "heads" not in config.model.behavior
    assert config.seed == 5


def test_changes_are_read_as_yaml():
    found, problems = read_changes(
        ["train.learning_rate=1e-3", "model.content.lora=null", "train.compile=true", "seed=3"]
    )
    assert problems == []
    assert found == {
        "train": {"learning_rate": 1e-3, "compile": True},
        "model": {"content": {"lora": None}},
        "seed": 3,
    }
