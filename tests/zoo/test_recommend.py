"""Scores of new texts: equal to the model's own forward, from every way to name a model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from made_models import MAX_HISTORY, ROWS, save_cnn, save_id, token_features
from made_sweeps import model_folder, on_disk, sweep_info, trial

from legoray.config import ModelConfig
from legoray.data.recipes import StateRecipe
from legoray.errors import InputError
from legoray.llm.store import states_of_texts
from legoray.model.base import Batch
from legoray.model.inputs import Inputs, Recipes
from legoray.model.io import load_model, save_model
from legoray.model.recommender import recipes_of, seeded, shape_of
from legoray.spaceconfig import TrackingConfig
from legoray.zoo.package import requirements
from legoray.zoo.pyfunc import _load_pyfunc
from legoray.zoo.recommend import read_texts, recommend
from legoray.zoo.record import Recorder
from legoray.zoo.scorer import Scorer, attributes_of


def forward(folder, history, candidates):
    """The reference: one batch through the recommender's own forward."""
    loaded = load_model(folder)
    rows = [*history, *candidates]
    inputs = token_features(loaded.recipes.items, rows).gather(torch.arange(1, len(rows) + 1))
    past = torch.arange(1, len(history) + 1)[None]
    asked = torch.arange(len(history) + 1, len(rows) + 1)[None]
    past = past if history else torch.zeros(1, 1, dtype=torch.int64)
    with torch.inference_mode():
        scores = loaded.recommender(Batch(inputs, past, asked, torch.zeros(asked.shape)))
    return scores[0].double().numpy()


@pytest.mark.parametrize("length", [0, 1, 3])
@pytest.mark.parametrize("parts", [("attention", "dot"), ("none", "din"), ("gru", "dnn")])
def test_scores_equal_the_recommenders_own(tmp_path, parts, length):
    folder = save_cnn(tmp_path / "best", *parts)
    history, candidates = ROWS[:length], ROWS[2:]
    (scores,) = Scorer(folder).score([history], [candidates])
    np.testing.assert_allclose(scores, forward(folder, history, candidates), atol=1e-5)
    assert not history or np.ptp(scores) > 1e-4


def test_users_do_not_mix(text_model):
    scorer = Scorer(text_model)
    histories = [ROWS[:1], [], ROWS[1:4], ROWS[:2]] * 40
    candidates = [ROWS, ROWS[:1], [], ROWS[3:]] * 40
    together = scorer.score(histories, candidates)
    assert [len(row) for row in together] == [6, 1, 0, 3] * 40
    for n in range(4):
        (alone,) = scorer.score([histories[n]], [candidates[n]])
        for row in together[n::4]:
            np.testing.assert_allclose(row, alone, atol=1e-5)


def test_the_newest_of_a_long_history_counts(text_model):
    scorer = Scorer(text_model)
    long = [ROWS[5], ROWS[5], *ROWS[:MAX_HISTORY]]
    (all_of_it,) = scorer.score([long], [ROWS])
    (newest,) = scorer.score([ROWS[:MAX_HISTORY]], [ROWS])
    np.testing.assert_array_equal(all_of_it, newest)


def test_a_plain_text_is_the_first_attribute(text_model):
    scorer = Scorer(text_model)
    assert scorer.attributes == ("title", "category")
    plain = [row["title"] for row in ROWS]
    spelled = [{"title": row["title"], "category": None} for row in ROWS]
    (first,) = scorer.score([plain[:2]], [plain])
    (second,) = scorer.score([spelled[:2]], [spelled])
    np.testing.assert_array_equal(first, second)


def test_a_language_models_attributes_are_its_templates():
    recipe = StateRecipe("minilm", 5, "{title} ({category})", 32, "float32")
    assert attributes_of(Recipes(recipe)) == ("title", "category")


@pytest.mark.parametrize(
    ("history", "candidates", "message"),
    [
        ([{"titel": "x", "category": "y"}], ["a"], r"history\[0\].*'title'.*is 'titel' meant"),
        (["a"], ["b", {"title": "x"}], r"candidates\[1\].*'category'.*given: title"),
        (["a"], [3], r"candidates\[0\]: 3 is not a text"),
        ([None], ["a"], r"history\[0\]: None is not a text"),
    ],
)
def test_items_that_cannot_be_read_are_named(text_model, history, candidates, message):
    with pytest.raises(InputError, match=message):
        Scorer(text_model).score([history], [candidates])


def test_identifier_models_say_that_they_cannot(tmp_path):
    folder = save_id(tmp_path / "best")
    with pytest.raises(InputError, match=r"id\+pooling\+dot knows the items of its data set alone"):
        recommend(folder, ["a"], ["b"])
    with pytest.raises(InputError, match="take a model that reads text"):
        _load_pyfunc(str(folder)).predict([{"history": ["a"], "candidates": ["b"]}])


def test_recommend_ranks_best_first(text_model):
    ranked = recommend(text_model, ROWS[:2], ROWS, top=3)
    scores = forward(text_model, ROWS[:2], ROWS)
    order = np.argsort(-scores)[:3]
    assert [text for _, _, text in ranked] == [ROWS[i]["title"] for i in order]
    assert [rank for rank, _, _ in ranked] == [1, 2, 3]
    np.testing.assert_allclose([s for _, s, _ in ranked], scores[order], atol=1e-5)
    same = recommend(text_model, [], ["one text", "one text"])
    assert [text for _, _, text in same] == ["one text", "one text"]


# --- from the zoo


@pytest.fixture(scope="module")
def zoo(tmp_path_factory, empty_store, text_model):
    """A recorded sweep with two models; its address and the recorder."""
    project = tmp_path_factory.mktemp("zoo")
    shutil.copy(empty_store, project / "mlflow.db")
    folder = project / "sweeps" / "mind-test"
    best, other, pruned = trial(0, auc=0.7), trial(4, auc=0.6), trial(2, status="pruned")
    on_disk(folder, sweep_info(), best, other, pruned)
    shutil.copytree(text_model, folder / "models" / best.key / "best")
    model_folder(folder, other)  # no model at all: found, but it cannot be loaded
    uri = f"sqlite:///{project / 'mlflow.db'}"
    recorder = Recorder(TrackingConfig(uri=uri), sweep_info(), folder)
    assert recorder.finish(best), recorder.problem
    return uri, recorder


def names_of(zoo):
    uri, recorder = zoo
    sent = recorder.state.trials["0-k0007"]
    stored = next((Path(uri.removeprefix("sqlite:///")).parent / "mlruns").rglob("MLmodel")).parent
    return {
        "alias": "models:/mind-test@champion",
        "version": f"models:/mind-test/{recorder.state.version}",
        "logged model": f"models:/{sent.model}",
        "run": sent.run_id,
        "run address": f"runs:/{sent.run_id}",
        "run name": "cnn+attention+dot #0",
        "trial's folder": recorder.folder / "models" / "k0007",
        "MLflow's folder": stored.parents[1] / sent.model / "artifacts",
    }


@pytest.mark.parametrize(
    "way",
    ["alias", "version", "logged model", "run", "run address", "run name", "trial's folder",
     "MLflow's folder"],
)  # fmt: skip
def test_a_model_is_found_by_every_name(zoo, text_model, way):
    expected = recommend(text_model, ROWS[:2], ROWS)
    assert recommend(names_of(zoo)[way], ROWS[:2], ROWS, tracking=zoo[0]) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("models:/mind-tset@champion", "no registered model 'mind-tset'.*mean 'mind-test'"),
        ("models:/mind-test@best", "has no alias 'best' .it has: @champion"),
        ("models:/mind-test/99", "has no version 99"),
        ("models:/mind-test", "is no model's name"),
        ("no/such/folder", "there is no folder and no run 'no/such/folder'"),
        ("id+gru+dcn #2", "left no model .it is pruned"),
        ("cnn+attention+dot #4", "is damaged"),
        ("models:/m-0123456789abcdef0123456789abcdef", "there is no model"),
    ],
)
def test_a_model_that_is_not_there_is_told(zoo, name, message):
    with pytest.raises(InputError, match=message):
        recommend(name, [], ["a"], tracking=zoo[0])


def test_mlflow_loads_the_model_and_scores_texts(zoo, text_model, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", zoo[0])
    model = mlflow.pyfunc.load_model("models:/mind-test@champion")
    rows = [
        {"history": ROWS[:2], "candidates": ROWS},
        {"history": [], "candidates": [ROWS[0]]},
        {"history": ["Rain again"], "candidates": ["Storm", "The cup"]},
    ]
    expected = Scorer(text_model).score(
        [row["history"] for row in rows], [row["candidates"] for row in rows]
    )
    for given in (rows, pd.DataFrame(rows, index=[7, 8, 9])):
        found = model.predict(given)["scores"]
        for got, want in zip(found, expected, strict=True):
            np.testing.assert_allclose(got, want, atol=1e-9)
    assert list(found.index) == [7, 8, 9]
    assert [column.name for column in model.metadata.signature.inputs.inputs] == [
        "history",
        "candidates",
    ]


def test_mlflow_scores_the_stored_example(zoo, text_model, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", zoo[0])
    known = names_of(zoo)
    for address in (known["logged model"], f"runs:/{known['run']}/cnn+attention+dot"):
        model = mlflow.pyfunc.load_model(address)
        (row,) = model.input_example.to_dict("records")
        (expected,) = Scorer(text_model).score([row["history"]], [row["candidates"]])
        (found,) = model.predict(model.input_example)["scores"]
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_pyfunc_tells_what_is_wrong_with_its_input(text_model):
    model = _load_pyfunc(str(text_model))
    with pytest.raises(InputError, match=r"column 'candidates' is missing.*history"):
        model.predict([{"history": ["a"]}])
    with pytest.raises(InputError, match=r"row 0, column 'history'.*'a' is not a list"):
        model.predict([{"history": "a", "candidates": ["b"]}])


def test_requirements_name_what_loads_the_model():
    names = {line.partition("==")[0] for line in requirements()}
    assert {"legoray", "torch", "safetensors", "pydantic"} <= names
    assert not any("+cpu" in line for line in requirements())


# --- people's files


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "One\n\n  Two  \r\nThree", ["One", "Two", "Three"]),
        ("a", "\ufeffGrüße\n", ["Grüße"]),
        ("a.jsonl", '"One"\n\n{"title": "Two"}\n', ["One", {"title": "Two"}]),
        ("a.json", '["One", {"title": "Two"}]', ["One", {"title": "Two"}]),
        ("a.csv", 'title,category\n"One, two",x\n', [{"title": "One, two", "category": "x"}]),
        ("a.csv", 'title\n"One\ntwo"\n', [{"title": "One\ntwo"}]),
        ("a.tsv", "title\tcategory\nOne\t\n", [{"title": "One", "category": ""}]),
    ],
)
def test_items_are_read_by_the_files_ending(tmp_path, name, content, expected):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_texts(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"\n  \n", "has no items"),
        ("a.txt", b"\xff\xfe\x00", "is not UTF-8"),
        ("a.jsonl", b'"One"\n{"title": \n', "a.jsonl:2: not valid JSON"),
        ("a.jsonl", b'"One"\n\n5\n', "a.jsonl:3: 5 is not an item"),
        ("a.json", b'{"title": "One"}', "a list of texts or mappings was expected"),
        ("a.json", b"[1]", r"\[0\]: 1 is not an item"),
        ("a.json", b"[", "not valid JSON"),
        ("a.csv", b"title,category\nOne\n", "a.csv:2: has 1 fields.*2 fields as in the header"),
        ("a.csv", b"title\nOne,two\n", "a.csv:2: has 2 fields"),
        ("a.csv", b"title\n", "has no items"),
        ("a.csv", b'title\n"One\n', "not valid CSV"),
    ],
)
def test_files_that_cannot_be_read_are_told(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_texts(tmp_path / name)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_texts(tmp_path / "none.txt")
    with pytest.raises(InputError, match="is a folder"):
        read_texts(tmp_path)


def test_a_language_model_scores_new_texts(tmp_path):
    """The stored lower layers are not there for new texts: they are computed when it scores."""
    config = ModelConfig(
        hidden_size=16,
        content={"name": "llm", "model": "minilm", "split": 5, "length": 16},
        behavior={"name": "attention"},
        predictor={"name": "dot"},
    )
    recipes = recipes_of(config, ("title", "category"))
    features = states_of_texts(recipes.items, ROWS)
    shape = shape_of(config, Inputs(features), MAX_HISTORY)
    model = seeded(config, shape, 3).eval()
    inputs = Inputs(features)
    details = {"config": config, "shape": shape, "recipes": recipes, "inputs": inputs}
    save_model(tmp_path / "best", model, **details, extra={})
    batch = Batch(
        features.gather(torch.arange(1, len(ROWS) + 1)),
        torch.tensor([[1, 2]]),
        torch.tensor([[3, 4, 5, 6]]),
        torch.zeros(1, 4),
    )
    with torch.inference_mode():
        expected = model(batch)[0].numpy()
    found = recommend(tmp_path / "best", ROWS[:2], ROWS[2:])
    order = np.argsort(-expected)
    assert [text for _, _, text in found] == [ROWS[2 + i]["title"] for i in order]
    np.testing.assert_allclose([s for _, s, _ in found], expected[order], atol=1e-4)
