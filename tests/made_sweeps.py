"""Sweeps made by hand, as `legoray.search` leaves them on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from legoray.records import Status, SweepInfo, TrialRecord, write_json

START = 1_760_000_000.0
LABELS = ("cnn+attention+dot", "pooling+additive+dnn", "id+gru+dcn", "attention+pooling+dot")


def sweep_info(**changes: Any) -> SweepInfo:
    values: dict[str, Any] = {
        "id": "s-0001",
        "name": "mind-test",
        "space_file": "search_spaces/mind_test.yaml",
        "space_hash": "abc",
        "data": "mind_sample",
        "data_title": "MIND sample",
        "synthetic": True,
        "tables": "/tables/mind_sample-1234",
        "fingerprint": "f1a2b3c4d5e6",
        "protocol": {"split": "official dev; valid is the last tenth of train", "group": "user"},
        "select": "auc",
        "seed": 7,
        "git_revision": "0123abc",
        "versions": {"torch": "2.13.0", "legoray": "0.1.0"},
        "created": START,
    }
    return SweepInfo(**(values | changes))


def trial(
    number: int, *, epochs: int = 3, status: Status = "completed", auc: float = 0.6, **changes: Any
) -> TrialRecord:
    """A trial whose validation AUC climbs to `auc` in its last epoch."""
    label = changes.get("label", LABELS[number % len(LABELS)])
    parts = dict(zip(("content", "behavior", "predictor"), label.split("+"), strict=False))
    seed = changes.pop("seed", 7)
    rate = changes.pop("rate", 0.001)
    config = {
        "model": {"hidden_size": 64} | {kind: {"name": name} for kind, name in parts.items()},
        "train": {"epochs": epochs, "learning_rate": rate, "clip_norm": None},
        "evaluate": {"metrics": ["auc", "ndcg@5"], "select": "auc"},
        "seed": seed,
    }
    lines = [
        {
            "epoch": float(e + 1),
            "loss": 1.0 / (e + 1),
            "auc": auc - 0.01 * (epochs - 1 - e),
            "ndcg@5": 0.3 + 0.01 * e,
            "train_seconds": 2.0,
            "evaluate_seconds": 0.5,
            "samples_per_second": 1000.0,
        }
        for e in range(epochs)
    ]
    done = status != "running"
    values: dict[str, Any] = {
        "number": number,
        "key": f"k{number:03d}{seed}",
        "label": label,
        "config": config,
        "params": {"model/content": parts["content"], "train/learning_rate": rate},
        "status": status,
        "epochs": lines,
        "best": dict(lines[-1]) if lines else {},
        "costs": {"seconds": 9.5, "parameters": 12345.0, "trainable": 12000.0, "memory_mb": 321.0}
        if done
        else {},
        "started": START + 10 * number,
        "ended": START + 10 * number + 9.5 if done else None,
        "node": "node-a",
    }
    return TrialRecord(**(values | changes))


def baseline(number: int, name: str, auc: float = 0.5) -> TrialRecord:
    metrics = {"auc": auc, "ndcg@5": 0.25}
    return trial(number).model_copy(
        update={
            "phase": "baseline",
            "label": name,
            "config": {},
            "params": {},
            "key": f"base-{name}",
            "epochs": [],
            "best": metrics,
            "test": metrics,
            "costs": {"seconds": 0.1},
        }
    )


def model_folder(sweep: Path, record: TrialRecord) -> Path:
    """Something that stands for a saved model where only its files matter."""
    folder = sweep / "models" / record.key / "best"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights of " + record.key.encode())
    return folder


def on_disk(folder: Path, sweep: SweepInfo, *records: TrialRecord) -> None:
    write_json(folder / "sweep.json", sweep)
    for record in records:
        write_json(folder / "trials" / f"{record.number}.json", record)
