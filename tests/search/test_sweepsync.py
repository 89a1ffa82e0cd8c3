"""A sweep at an address: its lock, what another machine finds of it, and what is never lost."""

from __future__ import annotations

import json
import shutil

import pytest
import tinytrain
from storage_server import BUCKET, ask_only, served

from legoray.errors import InputError
from legoray.search import sweepsync
from legoray.search.opening import open_sweep
from legoray.storage import remote
from legoray.storage.address import place
from legoray.train.job import Job
from legoray.zoo.leaderboard import leaderboard


@pytest.fixture(scope="module")
def server():
    with served() as running:
        yield running


class Machines:
    """This process as one machine or another, each with a disk of its own."""

    def __init__(self, base, patch, address):
        self.base, self.patch, self.address = base, patch, address
        self.space = tinytrain.TinySpace(base / "tiny.yaml", tinytrain.SPACE)

    def be(self, name):
        self.patch.setenv("LEGORAY_NODE_CACHE", str(self.base / name))
        self.patch.setattr(sweepsync.socket, "gethostname", lambda: name)
        return place(self.address)

    def open(self, name, **options):
        folder = self.be(name)
        return open_sweep(self.space, folder, self.base / "tables", tinytrain.MANIFEST, **options)

    def lose(self, name):
        shutil.rmtree(self.base / name)


@pytest.fixture
def machines(server, monkeypatch, tmp_path, request):
    ask_only(server, monkeypatch)
    monkeypatch.setattr(sweepsync, "SETTLE", 0.0)
    monkeypatch.setattr(sweepsync, "PERIOD", 0.05)
    return Machines(tmp_path, monkeypatch, f"s3://{BUCKET}/{request.node.name}")


def begin(sweep, rate=0.1):
    config = tinytrain.config(rate)
    return sweep.begin(f"key{rate}", "search", "id+pooling+dot", config, {"rate": rate})


def test_another_machine_goes_on_with_the_records(machines):
    sweep = machines.open("one")
    first, second = begin(sweep, 0.1), begin(sweep, 0.2)
    sweep.change(first.number, status="completed", best={"auc": 0.7})
    (sweep.folder / "study.journal").write_text("asked\n")
    sweep.change(second.number, epochs=[{"epoch": 1, "auc": 0.5}])
    sweep.close()
    machines.lose("one")
    again = machines.open("two")
    assert again.info.id == sweep.info.id
    assert again.records[0].status == "completed"
    assert again.records[1].epochs == [{"epoch": 1, "auc": 0.5}]
    assert (again.folder / "study.journal").read_text() == "asked\n"
    again.close()
    boards = leaderboard(machines.address)
    assert sum(len(board.rows) for board in boards) == 2


def test_begins_and_ends_are_there_before_anybody_hears_of_them(machines, server):
    """No thread is waited for: the machine may be lost in the next moment."""
    machines.patch.setattr(sweepsync, "PERIOD", 1000.0)
    sweep = machines.open("one")
    (sweep.folder / "study.journal").write_text("first\n")
    record = begin(sweep)
    prefix = machines.address.removeprefix(f"s3://{BUCKET}/")
    held = {name.removeprefix(f"{prefix}/") for name in server.names(prefix)}
    assert {"trials/0.json", "study.journal"} <= held
    sweep.change(record.number, status="completed")
    body = server.client().get_object(Bucket=BUCKET, Key=f"{prefix}/trials/0.json")["Body"].read()
    assert json.loads(body)["status"] == "completed"
    sweep.close()


def test_one_driver_at_a_time(machines):
    sweep = machines.open("one")
    begin(sweep)
    with pytest.raises(InputError, match=r"already being run by process \d+ on one.*60 seconds"):
        machines.open("two")
    machines.be("one")
    sweep.close()
    machines.open("two").close()


def test_a_dead_driver_s_lock_ends(machines, server):
    """On its own machine at once, as its process is gone; elsewhere after a minute's silence."""
    prefix = machines.address.removeprefix(f"s3://{BUCKET}/")
    dead = {"host": "one", "pid": 2**22 + 1, "started": "1", "token": "t"}
    for name in ("one", "two"):
        server.client().put_object(
            Bucket=BUCKET, Key=f"{prefix}/lock.json", Body=json.dumps(dead).encode()
        )
        if name == "two":
            machines.patch.setattr(sweepsync.SweepSync, "_age", lambda sync: 61.0)
        sweep = machines.open(name)
        begin(sweep)
        sweep.close()


def test_who_lost_the_lock_writes_no_more(machines, server):
    sweep = machines.open("one")
    record = begin(sweep)
    machines.patch.setattr(sweepsync, "DEAD", -1.0)
    machines.patch.setattr(sweepsync, "alive", lambda holder, age: False)
    other = machines.open("two")
    other.change(0, status="completed", best={"auc": 0.9})
    machines.be("one")
    sweep._sync._beat()
    with pytest.raises(InputError, match="on two has taken this sweep over"):
        sweep.change(record.number, status="failed")
    with pytest.raises(InputError, match="not all of the sweep is there"):
        sweep.close()
    machines.be("two")
    other.close()
    assert machines.open("three").records[0].status == "completed"


def test_a_mirror_that_is_ahead_is_sent_and_one_that_is_behind_is_replaced(machines):
    machines.patch.setattr(sweepsync, "PERIOD", 1000.0)
    sweep = machines.open("one")
    record = begin(sweep)
    sweep.change(record.number, epochs=[{"epoch": 1, "auc": 0.5}])  # not sent yet
    sweep._sync._end.set()
    remote.remove(sweep._sync.address / "lock.json")  # as if it had been killed
    (sweep.folder / "lock.json").unlink()
    ahead = machines.open("one")
    assert ahead.records[0].epochs
    ahead.close()
    other = machines.open("two")
    assert other.records[0].epochs
    other.change(0, status="completed")
    other.close()
    back = machines.open("one")
    assert back.records[0].status == "completed"
    back.close()


def test_fresh_sets_the_old_one_aside_at_the_address(machines, server):
    sweep = machines.open("one")
    begin(sweep)
    sweep.close()
    fresh = machines.open("two", fresh=True)
    assert fresh.records == {}
    begin(fresh, 0.3)
    fresh.close()
    prefix = machines.address.removeprefix(f"s3://{BUCKET}/")
    aside = [n for n in server.names(f"{prefix}-") if n.endswith("trials/0.json")]
    assert len(aside) == 1
    assert machines.open("one").records[0].key == "key0.3"


def test_a_sweep_without_trials_leaves_nothing(machines, server):
    prefix = machines.address.removeprefix(f"s3://{BUCKET}/")
    server.client().put_object(Bucket=BUCKET, Key=f"{prefix}/somebody-elses", Body=b"x")
    machines.open("one").close()
    left = [name for name in server.names(prefix) if not name.endswith("/")]
    assert left == [f"{prefix}/somebody-elses"]


def test_a_service_that_is_gone_is_told_and_nothing_is_lost(machines, server):
    machines.patch.setattr(sweepsync, "PERIOD", 1000.0)
    machines.patch.setattr(remote, "PATIENCE", 0.0)
    machines.patch.setattr(remote._tried, "__defaults__", None)
    sweep = machines.open("one")
    record = begin(sweep)
    upload = remote.upload

    def gone(path, address):
        raise remote.UnreachableError(f"{address}: the service cannot be reached")

    machines.patch.setattr(remote, "upload", gone)
    with pytest.raises(InputError, match="cannot be reached"):
        sweep.change(record.number, status="completed")
    with pytest.raises(InputError, match="going on from this machine sends it"):
        sweep.close()
    machines.patch.setattr(remote, "upload", upload)
    again = machines.open("one")
    assert again.records[0].status == "completed"
    again.close()
    assert machines.open("two").records[0].status == "completed"


def test_a_training_moves_with_its_checkpoint(machines, tmp_path):
    """Stopped on one machine after two epochs, it does the third alone on another."""
    from legoray.config import TrialConfig
    from legoray.search.carried import carried
    from legoray.train.job import Runtime

    job = Job(
        config=TrialConfig.model_validate(tinytrain.config(0.1, epochs=3)),
        tables=str(tmp_path / "tables"),
        home=str(tmp_path / "home"),
        folder=f"{machines.address}/models/key",
    )
    (tmp_path / "tables").mkdir()
    runtime = Runtime(corpus=tinytrain.corpus())
    seen = []

    def report(metrics):
        seen.append(int(metrics["epoch"]))
        if len(seen) == 2:
            raise KeyboardInterrupt  # the machine is gone

    machines.be("one")
    with pytest.raises(KeyboardInterrupt):
        carried(tinytrain.train)(job, runtime, report)
    machines.lose("one")
    machines.be("two")
    outcome = carried(tinytrain.train)(
        job, runtime, lambda metrics: seen.append(int(metrics["epoch"]))
    )
    assert seen == [1, 2, 3]
    assert [int(e["epoch"]) for e in outcome.epochs] == [1, 2, 3]
    starts = tinytrain.events(place(job.folder), "start")
    assert [start["epoch"] for start in starts] == [0, 2]
