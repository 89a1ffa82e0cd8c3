"""A small real training (logistic regression in torch) with checkpoints, for tests of the search.

What it does is steered by the configuration alone: the learning rate decides how good it gets, the
parts' settings make it fail, die, or take its time.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.tune.search import Searcher

from legoray.config import TrialConfig
from legoray.data.corpus import Corpus
from legoray.data.schema import Manifest
from legoray.errors import InfeasibleError
from legoray.records import write_json
from legoray.spaceconfig import SpaceConfig
from legoray.train.job import Job, Outcome, Report, Runtime, Stopped
from legoray.yamlfile import parse_yaml

MANIFEST = Manifest(
    schema_version=1,
    name="tiny",
    title="Tiny",
    synthetic=True,
    processor="none",
    config_hash="c",
    fingerprint="f",
    attributes=["title"],
    text=["title"],
    group="impression",
    max_history=10,
    labeled={"train": True, "valid": True, "test": True},
    counts={},
    sources=[],
    files=[],
)


def corpus() -> Corpus:
    empty = np.zeros(0, np.int32)
    return Corpus("tiny", "f", 1, empty, np.zeros(1, np.int64), {})


def config(rate: float, epochs: int = 3, seed: int = 1, **content: Any) -> dict[str, Any]:
    return {
        "model": {
            "hidden_size": 8,
            "content": {"name": "id", **content},
            "behavior": {"name": "pooling"},
            "predictor": {"name": "dot"},
        },
        "train": {"epochs": epochs, "learning_rate": rate},
        "seed": seed,
    }


def train(job: Job, runtime: Runtime, report: Report) -> Outcome:
    """Logistic regression; `auc` is its accuracy, which grows with the learning rate."""
    folder, settings = Path(job.folder), job.config.model.content
    state = _load(folder)
    _log(folder, "start", epoch=len(state["epochs"]))
    torch.manual_seed(job.config.seed)
    x = torch.randn(64, 4)
    y = (x.sum(1) > 0).float()
    weight = torch.tensor(state["weight"], requires_grad=True)
    best = max(state["epochs"], key=lambda e: e["auc"], default={})
    try:
        while len(state["epochs"]) < job.config.train.epochs:
            epoch = len(state["epochs"]) + 1
            _misbehave(settings, folder, epoch, runtime)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(x @ weight, y)
            loss.backward()
            if runtime.world > 1:
                torch.distributed.all_reduce(weight.grad)
                weight.grad /= runtime.world
            with torch.no_grad():
                weight -= job.config.train.learning_rate * weight.grad
                weight.grad.zero_()
                auc = -float(loss) + job.config.train.learning_rate
            metrics = {"epoch": epoch, "loss": float(loss), "auc": auc, "train_seconds": 0.01}
            state = {"epochs": [*state["epochs"], metrics], "weight": weight.tolist()}
            best = max(best, metrics, key=lambda e: e.get("auc", -9.0))
            if runtime.rank == 0:
                write_json(folder / "last" / "state.json", state)
            _log(folder, "epoch", epoch=epoch)
            _together(report, metrics, runtime)
    except Stopped:
        (folder / "last" / "state.json").unlink(missing_ok=True)
        return Outcome(epochs=state["epochs"], best=best, test={}, costs={}, stopped=True)
    test = {"auc": best["auc"] - 0.01} if job.test else {}
    _log(folder, "test" if job.test else "end", epoch=len(state["epochs"]))
    return Outcome(epochs=state["epochs"], best=best, test=test, costs={"seconds": 1.0})


def _together(report: Report, metrics: dict[str, float], runtime: Runtime) -> None:
    """Rank 0 reports; what it learns, all ranks do."""
    stop = torch.zeros(1)
    if runtime.rank == 0:
        try:
            report(metrics)
        except Stopped:
            stop += 1
    if runtime.world > 1:
        torch.distributed.broadcast(stop, 0)
    if stop:
        raise Stopped


def _load(folder: Path) -> dict[str, Any]:
    file = folder / "last" / "state.json"
    return json.loads(file.read_text()) if file.exists() else {"epochs": [], "weight": [0.0] * 4}


def _log(folder: Path, event: str, **more: Any) -> None:
    """One line per event, so that a test can see what ran how often, and where."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "events.jsonl", "a") as file:
        file.write(json.dumps({"event": event, "pid": os.getpid(), **more}) + "\n")


def events(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = (folder / "events.jsonl").read_text().splitlines()
    return [e for e in map(json.loads, lines) if e["event"] == name]


def _misbehave(settings: dict[str, Any], folder: Path, epoch: int, runtime: Runtime) -> None:
    time.sleep(float(os.environ.get("TINY_SLEEP", 0)))
    while "TINY_HOLD" in os.environ and Path(os.environ["TINY_HOLD"]).exists():
        time.sleep(0.05)
    if epoch != settings.get("at", 2) or settings.get("rank", runtime.rank) != runtime.rank:
        return
    if settings.get("infeasible"):
        raise InfeasibleError("the loss is NaN")
    if settings.get("fail"):
        raise ZeroDivisionError("a defect")
    if settings.get("disk"):
        raise OSError(28, "No space left on device")
    once = folder / "died"
    if settings.get("die") == "always" or (settings.get("die") and not once.exists()):
        if runtime.rank == settings.get("rank", 0):
            once.parent.mkdir(parents=True, exist_ok=True)
            once.touch()
            os.kill(os.getpid(), 9)
        time.sleep(60)


class Listed(Searcher):
    """Proposes the configurations of a list."""

    def __init__(self, configs: list[dict[str, Any]]) -> None:
        super().__init__(metric="value", mode="max")
        self.left = list(configs)
        self.told: list[dict[str, Any]] = []

    def suggest(self, trial_id: str) -> Any:
        if not self.left:
            return Searcher.FINISHED
        config = TrialConfig.model_validate(self.left.pop(0)).model_dump()
        return {"config": config, "params": {"rate": config["train"]["learning_rate"]}}

    def owed(self, keys: Any) -> Any:
        return iter(())

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None: ...

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        self.told.append({"error": error, **(result or {})})


class TinySpace:
    """What a sweep wants to know of a space, from YAML text."""

    def __init__(self, path: Path, text: str) -> None:
        path.write_text(text)
        self.document = parse_yaml(text, path)
        self.config = SpaceConfig.model_validate(self.document.data)


SPACE = """\
name: tiny
data: tiny.yaml
model: {content: {name: id}, behavior: {name: pooling}, predictor: {name: dot}}
search: {trials: 4}
"""
