"""Who is champion, with a real SQLite store: only a model that is better for sure takes over."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from made_sweeps import model_folder, on_disk, sweep_info, trial

from legoray.cli import app, run
from legoray.records import write_json
from legoray.spaceconfig import TrackingConfig
from legoray.train.groupvalues import FILE, GroupValues, Origin, write_values
from legoray.zoo.comparison import Comparison, read_comparison
from legoray.zoo.record import Recorder, send_missing

ORIGIN = Origin("test", "impression", "mind_sample", "f1a2b3c4d5e6", "{}")


def values(mean, seed, groups=300, origin=ORIGIN):
    common = np.random.default_rng(0).normal(0, 0.1, groups)
    own = np.random.default_rng(seed).normal(0, 0.02, groups)
    numbers = np.arange(groups, dtype=np.int32)
    return GroupValues(origin, numbers, numbers, {"auc": (mean + common + own).astype(np.float32)})


@dataclass
class Zoo:
    """Sweeps that end one after another, registered under one name."""

    project: Path
    uri: str
    client: object
    ended: int = 0

    def sweep(self, mean, *, keep=True, **changes):
        """A sweep whose winner has this mean on the test; its recorder, after the end."""
        self.ended += 1
        name = f"sweep-{self.ended}"
        info = sweep_info(id=name, **changes)
        record = trial(0, phase="final", auc=0.9 - self.ended / 10, test={"auc": mean})
        folder = self.project / "sweeps" / name
        on_disk(folder, info, record)
        model = model_folder(folder, record)
        if keep:
            write_values(model, values(mean, self.ended))
        recorder = Recorder(TrackingConfig(uri=self.uri), info, folder)
        assert recorder.finish(record), recorder.problem
        return recorder

    def aliases(self):
        found = self.client.get_registered_model("mind-test").aliases
        return {alias: int(version) for alias, version in found.items()}


@pytest.fixture
def zoo(project, uri, client):
    return Zoo(project, uri, client)


def test_the_first_is_champion_and_only_a_clearly_better_one_follows_it(zoo):
    first = zoo.sweep(0.60).state.champion
    assert (first.outcome, first.moved, first.reason) == (
        "first",
        True,
        "is champion: it is the first",
    )
    assert zoo.aliases() == {"champion": 1}
    tie = zoo.sweep(0.6005).state.champion
    assert (tie.outcome, tie.moved, tie.champion) == ("tie", False, "1")
    assert tie.p > 0.05
    assert tie.reason.startswith("is challenger; version 1 stays champion: a tie, +0.0")
    assert zoo.aliases() == {"champion": 1, "challenger": 2}
    better = zoo.sweep(0.63).state.champion
    assert (better.outcome, better.moved, better.groups) == ("better", True, 300)
    assert better.pair.difference == pytest.approx(0.03, abs=0.005)
    assert 0 < better.pair.low < better.pair.difference < better.pair.high
    assert better.reason.startswith("is champion: better than version 1 by +0.0")
    assert zoo.aliases() == {"champion": 3, "challenger": 2}
    worse = zoo.sweep(0.60).state.champion
    assert (worse.outcome, worse.moved) == ("worse", False)
    assert zoo.aliases() == {"champion": 3, "challenger": 4}


def test_the_champions_values_come_from_the_zoo_and_not_from_its_sweep(zoo):
    zoo.sweep(0.60)
    shutil.rmtree(zoo.project / "sweeps")
    assert zoo.sweep(0.63).state.champion.outcome == "better"


def test_a_version_is_judged_once_and_told_again(zoo):
    zoo.sweep(0.60)
    recorder = zoo.sweep(0.63)
    again = send_missing(recorder.folder)
    assert again.state.champion == recorder.state.champion
    assert zoo.aliases() == {"champion": 2}


def test_the_sweeps_comparison_learns_of_it(zoo):
    zoo.sweep(0.60)
    recorder = zoo.sweep(0.63)
    (recorder.folder / "tracking.json").unlink()
    made = Comparison(
        sweep="s",
        metric="auc",
        mode="max",
        group="impression",
        groups=300,
        users=300,
        resamples=10,
        bootstrap_seed=1,
        compared=[],
        pairs=[],
    )
    write_json(recorder.folder / "comparison.json", made)
    again = Recorder(TrackingConfig(uri=zoo.uri), sweep_info(id="sweep-2"), recorder.folder)
    assert again.finish(trial(0, phase="final", auc=0.7, test={"auc": 0.63}))
    found = read_comparison(recorder.folder)
    assert found.champion.outcome == "same"
    assert found.model_copy(update={"champion": None}) == made


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data": "goodreads"}, "measured on other data (mind_sample)"),
        ({"fingerprint": "f9"}, "another preparation of the data, or under another protocol"),
        ({"select": "mrr"}, "under another protocol"),
        ({"keep": False}, "the winner was not tested"),
    ],
)
def test_what_cannot_be_compared_moves_nothing_and_says_why(zoo, changes, reason):
    zoo.sweep(0.60)
    found = zoo.sweep(0.90, **changes).state.champion
    assert (found.outcome, found.moved, found.pair) == ("not compared", False, None)
    assert reason in found.reason
    assert "legoray promote models:/mind-test/2 makes it champion" in found.reason
    assert zoo.aliases() == {"champion": 1, "challenger": 2}


def test_a_champion_without_values_stays_and_so_does_one_that_is_damaged(zoo):
    zoo.sweep(0.60, keep=False)
    assert "it keeps no values of its test" in zoo.sweep(0.9).state.champion.reason
    zoo.client.set_registered_model_alias("mind-test", "champion", "2")
    for file in (zoo.project / "mlruns").rglob(FILE):
        file.write_bytes(b"no values")
    found = zoo.sweep(0.95).state.champion
    assert (found.outcome, found.moved) == ("not compared", False)
    assert "is damaged" in found.reason


def test_a_version_may_be_made_champion_by_hand(zoo, capsys):
    zoo.sweep(0.60)
    zoo.sweep(0.90, data="goodreads")
    with pytest.raises(SystemExit) as left:
        run(lambda: app(["promote", "models:/mind-test/2"]))
    assert left.value.code == 0
    assert "version 2 of 'mind-test' is champion, as asked in place of version 1" in (
        capsys.readouterr().out
    )
    assert zoo.aliases() == {"champion": 2}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("models:/mind-test/7", "has no version 7"),
        ("models:/mind-tset/1", "mind-test"),
        ("mind-test", "is no version"),
        ("models:/mind-test@champion", "is no version"),
    ],
)
def test_wrong_versions_are_told(zoo, capsys, name, message):
    zoo.sweep(0.60)
    with pytest.raises(SystemExit) as left:
        run(lambda: app(["promote", name]))
    assert left.value.code == 2
    assert message in capsys.readouterr().err
