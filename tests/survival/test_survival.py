"""A few of the kills of `run.py`, and the checks that must find what is wrong."""

from __future__ import annotations

import json

import pytest
from checks import check_board, check_epochs, check_records
from run import EPOCHS, legs, survive

from legoray.records import SweepInfo, TrialRecord, write_json


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(2400)
def test_a_killed_sweep_ends_as_one_left_in_peace(tmp_path):
    """A worker, a node of two, and everything at once; `test_resume_kill` has the driver alone."""
    plan = [("cluster", ["worker", "node", "machine"])]
    run = survive(tmp_path / "run", kills=3, seed=1, plan=plan, say=lambda text: None)
    assert [kill.victim for kill in run.kills] == ["worker", "node", "machine"]
    assert {name: wrong for name, wrong in run.wrong.items() if wrong} == {}


def test_the_drawn_kills_are_as_many_as_asked_for_and_of_every_kind():
    from random import Random

    for seed in range(5):
        drawn = legs(30, Random(seed))
        victims = [victim for _, own in drawn for victim in own]
        assert len(victims) == 30
        assert set(victims) >= {"worker", "trial", "node", "mlflow", "driver", "machine"}
        assert all(own[-1] in ("driver", "machine") for _, own in drawn)
        assert all("node" not in own for form, own in drawn if form == "alone")


def sweep(folder, *, status="completed", value=0.5, events=()):
    """A sweep's folder with a single trial."""
    epochs = [{"epoch": e, "auc": value, "train_seconds": 1.0} for e in range(1, EPOCHS + 1)]
    record = TrialRecord(
        number=0, key="k", label="a+b+c", config={}, status=status, epochs=epochs, best=epochs[-1]
    )
    write_json(folder / "trials" / "0.json", record)
    info = SweepInfo(
        id="i", name="n", space_file="", space_hash="", data="", tables="", fingerprint="",
        protocol={}, select="auc", seed=1, state="finished", ended="trials",
    )  # fmt: skip
    write_json(folder / "sweep.json", info)
    (folder / "models" / "k").mkdir(parents=True)
    lines = "".join(json.dumps(event) + "\n" for event in events)
    (folder / "models" / "k" / "events.jsonl").write_text(lines)
    return folder


def test_the_checks_find_what_is_wrong(tmp_path):
    good = [{"event": "start", "after": 0}, {"event": "epoch", "epoch": 1}]
    whole = sweep(tmp_path / "whole", events=[*good, {"event": "start", "after": 1}])
    assert check_records(whole, 1, EPOCHS) == check_epochs(whole) == []
    assert check_records(whole, 2, EPOCHS) == ["1 trials of the search on record, not 2"]
    lost = sweep(
        tmp_path / "lost", status="running", events=[*good, {"event": "start", "after": 0}]
    )
    assert "trial 0 is running: " in check_records(lost, 1, EPOCHS)
    assert "went on after epoch 0, though it had reported epoch 1" in check_epochs(lost)[0]
    again = sweep(tmp_path / "again", value=0.6, events=[*good, *good])
    assert "reported epoch 1 twice" in check_epochs(again)[1]
    assert check_board(again, whole) == ["the numbers differ: a+b+c"]
    assert check_board(whole, whole) == []
