"""What cannot be trained is told apart by a whole search: too little memory, and divergence."""

from __future__ import annotations

import io
import json
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console
from test_slots_run import cluster  # noqa: F401

from legoray.records import read_trials
from legoray.search.journal import open_journal

ROOT = Path(__file__).parents[2]
SPACE = """\
name: infeasible
data: {root}/datasets/mind_sample.yaml
model:
  hidden_size: {hidden}
  content: {{name: id}}
  behavior: {{name: additive}}
  predictor: {{name: dot}}
train: {{epochs: 2, batch_size: {batch}, max_history: 10, {more}}}
evaluate: {{metrics: [auc], select: auc}}
search: {{trials: 2, trainer: local, concurrent: 1, sampler: {{name: grid}}}}
final: {{top: 0, baselines: []}}
tracking: {{uri: "sqlite:///{folder}/mlflow.db"}}
"""


@pytest.fixture
def search(cluster, sample_tables, tmp_path, monkeypatch):  # noqa: F811
    """Searches a space in little memory; gives the records and the study's rows."""
    from legoray.search.run import run_search

    monkeypatch.setenv("LEGORAY_HOME", str(sample_tables.parents[1]))

    def start(**given):
        file = tmp_path / "space.yaml"
        file.write_text(SPACE.format(root=ROOT, folder=tmp_path, **given))
        console = Console(file=io.StringIO(), width=200)
        code = run_search(file, folder=tmp_path / "sweep", console=console, train_fn="tight:train")
        info = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
        storage = open_journal(tmp_path / "sweep" / "study.journal")
        rows = optuna.load_study(study_name=info["id"], storage=storage).get_trials()
        return code, read_trials(tmp_path / "sweep"), rows

    start.folder = tmp_path / "sweep"
    return start


@pytest.mark.slow
def test_too_little_memory_halves_the_micro_batch_and_then_is_infeasible(search):
    """There is no room for 4,096 samples at once, nor for a model of 32,768 dimensions."""
    code, records, rows = search(
        hidden="{choice: [2048, 32768]}", batch=4096, more="learning_rate: 1e-3"
    )
    small, large = sorted(records, key=lambda r: r.config["model"]["hidden_size"])
    assert code == 0
    assert small.status == "completed"
    parts = json.loads((search.folder / "models" / small.key / "parts.json").read_text())
    assert parts in (2, 4, 8, 16, 32, 64)
    assert large.status == "infeasible"
    assert "out of memory" in large.reason
    assert not (search.folder / "models" / large.key / "last").exists()
    told = {row.params["model/hidden_size"]: row for row in rows}
    assert told[2048].state == TrialState.COMPLETE
    assert told[32768].state == TrialState.FAIL
    assert told[32768].user_attrs["outcome"] == "infeasible"


@pytest.mark.slow
def test_divergence_is_infeasible_with_its_reason(search):
    """A weight decay that multiplies the weights by -10,000 at each step."""
    code, records, rows = search(
        hidden=16, batch=128, more="learning_rate: 0.01, weight_decay: {choice: [0.0, 1.0e+6]}"
    )
    good, bad = sorted(records, key=lambda r: r.config["train"]["weight_decay"])
    assert code == 0
    assert good.status == "completed"
    assert bad.status == "infeasible"
    assert "the loss is nan in epoch 1" in bad.reason
    assert not bad.best
    assert [row.state for row in rows].count(TrialState.FAIL) == 1
