"""`legoray compare` over what the tests of models left: its claims, its forms, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from made_models import save_cnn

from legoray.cli import app, run
from legoray.train.groupvalues import FILE, GroupValues, Origin, write_values

ORIGIN = Origin("test", "impression", "mind_sample", "f1a2b3", "{}")


def keep(folder, mean, seed, origin=ORIGIN, names=("auc", "mrr")):
    """What a test would have left in a model's folder."""
    common = np.random.default_rng(0).normal(0, 0.1, 200)
    own = np.random.default_rng(seed).normal(0, 0.01, 200)
    numbers = np.arange(200, dtype=np.int32)
    column = (mean + common + own).astype(np.float32)
    write_values(folder, GroupValues(origin, numbers, numbers // 4, dict.fromkeys(names, column)))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Three models: two that are alike, and a worse one."""
    root = tmp_path_factory.mktemp("models")
    made = [save_cnn(root / name, behavior=b) for name, b in
            (("a", "attention"), ("b", "additive"), ("c", "additive"))]  # fmt: skip
    return [str(folder) for folder in made]


@pytest.fixture
def kept(models, tmp_path, monkeypatch):
    for number, (folder, mean) in enumerate(zip(models, (0.7, 0.7, 0.62), strict=True)):
        keep(Path(folder), mean, number + 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return models


def legoray(*words):
    with pytest.raises(SystemExit) as left:
        run(lambda: app(list(words)))
    return left.value.code


def test_what_is_better_and_what_is_a_tie(kept, capsys):
    assert legoray("compare", *kept) == 0
    out = capsys.readouterr().out
    assert "auc on 200 impressions of 50 users of the test split, paired bootstrap" in out
    assert f"cnn+attention+dot and cnn+additive+dot ({kept[1]}) are a tie: " in out
    assert f"cnn+attention+dot is better than cnn+additive+dot ({kept[2]}) by 0.0" in out


def test_as_json_with_another_metric(kept, capsys):
    assert legoray("compare", *kept, "--metric", "mrr", "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metric"] == "mrr"
    assert [one["letters"] for one in found["compared"]] == ["a", "a", "b"]
    assert len(found["pairs"]) == 3


def test_what_cannot_be_compared_is_told(kept, capsys):
    assert legoray("compare", kept[0]) == 2
    assert "needs two models or more" in capsys.readouterr().err
    assert legoray("compare", kept[0], kept[1], "--metric", "mr") == 2
    assert "did you mean 'mrr'" in capsys.readouterr().err
    assert legoray("compare", kept[0], kept[1], "--format", "tabel") == 2
    assert "did you mean 'table'" in capsys.readouterr().err
    keep(Path(kept[1]), 0.7, 2, Origin("test", "impression", "books", "f9", "{}"))
    assert legoray("compare", kept[0], kept[1]) == 2
    assert "was measured on other groups (books, f9, by impression)" in capsys.readouterr().err
    (Path(kept[1]) / FILE).unlink()
    assert legoray("compare", kept[0], kept[1]) == 2
    assert "keeps no values of a test (give --data" in capsys.readouterr().err.replace("\n", " ")
    assert legoray("compare", kept[0], "nobody") == 2
