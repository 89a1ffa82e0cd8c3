"""Trainings on written attributes: keyed by the texts they read, and by no others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from legoray.config import TrialConfig
from legoray.data.load import load_items, read_manifest
from legoray.data.prepare import prepare
from legoray.errors import DamagedError, InputError
from legoray.records import SweepInfo, read_json, read_trials
from legoray.search.finals import finals_of, summaries
from legoray.search.opening import open_sweep
from legoray.search.single import Asked, train_one
from legoray.search.slots import failure_message
from legoray.search.sweep import Sweep, trial_key
from legoray.spaceconfig import SpaceConfig
from legoray.train.cache import shared_corpus, shared_features, shared_inputs
from legoray.train.job import Job, Runtime
from legoray.train.loop import open_model
from legoray.yamlfile import read_yaml

WORDS = ["match goal team", "vote law party", "star film song"]
ITEMS, USERS = 30, 40


def raw(folder: Path, note: str = "") -> None:
    """Users who click on one of three topics, which the notes tell and the titles do not."""
    chance = np.random.default_rng(5)
    write = lambda name, rows: (folder / name).write_text("\n".join(rows) + "\n")  # noqa: E731
    folder.mkdir(exist_ok=True)
    write("items.csv", ["item,title", *(f"i{n},number {n % 7}" for n in range(ITEMS))])
    write("notes.csv", ["item,note", *(f"i{n},{WORDS[n % 3]}{note}" for n in range(ITEMS))])
    histories, seen = [], ["user,item,label,impression,part"]
    for user in range(USERS):
        own = chance.permutation(np.arange(user % 3, ITEMS, 3))
        histories.append(json.dumps({"user": f"u{user}", "items": [f"i{n}" for n in own[:5]]}))
        for number, part in enumerate(("train", "train", "valid", "test")):
            others = chance.choice([n for n in range(ITEMS) if n % 3 != user % 3], 4, replace=False)
            shown = [(own[5 + number], 1), *((n, 0) for n in others)]
            seen += [f"u{user},i{n},{label},{user}-{number},{part}" for n, label in shown]
    write("histories.jsonl", histories)
    write("seen.csv", seen)


DATA = """\
name: noted
path: raw
processor: own
options:
  items: items.csv
  histories: histories.jsonl
  interactions: {file: seen.csv, split: part, time: null}
text: [title]
attributes:
  - {file: notes.csv, key: item, columns: [note]}
"""
SPACE = """\
name: noted
data: noted.yaml
model:
  hidden_size: 16
  content: {name: pooling, min_count: 1, embedding_size: 16}
  behavior: {name: pooling}
  predictor: {name: dot}
"""
CHANGES = ("train.epochs=3", "train.learning_rate=3e-2", "train.batch_size=16")


@pytest.fixture
def desk(tmp_path, monkeypatch, home):
    monkeypatch.chdir(tmp_path)
    raw(tmp_path / "raw")
    (tmp_path / "noted.yaml").write_text(DATA)
    (tmp_path / "space.yaml").write_text(SPACE)
    (tmp_path / "model.yaml").write_text(SPACE.partition("data: noted.yaml\n")[2])
    return tmp_path


def switch(desk: Path, text: str) -> None:
    """The one word that names the text to read."""
    (desk / "noted.yaml").write_text(DATA.replace("text: [title]", f"text: [{text}]"))


def trained(desk: Path) -> list:
    asked = Asked(desk / "noted.yaml", file=desk / "model.yaml", changes=CHANGES,
                  folder=Path("run"), test=True)  # fmt: skip
    assert train_one(asked, Console(quiet=True)) == 0
    return read_trials(desk / "run")


def test_one_word_switches_the_text_and_each_text_is_trained_once(desk):
    (plain,) = trained(desk)
    switch(desk, "note")
    records = trained(desk)
    assert [r.reads.keys() for r in records] == [{"title"}, {"note"}]
    assert records[0].reads["title"] == ""
    first = records[1].reads["note"]
    assert first
    assert records[1].test["auc"] > 0.9 > 0.7 > plain.test["auc"], "notes tell the topics"
    assert len(trained(desk)) == 2, "nothing has changed"
    raw(desk / "raw", note=" again")
    records = trained(desk)
    assert len(records) == 3, "a result on other notes is not taken for one on these"
    assert records[2].reads["note"] not in ("", first)
    switch(desk, "title")
    assert len(trained(desk)) == 3, "titles are as they were, whatever became of the notes"

    from legoray.zoo.leaderboard import leaderboard

    (board,) = leaderboard("run")
    assert len(board.rows) == 3
    done = Sweep(desk / "run", read_json(desk / "run" / "sweep.json", SweepInfo))
    assert [one.seeds for one in summaries(done, "auc")] == [1, 1, 1], "never seeds of one model"
    told = [row.settings for row in board.rows]
    notes = [f"reads=note ({r.reads['note'][:8]})" for r in records[1:]]
    assert sorted(told) == sorted([*notes, "reads=title"])
    assert {spread.seeds for row in board.rows for spread in row.test.values()} == {1}


def test_a_mistake_after_the_training_leaves_it_completed(desk, monkeypatch):
    """Such as a pipe that was closed: `legoray train ... | head`."""
    from legoray.search.single import _Run

    with monkeypatch.context() as patched:
        patched.setattr(_Run, "_numbers", lambda self, metrics: (_ for _ in ()).throw(
            BrokenPipeError
        ))  # fmt: skip
        with pytest.raises(BrokenPipeError):
            trained(desk)
    (record,) = read_trials(desk / "run")
    assert record.status == "completed"
    assert trained(desk) == [record]


class Space:
    def __init__(self, path: Path) -> None:
        self.document = read_yaml(path)
        self.config = SpaceConfig.model_validate(self.document.data)


def opened(desk: Path):
    made = prepare(desk / "noted.yaml", say=lambda line: None)
    return open_sweep(Space(desk / "space.yaml"), desk / "sweep", made.tables, made.manifest)


def content(**settings) -> dict:
    model = Space(Path("space.yaml")).config.model
    return TrialConfig.model_validate(
        {"model": {**model, "content": {**model["content"], **settings}}}
    ).model_dump()


def test_a_sweep_goes_on_only_with_the_texts_that_its_trials_read(desk):
    sweep = opened(desk)
    config = content()
    key = trial_key(config, sweep.info)
    record = sweep.begin(key, "search", "p", config, {})
    sweep.change(record.number, status="completed", best={"auc": 0.5})
    finals = finals_of(sweep, sweep.info and Space(desk / "space.yaml").config.final, "auc", "max")
    sweep.close()
    raw(desk / "raw", note=" again")
    sweep = opened(desk)  # no trial has read the notes
    assert trial_key(config, sweep.info) == key
    again = finals_of(sweep, Space(desk / "space.yaml").config.final, "auc", "max")
    assert [f.key for f in again] == [f.key for f in finals]
    other = content(attributes=["note"])
    key = trial_key(other, sweep.info)
    sweep.begin(key, "search", "p", other, {})
    sweep.close()
    raw(desk / "raw", note=" and again")
    with pytest.raises(InputError, match="the written attribute 'note' changed since the trials"):
        opened(desk)
    raw(desk / "raw", note=" again")
    sweep = opened(desk)
    assert trial_key(other, sweep.info) == key
    sweep.close()
    switch(desk, "note")
    with pytest.raises(InputError, match="the data set's `text` changed since the trials"):
        opened(desk)


def test_what_a_process_keeps_is_of_the_present_texts(desk, home, monkeypatch):
    made = prepare(desk / "noted.yaml", say=lambda line: None)
    job = Job(config=TrialConfig.model_validate(content(attributes=["note"])), folder="x",
              tables=str(made.tables), home=str(home))  # fmt: skip
    runtime = Runtime(corpus=shared_corpus(made.tables))
    model = open_model(job, runtime)
    kept = shared_features(model.recipes.items, made.tables, home)
    assert kept is model.inputs.items
    meant = job.model_copy(update={"reads": model.reads})
    raw(desk / "raw", note=" again")
    prepare(desk / "noted.yaml", say=lambda line: None)
    fresh = open_model(job, runtime)
    assert fresh.inputs.items is not kept
    assert fresh.shape.input.vocabulary == model.shape.input.vocabulary + 1, "one more word"
    told = "the texts of note changed while this search was running"
    with pytest.raises(DamagedError, match=told) as caught:
        open_model(meant, runtime)
    ended = failure_message(caught.value)["status"]
    assert ended == "damaged", "the search halts: no trial is spent on what nobody can train"

    switch(desk, "note")
    prepare(desk / "noted.yaml", say=lambda line: None)
    plain = job.model_copy(
        update={"config": TrialConfig.model_validate(content()), "reads": {"title": ""}}
    )
    with pytest.raises(DamagedError, match=r"read by default \(title; now note\) changed"):
        open_model(plain, runtime)

    from legoray.train import loop

    def slowly(*given):
        raw(desk / "raw", note=" once more")
        prepare(desk / "noted.yaml", say=lambda line: None)
        return shared_inputs(*given)

    monkeypatch.setattr(loop, "shared_inputs", slowly)
    with pytest.raises(DamagedError, match=told):
        open_model(job, runtime)


def test_tokens_are_of_the_texts_that_they_are_named_by(desk, monkeypatch):
    """Whatever is attached between the naming and the reading."""
    from legoray.data import tokens

    made = prepare(desk / "noted.yaml", say=lambda line: None)
    words = tokens.open_word_tokenizer(made.tables, ["note"], 1)
    before = load_items(made.tables, ["note"])["note"].to_pylist()

    def late(tables):
        found = read_manifest(tables)
        raw(desk / "raw", note=" again")
        prepare(desk / "noted.yaml", say=lambda line: None)
        return found

    monkeypatch.setattr(tokens, "read_manifest", late)
    table = tokens.open_table(made.tables, "note", length=9, tokenizer=words, shift=0)
    assert load_items(made.tables, ["note"])["note"].to_pylist() != before
    assert table.ids.tolist() == [i for text in before for i in words.encode(text).ids[:9]]
