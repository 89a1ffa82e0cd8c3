"""`legoray evaluate`: what it measures is what training measured; its forms; what it refuses."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from legoray import cli
from legoray.errors import InputError
from legoray.records import read_trials
from legoray.search.single import Asked, train_one
from legoray.zoo.evaluating import evaluate_model, print_evaluation

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "datasets" / "mind_sample.yaml"
SMALL = (
    "train.epochs=1",
    "train.batch_size=512",
    "train.max_history=5",
    "model.hidden_size=8",
    "evaluate.metrics=[auc, mrr, ndcg@5]",
)


@pytest.fixture(scope="module")
def desk(tmp_path_factory, sample_tables):
    """A folder with a model that was trained and tested on the embedded corpus."""
    folder = tmp_path_factory.mktemp("desk")
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LEGORAY_HOME", str(sample_tables.parents[1]))
        asked = Asked(data=DATA, preset="naml-id", changes=SMALL, folder=Path("run"), test=True)
        assert train_one(asked, Console(file=out, width=120)) == 0
        (folder / "told").write_text(out.getvalue(), encoding="utf-8")
        (record,) = read_trials(folder / "run")
        shutil.copytree(folder / "run" / "models" / record.key / "best", folder / "model")
        yield folder, record


@pytest.fixture
def here(desk, monkeypatch, sample_tables):
    monkeypatch.chdir(desk[0])
    monkeypatch.setenv("LEGORAY_HOME", str(sample_tables.parents[1]))
    monkeypatch.setenv("COLUMNS", "120")
    return desk


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["legoray", "evaluate", *map(str, words)])
    try:
        cli.main()
    except SystemExit as end:
        return end.code or 0
    return 0


def test_the_numbers_are_those_of_the_training(here):
    folder, record = here
    found = evaluate_model(folder / "model", DATA, split="test")
    assert found.metrics == pytest.approx(record.test, abs=1e-7)
    assert {"auc/cold-item", "groups/cold-item", "mrr/tail-item"} <= set(found.metrics)
    valid = evaluate_model(folder / "model", DATA, metrics=["auc"])
    assert valid.metrics["auc"] == pytest.approx(record.best["auc"], abs=1e-7)
    assert {name.partition("/")[0] for name in valid.metrics} == {"auc", "groups"}


def test_a_training_tells_its_slices(here):
    told = (here[0] / "told").read_text(encoding="utf-8")
    count = f"{here[1].test['groups/cold-item']:,.0f}"
    value = f"{here[1].test['auc/cold-item']:.4f}"
    assert re.search(rf"^ *cold-item +{count} +{value} ", told, re.M), told


def test_the_table(here, monkeypatch, capsys):
    _, record = here
    assert run(monkeypatch, "model", "--data", DATA, "--split", "test") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("naml-id (id+additive+dot) on the test split of mind_sample")
    (heads,) = (line.split() for line in lines if line.startswith(" slice"))
    assert heads == ["slice", "impressions", "auc", "mrr", "ndcg@5"]
    rows = {line.split()[0]: line.split()[1:] for line in lines if "." in line and "—" not in line}
    for name in ("all", "cold-item"):
        end = "" if name == "all" else f"/{name}"
        wanted = [f"{record.test[f'{metric}{end}']:.4f}" for metric in heads[2:]]
        assert rows[name] == [f"{record.test[f'groups/{name}']:,.0f}", *wanted]
    assert any("slices: cold-user: no impression in train" in line for line in lines)


@pytest.mark.parametrize("form", ["markdown", "json"])
def test_other_forms(here, monkeypatch, capsys, form):
    _, record = here
    assert run(monkeypatch, "model", "--data", DATA, "--split", "test", "--format", form) == 0
    out = capsys.readouterr().out
    if form == "json":
        content = json.loads(out)
        assert content["metrics"]["auc/cold-item"] == pytest.approx(record.test["auc/cold-item"])
        assert (content["split"], content["group"]) == ("test", "impression")
    else:
        cells = [cell.strip() for cell in out.split("| cold-item |")[1].splitlines()[0].split("|")]
        assert cells[1] == f"{record.test['auc/cold-item']:.4f}"
        assert out.startswith("### naml-id")


def test_groups_may_be_users(here):
    found = evaluate_model("model", DATA, metrics=["auc"], group="user")
    assert found.group == "user"
    assert found.metrics["groups/all"] < 685  # not all users are in valid


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model", "--data", DATA, "--metric", "acu"], r"no metric 'acu' \(did you mean 'auc'"),
        (["model", "--data", DATA, "--split", "tst"], r"split 'tst' .*it has: train, valid, test"),
        (["model", "--data", DATA, "--group", "users"], r"no group 'users' .*mean 'user'"),
        (["model", "--data", DATA, "--format", "tabel"], r"no format 'tabel' .*mean 'table'"),
        (["model", "--data", "none.yaml"], r"none\.yaml"),
        (["modle", "--data", DATA], r"no model zoo here|no folder and no run 'modle'"),
    ],
)
def test_mistakes_end_with_a_message(here, monkeypatch, capsys, words, message):
    assert run(monkeypatch, *words) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(message, error), error
    assert "Traceback" not in error


def changed(here, tmp_path, **extra):
    """A copy of the model that says something else of its training."""
    folder = shutil.copytree(here[0] / "model", tmp_path / "other")
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    content["extra"] |= extra
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_other_data_or_texts_are_refused(here, tmp_path):
    other = changed(here, tmp_path, fingerprint="f" * 64)
    with pytest.raises(InputError, match=r"trained on other data \(mind_sample, ffff.*other num"):
        evaluate_model(other, DATA)
    shutil.rmtree(other)
    other = changed(here, tmp_path, reads={"summary": "0123"})
    with pytest.raises(InputError, match="read other texts of summary"):
        evaluate_model(other, DATA)
    shutil.rmtree(other)
    other = changed(here, tmp_path, config=None)
    with pytest.raises(InputError, match="does not say how it was trained"):
        evaluate_model(other, DATA)


def test_slices_that_were_not_measured_have_no_row(here):
    found = evaluate_model("model", DATA, metrics=["auc"])
    metrics = {k: v for k, v in found.metrics.items() if not k.endswith("/cold-item")}
    out = io.StringIO()
    less = type(found)(**{**vars(found), "metrics": metrics})
    print_evaluation(less, form="table", console=Console(file=out, width=100))
    assert "cold-item " not in out.getvalue().split("data mind_sample")[0]
    assert "tail-item" in out.getvalue()
    assert not re.search(r"\bnan\b", out.getvalue())


def test_full_ranking_of_real_data_from_training_to_evaluation(tmp_path, monkeypatch, real_data):
    raw = real_data("movielens", "ml-latest-small")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LEGORAY_HOME", str(tmp_path / "home"))
    options = {"split": "leave-last-out", "candidates": "all", "k_core": 20}
    content = {"name": "ml", "path": str(raw), "processor": "movielens", "options": options}
    (tmp_path / "ml.yaml").write_text(json.dumps(content), encoding="utf-8")
    asked = Asked(
        data=Path("ml.yaml"),
        preset="naml-id",
        changes=[*SMALL[:-1], "evaluate.metrics=[ndcg@10, hit@10]", "evaluate.select=ndcg@10"],
        folder=Path("run"),
        test=True,
    )
    console = Console(file=io.StringIO(), width=120)
    undefined = replace(asked, changes=[*asked.changes[:-2], "evaluate.metrics=[auc, logloss]"])
    with pytest.raises(InputError, match=r"logloss .*not defined for full ranking"):
        train_one(undefined, console)
    assert train_one(asked, console) == 0
    (record,) = read_trials(tmp_path / "run")
    found = evaluate_model(f"run/models/{record.key}", Path("ml.yaml"), split="test")
    assert found.metrics == pytest.approx(record.test, abs=1e-6)
    assert found.protocol["candidate_items"] > 500
    assert found.metrics["groups/all"] > 300
    chance = 10 / float(found.protocol["candidate_items"])
    assert found.metrics["hit@10"] > chance
    assert (
        found.metrics["groups/head-item"] + found.metrics["groups/tail-item"]
        == (found.metrics["groups/all"])
    )


def test_models_are_compared_on_a_split_as_their_tests_would_be(here):
    """The model against itself: what its test kept, and measured anew, once by users."""
    from legoray.zoo.versus import Asked as Versus
    from legoray.zoo.versus import compare_models

    model, record = str(here[0] / "model"), here[1]
    kept = compare_models(Versus([model, model]))
    anew = compare_models(Versus([model, model], DATA, "test"))
    assert anew.compared[0].mean == pytest.approx(kept.compared[0].mean, abs=1e-6)
    assert kept.compared[0].mean["mrr"] == pytest.approx(record.test["mrr"], abs=1e-6)
    assert (kept.pairs[0].difference, kept.pairs[0].p, kept.pairs[0].verdict) == (0.0, 1.0, "tie")
    assert (kept.split, kept.group, kept.groups) == ("test", "impression", anew.groups)
    by_user = compare_models(Versus([model, model], DATA, metrics=["mrr"], group="user"))
    assert (by_user.split, by_user.metric, by_user.group) == ("valid", "mrr", "user")
    assert by_user.groups == by_user.users < anew.groups
