"""What an earlier sweep measured is taken from its folder or from MLflow, and told."""

from __future__ import annotations

import io
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import tinytrain
from ray.tune.search import Searcher
from rich.console import Console

import legoray
from legoray.search.closing import closing
from legoray.search.display import Board
from legoray.search.finals import finals_of
from legoray.search.opening import open_sweep
from legoray.search.phases import Budget, Goal, Phases
from legoray.search.reuse import earlier_results, taken_line
from legoray.spaceconfig import FinalConfig, TrackingConfig
from legoray.train.groupvalues import FILE, GroupValues, Origin, write_values
from legoray.train.version import digest_of, training_version
from legoray.zoo.earlier import look_up, own_parts, same_computation
from legoray.zoo.record import Recorder
from legoray.zoo.store import connect

GOAL = Goal("auc", "max")


def new_sweep(folder, name, manifest=tinytrain.MANIFEST):
    folder.mkdir(parents=True, exist_ok=True)
    space = tinytrain.TinySpace(folder / f"{name}.yaml", tinytrain.SPACE)
    return open_sweep(space, folder / "sweeps" / name, folder / "tables", manifest)


def phases(sweep, configs, earlier=None, **more):
    """The searcher of a sweep, the study behind it, and the records of what was taken."""
    study, told = tinytrain.Listed(configs), []
    more = {"finals": list, "budget": Budget(100), **more}
    found = Phases(sweep, study, goal=GOAL, home="/h", earlier=earlier, adopted=told.append, **more)
    return found, study, told


def measured(sweep, config, phase="search", status="completed", auc=0.7):
    """A training that a sweep has run, with its model."""
    searcher, _, _ = phases(sweep, [config])
    order = searcher.suggest(f"made-{len(sweep.records)}")
    record = sweep.records[order["number"]]
    epochs = [
        {"epoch": e, "loss": 1 / e, "auc": auc - 0.1 * (2 - e), "train_seconds": 1.0}
        for e in (1.0, 2.0)
    ]
    changes = {"epochs": epochs, "best": epochs[-1], "costs": {"seconds": 2.5}, "phase": phase}
    changes |= {"test": {"auc": auc - 0.01}} if phase == "final" else {}
    record = sweep.change(record.number, status=status, ended=time.time(), **changes)
    model = sweep.model_folder(record.key) / "best"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    if phase == "final":
        column, numbers = np.full(3, auc - 0.01, np.float32), np.arange(3, dtype=np.int32)
        origin = Origin("test", "impression", "tiny", "f", "{}")
        write_values(model, GroupValues(origin, numbers, numbers, {"auc": column}))
    return record


@pytest.fixture
def store(tmp_path, empty_store):
    """Address of a store of the test's own."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def nowhere(tmp_path):
    """Address of a database that is not there."""
    return f"sqlite:///{tmp_path / 'none.db'}"


@pytest.fixture
def old(tmp_path):
    found = new_sweep(tmp_path, "old")
    yield found
    found.close()


@pytest.fixture
def new(tmp_path):
    found = new_sweep(tmp_path, "new")
    yield found
    found.close()


@pytest.fixture(params=["folder", "mlflow"])
def earlier(request, old, new, store):
    """What the new sweep finds of the old one: beside it, or in MLflow with the folder gone."""

    def find():
        if request.param == "mlflow":
            only_in(store, old)
        return look_up(new.info, new.folder, store)

    return find


def only_in(store, sweep):
    """Send a sweep to MLflow, and move its folder away."""
    recorder = Recorder(TrackingConfig(uri=store), sweep.info, sweep.folder)
    for record in sweep.records.values():
        recorder.push(record)
    assert recorder.finish(None), recorder.problem
    shutil.move(sweep.folder, sweep.folder.parent.parent / "gone")


def test_a_trial_is_taken_whole_and_feeds_the_sampler(old, new, earlier):
    record = measured(old, tinytrain.config(0.1))
    searcher, study, told = phases(new, [tinytrain.config(0.1), tinytrain.config(0.2)], earlier())
    order = searcher.suggest("a")
    assert order["number"] == 1  # the first was taken, the second is trained
    taken = new.records[0]
    assert (taken.status, taken.reused, taken.key) == ("completed", True, record.key)
    assert taken.best == record.best
    assert taken.epochs == record.epochs
    assert taken.costs == record.costs
    assert (taken.source["sweep"], taken.source["trial"]) == ("tiny", "0")
    assert (new.model_folder(record.key) / "best" / "model.safetensors").read_bytes() == b"weights"
    assert told == [taken]
    assert study.told[0]["status"] == "completed"
    assert study.told[0]["auc"] == 0.7


def test_a_final_training_brings_its_test_along(old, new, earlier):
    first = measured(old, tinytrain.config(0.1))
    final = measured(old, tinytrain.config(0.1, seed=2), phase="final")
    found = earlier()
    plan = FinalConfig(top=1, seeds=1)
    searcher, _, told = phases(
        new, [tinytrain.config(0.1)], found, finals=lambda: finals_of(new, plan, "auc", "max")
    )
    assert searcher.suggest("a") == Searcher.FINISHED
    assert [record.key for record in told] == [first.key, final.key]
    assert new.records[1].test == final.test
    assert new.records[0].test == {}
    assert (new.model_folder(final.key) / "best" / FILE).is_file()
    assert taken_line(new) == ("1 of 1 trials and 1 of 1 final trainings taken from earlier sweeps")


def test_finals_take_nothing_that_was_not_tested(old, new, nowhere):
    measured(old, tinytrain.config(0.1))
    measured(old, tinytrain.config(0.1, seed=2))
    plan = FinalConfig(top=1, seeds=1)
    searcher, _, _ = phases(
        new,
        [tinytrain.config(0.1)],
        look_up(new.info, new.folder, nowhere),
        finals=lambda: finals_of(new, plan, "auc", "max"),
    )
    assert searcher.suggest("a")["phase"] == "final"


@pytest.mark.parametrize("status", ["pruned", "failed", "infeasible", "interrupted"])
def test_only_what_ran_to_its_end_is_taken(old, new, nowhere, status):
    measured(old, tinytrain.config(0.1), status=status)
    assert len(look_up(new.info, new.folder, nowhere)) == 0


def test_a_model_that_is_gone_is_trained_again(old, new, nowhere):
    record = measured(old, tinytrain.config(0.1))
    found = look_up(new.info, new.folder, nowhere)
    shutil.rmtree(old.model_folder(record.key))
    assert phases(new, [tinytrain.config(0.1)], found)[0].suggest("a")["number"] == 0


def test_a_model_that_mlflow_has_lost_is_trained_again_and_that_is_said(old, new, store):
    measured(old, tinytrain.config(0.1))
    only_in(store, old)
    found, said = look_up(new.info, new.folder, store), []
    found.say = said.append
    ((one,),) = found.found.values()
    model = one.client.get_logged_model(one.run.outputs.model_outputs[0].model_id)
    shutil.rmtree(Path(model.artifact_location.removeprefix("file://")))
    assert phases(new, [tinytrain.config(0.1)], found)[0].suggest("a")["number"] == 0
    assert not new.records[0].reused
    assert len(said) == 1
    assert said[0].startswith("an earlier result cannot be fetched and is trained again: ")


@pytest.mark.parametrize("change", ["fingerprint", "protocol", "version", "torch", "epochs"])
def test_other_data_protocols_versions_and_budgets_are_others(tmp_path, old, nowhere, change):
    measured(old, tinytrain.config(0.1))
    changes = {"fingerprint": {"fingerprint": "g"}, "protocol": {"protocol": {"split": "other"}}}
    manifest = tinytrain.MANIFEST.model_copy(update=changes.get(change, {}))
    other = new_sweep(tmp_path, "other", manifest)
    versions = {"version": {"training": "0"}, "torch": {"torch": "1.0.0"}}.get(change, {})
    info = other.info.model_copy(update={"versions": other.info.versions | versions})
    config = tinytrain.config(0.1, epochs=4 if change == "epochs" else 3)
    found = look_up(info, other.folder, nowhere)
    assert phases(other, [config], found)[0].suggest("a")["number"] == 0
    assert not other.records[0].reused
    other.close()


def test_patches_of_libraries_do_not_count():
    ours = {"training": "1", "torch": "2.13.0", "ray": "2.60.0"}
    assert same_computation(ours, {**ours, "torch": "2.13.1+cpu", "ray": "2.61.0"})
    assert not same_computation(ours, {**ours, "torch": "2.14.0"})
    assert not same_computation({"torch": "2.13.0"}, {"torch": "2.13.0"})


def test_parts_of_ones_own_are_trained_each_time():
    assert own_parts({"model": {"content": {"name": "my_parts:Mine"}}})
    assert own_parts({"model": {"content": {"name": "hybrid", "text": {"name": "my:Mine"}}}})
    assert not own_parts({"model": {"content": {"name": "cnn", "template": "a: b"}}})


def test_a_store_that_fails_is_told_and_the_folders_are_used(old, new, capsys):
    measured(old, tinytrain.config(0.1))
    said: list[str] = []
    config = tinytrain.TinySpace(new.folder / "space2.yaml", tinytrain.SPACE).config
    tracking = TrackingConfig(uri="http://127.0.0.1:9")
    config = config.model_copy(update={"tracking": tracking})
    found = earlier_results(new, config, said.append)
    assert len(found) == 1
    assert said[0].startswith("nothing is taken from http://127.0.0.1:9: ")
    assert said[1].startswith("1 result of earlier sweeps")


def test_it_is_told_on_the_screen_and_in_mlflow(old, new, store):
    measured(old, tinytrain.config(0.1))
    recorder = Recorder(TrackingConfig(uri=store), old.info, old.folder)
    assert recorder.finish(None), recorder.problem
    run = recorder.state.trials[f"0-{old.records[0].key}"].run_id
    found = look_up(new.info, new.folder, store)
    screen = Console(file=io.StringIO(), width=200)
    board = Board(screen, new, goal=GOAL, trials=1, finals=0, slots=1)
    searcher, _, told = phases(new, [tinytrain.config(0.1)], found)
    searcher.suggest("a")
    board.watch(told[0])
    closing(screen, new, goal=GOAL, again="again", links=[])
    text = screen.file.getvalue()
    assert "taken from tiny, trial 0" in text
    assert "1 of 1 trials taken from earlier sweeps" in text
    later = Recorder(TrackingConfig(uri=store), new.info, new.folder)
    later.push(told[0])
    assert later.finish(None), later.problem
    client = connect(store)
    tags = client.get_run(later.state.trials[f"0-{told[0].key}"].run_id).data.tags
    assert tags["reused"] == "yes"
    assert tags["reused_from"] == "tiny, trial 0"
    assert tags["legoray.source_run"] == run


def test_any_change_to_the_code_that_computes_is_another_version(tmp_path):
    package = Path(legoray.__file__).parent
    assert digest_of(package) == training_version()
    copied = tmp_path / "legoray"
    shutil.copytree(package, copied, ignore=shutil.ignore_patterns("__pycache__"))
    assert digest_of(copied) == training_version()
    for other in ("search/run.py", "data/processors/mind.py"):
        with (copied / other).open("a") as file:
            file.write("# nothing that trains\n")
    assert digest_of(copied) == training_version()
    with (copied / "model" / "predictor" / "dot.py").open("a") as file:
        file.write("# more\n")
    assert digest_of(copied) != training_version()
