"""The sweep's folder: records, going on, refusing a changed space, and one driver at a time."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

import pytest
import tinytrain

from legoray.errors import InputError
from legoray.records import TrialRecord, read_trials
from legoray.search import lock as locks
from legoray.search.lock import SweepLock, process_start
from legoray.search.opening import open_sweep
from legoray.search.sweep import Sweep, trial_key


def opened(tmp_path, text=tinytrain.SPACE, **more) -> Sweep:
    space = tinytrain.TinySpace(tmp_path / "space.yaml", text)
    return open_sweep(space, tmp_path / "sweep", tmp_path / "tables", tinytrain.MANIFEST, **more)


def begin(sweep: Sweep, rate: float) -> TrialRecord:
    config = tinytrain.config(rate)
    return sweep.begin(trial_key(config, sweep.info), "search", "a+b+c", config, {})


def test_records_survive_and_a_known_training_keeps_its_number(tmp_path):
    sweep = opened(tmp_path)
    first, second = begin(sweep, 0.1), begin(sweep, 0.2)
    sweep.change(second.number, status="completed")
    assert sweep.interrupt() == 1
    sweep.close()
    again = opened(tmp_path)
    assert [r.status for r in again.of("search")] == ["interrupted", "completed"]
    assert begin(again, 0.1).number == first.number
    assert begin(again, 0.3).number == 2
    assert again.info.id == sweep.info.id
    assert again.done() == 1
    again.close()


def test_what_a_kill_left_half_written_is_cleared(tmp_path):
    """Half files go; the last whole model comes back where a kill hit the swap of two."""
    sweep = opened(tmp_path)
    record = begin(sweep, 0.1)
    model = sweep.model_folder(record.key)
    (model / "last").mkdir(parents=True)
    (model / "last" / "checkpoint.safetensors").write_text("whole")
    halves = [
        sweep.folder / ".lock.abc", sweep.folder / ".sweep.json.abc", sweep.folder / "space.tmp",
        sweep.folder / "trials" / ".0.json.abc", model / "last" / ".checkpoint.safetensors.abc",
    ]  # fmt: skip
    for half in halves:
        half.write_text("half")
    for name in (".best.new-abc", ".best.old"):
        (model / name).mkdir()
    (model / ".best.old" / "config.json").write_text("whole")
    sweep.close()
    again = opened(tmp_path)
    assert sorted(p.name for p in again.folder.rglob("*") if p.is_file()) == [
        "0.json", "checkpoint.safetensors", "config.json", "lock.json", "space.yaml", "sweep.json",
    ]  # fmt: skip
    assert (model / "best" / "config.json").read_text() == "whole"
    assert not list(model.glob(".*"))
    again.close()


def test_a_sweep_without_a_trial_leaves_nothing_behind_and_may_change(tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.txt").write_text("not the sweep's")
    opened(tmp_path).close()
    opened(tmp_path, tinytrain.SPACE.replace("dot", "dnn")).close()
    assert [p.name for p in (tmp_path / "sweep").iterdir()] == ["mine.txt"]


def test_trials_and_final_may_change_and_nothing_else(tmp_path):
    sweep = opened(tmp_path)
    begin(sweep, 0.1)
    sweep.close()
    more = tinytrain.SPACE.replace("{trials: 4}", "{trials: 9}") + "final: {top: 2}\n"
    opened(tmp_path, more).close()
    with pytest.raises(InputError) as caught:
        opened(tmp_path, more.replace("name: dot", "name: dnn") + "seed: 3\n")
    text = str(caught.value)
    assert "space.yaml:3: model.predictor.name: has changed" in text
    assert "seed" in text
    assert "--fresh" in text


def test_changed_data_are_refused(tmp_path):
    sweep = opened(tmp_path)
    begin(sweep, 0.1)
    sweep.close()
    space = tinytrain.TinySpace(tmp_path / "space.yaml", tinytrain.SPACE)
    other = tinytrain.MANIFEST.model_copy(update={"fingerprint": "other"})
    told = r"the data changed since the trials in .* \(start anew with --fresh, or take another --f"
    with pytest.raises(InputError, match=told):
        open_sweep(space, tmp_path / "sweep", tmp_path / "tables", other)


def test_fresh_sets_the_old_sweep_aside(tmp_path):
    sweep = opened(tmp_path)
    begin(sweep, 0.1)
    sweep.close()
    new = opened(tmp_path, fresh=True)
    assert new.records == {}
    assert new.info.id != sweep.info.id
    (aside,) = tmp_path.glob("sweep-*")
    assert len(read_trials(aside)) == 1
    new.close()


def test_a_damaged_record_is_named(tmp_path):
    sweep = opened(tmp_path)
    begin(sweep, 0.1)
    sweep.close()
    (tmp_path / "sweep" / "trials" / "0.json").write_text('{"number": 0')
    with pytest.raises(InputError, match=r"trials/0\.json: is damaged"):
        opened(tmp_path)
    opened(tmp_path, fresh=True).close()  # the lock was given back


def test_a_folder_that_cannot_be_made_is_a_clear_mistake(tmp_path):
    (tmp_path / "sweep").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        opened(tmp_path)


def test_a_second_driver_is_refused(tmp_path):
    held = SweepLock(tmp_path / "lock.json").acquire()
    with pytest.raises(InputError, match=f"already being run by process {os.getpid()}"):
        SweepLock(tmp_path / "lock.json").acquire()
    held.release()
    SweepLock(tmp_path / "lock.json").acquire().release()
    assert not (tmp_path / "lock.json").exists()


def test_the_lock_of_a_killed_driver_is_taken_over(tmp_path):
    path = tmp_path / "lock.json"
    code = (
        "import sys, time; from pathlib import Path; from legoray.search.lock import SweepLock;"
        "SweepLock(Path(sys.argv[1])).acquire(); print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=f"process {child.pid}"):
        SweepLock(path).acquire()
    child.kill()
    child.wait()
    SweepLock(path).acquire().release()


@pytest.mark.parametrize(("age", "held"), [(1.0, True), (locks.DEAD + 1, False)])
def test_a_lock_of_another_machine_ends_when_it_goes_stale(tmp_path, age, held):
    path = tmp_path / "lock.json"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": "1"}))
    os.utime(path, (time.time() - age, time.time() - age))
    if held:
        with pytest.raises(InputError, match="on elsewhere"):
            SweepLock(path).acquire()
    else:
        SweepLock(path).acquire().release()


def test_a_reused_process_number_holds_nothing():
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "started": "long ago"}
    assert not locks.alive(holder, 0.0)
    assert locks.alive({**holder, "started": process_start(os.getpid())}, 1e9)


def test_a_checkpoint_goes_once_the_outcome_is_on_record(tmp_path):
    sweep = opened(tmp_path)
    record = begin(sweep, 0.1)
    last = sweep.model_folder(record.key) / "last"
    last.mkdir(parents=True)
    sweep.change(record.number, status="interrupted")
    assert last.exists()
    sweep.change(record.number, status="completed")
    assert not last.exists()
