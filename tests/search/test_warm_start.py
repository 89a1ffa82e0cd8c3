"""Earlier sweeps' trials: said in a space's parameters, told to the study, proposed first."""

from __future__ import annotations

import shutil

import pytest
from optuna.trial import TrialState
from space_cases import SPACE, edited, make_space

from legoray.records import SweepInfo, TrialRecord, digest, write_json
from legoray.search.asktell import WARM, AskTell
from legoray.search.express import NotInSpaceError, express
from legoray.search.space import SHARE
from legoray.search.warmstart import warm_start, warm_started
from legoray.spaceconfig import TrackingConfig
from legoray.zoo.history import earlier_trials
from legoray.zoo.record import Recorder
from legoray.zoo.store import connect

MOVED = """train:
  epochs: {case: model/content, id: 2, else: 3}
  batch_size: {int: [16, 64], step: 16}
  max_history: {int: [1, batch_size]}
"""
PRESETS = """\
name: presets
data: data.yaml
model:
  hidden_size: {choice: [16, 32]}
  preset:
    choice: [naml-id, {name: nrms, content: {heads: {choice: [2, 4]}}}]
train: {epochs: 3, learning_rate: {log: [1e-4, 1e-2]}}
"""
SPACES = {
    "plain": SPACE,
    "presets": PRESETS,
    "moved": SPACE.replace("train:\n  epochs: 3\n", MOVED),
}


def info(name="old", **changes):
    values = {
        "id": name, "name": name, "space_file": "s", "space_hash": "h", "data": "tiny",
        "tables": "t", "fingerprint": "f", "protocol": {"split": "s"}, "select": "auc",
        "seed": 1, "created": 1.0,
    }  # fmt: skip
    return SweepInfo(**(values | changes))


def asked(folder, text=SPACE, count=8, name="s"):
    """Proposals of a study: their rows and configurations."""
    study = AskTell(make_space(folder, text), folder / "study.journal", name=name)
    found = [study.ask() for _ in range(count)]
    return study, found


def value_of(number):
    """Made-up values in no order."""
    return 0.5 + (number * 7 % 10) / 100


def sweep_of(root, suggestions, name="old", status="completed", **changes):
    """A sweep's folder with a record of each proposal."""
    folder, sweep = root / "sweeps" / name, info(name, **changes)
    write_json(folder / "sweep.json", sweep)
    for one in suggestions:
        best = {"epoch": 2.0, sweep.select: value_of(one.number), "loss": 1.0}
        record = TrialRecord(
            number=one.number, key=digest([name, one.config]), label="a+b+c", config=one.config,
            params=one.params, status=status, epochs=[best], best=best, costs={"seconds": 1.0},
            started=1.0, ended=2.0,
        )  # fmt: skip
        write_json(folder / "trials" / f"{one.number}.json", record)
    return folder, sweep


def started(root, text=SPACE, **changes):
    """A new study with a warm start, and what was said."""
    folder = root / "sweeps" / "new"
    study = AskTell(make_space(folder, text), folder / "study.journal", name="new")
    said: list[str] = []
    where = f"sqlite:///{root / 'none.db'}"
    warm_start(study, info("new", **changes), folder, where, said.append)
    return study, said


@pytest.mark.parametrize("name", SPACES)
def test_what_a_space_drew_is_said_with_the_parameters_that_it_was_drawn_by(tmp_path, name):
    study, found = asked(tmp_path, SPACES[name], count=25)
    for one in found:
        said = express(study.space, one.config, exactly=True)
        row = study.rows()[one.number]
        assert set(said.params) == set(row.params)
        for path, value in row.params.items():
            assert said.distributions[path] == row.distributions[path]
            if not path.endswith(SHARE):  # many shares give the same whole number
                assert said.params[path] == pytest.approx(value) or said.params[path] == value
        again = study.space.sample(Fixed(said.params))
        assert again == one.config


class Fixed:
    """Answers with parameters by name, as Optuna's trial with fixed ones does."""

    def __init__(self, params):
        self.params = params

    def suggest_categorical(self, name, choices):
        return self.params[name]

    def suggest_int(self, name, low, high, *, step, log):
        return self.params[name]

    def suggest_float(self, name, low, high, *, step, log):
        return self.params[name]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("epochs: 3", "epochs: 4", "train.epochs is 3 there and 4 here"),
        ("log: [1e-4, 1e-2]", "log: [0.5, 0.9]", "train.learning_rate is .* not in 0.5 to 0.9"),
        ("hidden_size: 16", "hidden_size: {choice: [8]}", "model.hidden_size is 16, .* no option"),
        ("- {name: id}", "- {name: pooling}", "model.content is 'id', which is no option here"),
    ],
)
def test_what_a_space_cannot_say_has_a_reason(tmp_path, old, new, reason):
    _, found = asked(tmp_path, count=20)
    config = next(one.config for one in found if one.config["model"]["content"]["name"] == "id")
    other = make_space(tmp_path / "other", edited(old, new))
    with pytest.raises(NotInSpaceError, match=reason):
        express(other, config, exactly=True)


def test_trials_on_the_same_data_are_observations_and_the_best_are_proposed_first(tmp_path):
    source, found = asked(tmp_path / "source")
    sweep_of(tmp_path, found)
    study, said = started(tmp_path)
    rows = study.rows()
    seen = [row for row in rows if row.state == TrialState.COMPLETE]
    assert [row.value for row in seen] == [value_of(one.number) for one in found]
    for row, one in zip(seen, found, strict=True):
        assert row.params == source.rows()[one.number].params
        assert row.distributions == source.rows()[one.number].distributions
    assert said == [
        "warm start: 8 of 8 earlier trials on these data fit this space; the best 3 are tried first"
    ]
    assert study.done() == 0
    ordered = sorted(found, key=lambda one: (-value_of(one.number), one.number))
    assert [study.ask().config for _ in range(3)] == [one.config for one in ordered[:3]]


def test_the_sampler_learns_from_them(tmp_path):
    """Of the observations only those with `id` are good: it is proposed most of the time."""
    _, found = asked(tmp_path / "source", count=25)
    folder, _ = sweep_of(tmp_path, found)
    for one in found:
        path = folder / "trials" / f"{one.number}.json"
        record = TrialRecord.model_validate_json(path.read_text())
        good = one.config["model"]["content"]["name"] == "id"
        best = {**record.best, "auc": 0.9 + one.number / 1000 if good else 0.1}
        write_json(path, record.model_copy(update={"best": best}))
    study, _ = started(tmp_path)
    names = [study.ask().config["model"]["content"]["name"] for _ in range(15)][3:]
    assert names.count("id") >= 9


def test_other_data_give_starting_points_and_no_values(tmp_path):
    _, found = asked(tmp_path / "source", count=6)
    sweep_of(tmp_path, found[:3], "older", fingerprint="g", data="books", created=1.0)
    sweep_of(tmp_path, found[3:], "newer", fingerprint="h", data="films", created=2.0)
    study, said = started(tmp_path)
    assert all(row.state == TrialState.WAITING for row in study.rows())
    assert said == [
        "warm start: 6 of 6 trials on other data fit this space; "
        "the best 4 (of books, films) are tried first"
    ]
    best = {
        name: sorted(own, key=lambda one: -value_of(one.number))
        for name, own in (("older", found[:3]), ("newer", found[3:]))
    }
    turns = [best["newer"][0], best["older"][0], best["newer"][1], best["older"][1]]
    assert [study.ask().config for _ in range(4)] == [one.config for one in turns]


@pytest.mark.parametrize("change", [{"protocol": {"split": "t"}}, {"select": "mrr"}])
def test_another_protocol_or_metric_is_other_data(tmp_path, change):
    _, found = asked(tmp_path / "source", count=2)
    sweep_of(tmp_path, found, **change)
    study, _ = started(tmp_path)
    assert {row.state for row in study.rows()} == {TrialState.WAITING}


def test_what_does_not_fit_is_counted_by_its_reason(tmp_path):
    _, found = asked(tmp_path / "source", count=10)
    sweep_of(tmp_path, found)
    ids = sum(one.config["model"]["content"]["name"] == "id" for one in found)
    study, said = started(tmp_path, edited("- {name: id}", "- {name: pooling}"))
    assert said[0].startswith(f"warm start: {10 - ids} of 10 earlier trials")
    assert said[1] == f"  {ids} do not fit: model.content is 'id', which is no option here"
    assert sum(row.state == TrialState.COMPLETE for row in study.rows()) == 10 - ids


def test_pruned_and_failed_trials_and_nan_are_no_observations(tmp_path):
    _, found = asked(tmp_path / "source", count=3)
    sweep_of(tmp_path, found, "stopped", status="pruned")
    sweep_of(tmp_path, found, "failed", status="failed")
    study, said = started(tmp_path)
    assert study.rows() == []
    assert said == ["warm start: no earlier trials were found"]


def test_a_search_that_goes_on_adopts_nothing_more(tmp_path):
    _, found = asked(tmp_path / "source", count=4)
    sweep_of(tmp_path, found)
    study, said = started(tmp_path)
    count = len(study.rows())
    sweep_of(tmp_path, found, "later")
    again, silence = started(tmp_path)
    assert silence == []
    assert len(again.rows()) == count
    assert warm_started(again) == said


def test_a_kill_in_between_adopts_nothing_twice(tmp_path, monkeypatch):
    _, found = asked(tmp_path / "source", count=4)
    sweep_of(tmp_path, found)

    def killed(*args, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("legoray.search.warmstart._told", killed)  # after all rows, before the mark
        with pytest.raises(KeyboardInterrupt):
            started(tmp_path)
    study, _ = started(tmp_path)
    places = [row.user_attrs[WARM] for row in study.rows()]
    assert len(places) == len(set(places)) == 4 + 3


def test_several_objectives_take_trials_that_have_them_all(tmp_path):
    _, found = asked(tmp_path / "source", count=4)
    folder, _ = sweep_of(tmp_path, found)
    path = folder / "trials" / "2.json"
    record = TrialRecord.model_validate_json(path.read_text())
    write_json(path, record.model_copy(update={"costs": {"parameters": 10.0}}))
    text = edited("search:\n", "search:\n  objectives: [auc, parameters]\n")
    study, said = started(tmp_path, text)
    seen = [row for row in study.rows() if row.state == TrialState.COMPLETE]
    assert [row.values for row in seen] == [[value_of(2), 10.0]]
    assert said[0].startswith("warm start: 1 of 4")


def test_mlflow_has_the_same_trials_as_the_folder(tmp_path):
    _, found = asked(tmp_path / "source", count=3)
    folder, sweep = sweep_of(tmp_path, found)
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    recorder = Recorder(TrackingConfig(uri=store), sweep, folder)
    assert recorder.finish(None), recorder.problem
    connect(store)
    new = tmp_path / "sweeps" / "new"
    beside, problem = earlier_trials(info("new"), new, f"sqlite:///{tmp_path / 'none.db'}")
    both, _ = earlier_trials(info("new"), new, store)
    assert both == beside
    shutil.rmtree(folder)
    alone, _ = earlier_trials(info("new"), new, store)
    assert problem == ""
    for one, other in zip(alone, beside, strict=True):
        assert (one.place, one.config, one.alike) == (other.place, other.config, other.alike)
        assert one.best["auc"] == other.best["auc"]
