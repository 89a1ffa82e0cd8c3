"""A model's folder is whole, or it is refused with one message."""

from __future__ import annotations

import json
import os

import pytest
import torch
from model_cases import HIDDEN, batch_of

from legoray.config import ModelConfig
from legoray.errors import InputError
from legoray.model import io
from legoray.model.inputs import Inputs
from legoray.model.io import load_model, save_model
from legoray.model.recommender import recipes_of, seeded, shape_of

CONFIG = ModelConfig(
    hidden_size=HIDDEN,
    content={"name": "cnn", "min_count": 1},
    behavior={"name": "attention", "heads": 2},
    predictor={"name": "dcn", "units": [6]},
)
ITEMS = torch.tensor([1, 4, 5, 6, 7])


@pytest.fixture
def saved(tmp_path, features_of):
    """A folder and how to write another model into it."""
    recipes = recipes_of(CONFIG, ("title", "abstract"))
    features = features_of(recipes.items)
    inputs = Inputs(features)
    shape = shape_of(CONFIG, inputs, 10)

    def save(seed=1, folder=tmp_path / "best"):
        model = seeded(CONFIG, shape, seed).eval()
        details = {"config": CONFIG, "shape": shape, "recipes": recipes, "inputs": inputs}
        save_model(folder, model, **details, extra={"seed": seed})
        return model(batch_of(features, ITEMS))

    save.folder = tmp_path / "best"
    save.batch = batch_of(features, ITEMS)
    return save


def test_the_folder_holds_plain_files_only(saved):
    saved()
    names = {file.name for file in saved.folder.iterdir()}
    assert names == {"model.safetensors", "config.json", "tokenizer.json"}
    assert [f.name for f in saved.folder.parent.iterdir()] == ["best"]  # nothing left beside it
    content = json.loads((saved.folder / "config.json").read_text())
    assert content["model"]["content"] == {"name": "cnn", "min_count": 1}


def test_a_later_model_takes_the_place_of_an_earlier_one(saved):
    saved(seed=1)
    expected = saved(seed=2)
    loaded = load_model(saved.folder)
    assert loaded.extra == {"seed": 2}
    assert torch.equal(loaded.recommender(saved.batch), expected)
    assert [f.name for f in saved.folder.parent.iterdir()] == ["best"]


def test_loading_does_not_move_random_numbers(saved):
    saved()
    before = torch.random.get_rng_state()
    load_model(saved.folder)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("step", [1, 2])
def test_a_writer_that_dies_between_the_two_moves_loses_no_model(saved, monkeypatch, step):
    saved(seed=1)
    moves = []
    rename = io.Path.rename

    def dying(self, target):
        moves.append(target)
        if len(moves) == step:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(io.Path, "rename", dying)
        with pytest.raises(KeyboardInterrupt):
            saved(seed=2)
    assert load_model(saved.folder).extra == {"seed": 1}
    saved(seed=3)
    assert load_model(saved.folder).extra == {"seed": 3}


def _edit(folder, change):
    file = folder / "config.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


DAMAGES = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors: is damaged"),
    "weights cut": (lambda f: os.truncate(f / "model.safetensors", 500), "checksum"),
    "weights empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "checksum"),
    "no config": (lambda f: (f / "config.json").unlink(), "is not a model's folder"),
    "config cut": (lambda f: os.truncate(f / "config.json", 40), "config.json: is damaged"),
    "config empty": (lambda f: (f / "config.json").write_text(""), "config.json: is damaged"),
    "config a list": (lambda f: (f / "config.json").write_text("[1]"), "is damaged"),
    "other format": (lambda f: _edit(f, lambda c: c.update(format=9)), "format 2 was expected"),
    "no shape": (lambda f: _edit(f, lambda c: c.pop("shape")), "is damaged"),
    "odd shape": (lambda f: _edit(f, lambda c: c["shape"].update(extra=1)), "is damaged"),
    "odd recipe": (
        lambda f: _edit(f, lambda c: c["recipes"]["items"].update(kind="x")),
        "is damaged",
    ),
    "other sizes": (
        lambda f: _edit(f, lambda c: c["shape"]["input"].update(vocabulary=3)),
        "is damaged",
    ),
    "odd part": (
        lambda f: _edit(f, lambda c: c["model"]["content"].update(name="cn")),
        "did you mean 'cnn'",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_folder_is_refused(saved, name):
    saved()
    damage, expected = DAMAGES[name]
    damage(saved.folder)
    with pytest.raises(InputError) as error:
        load_model(saved.folder)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_weights_of_another_model_are_refused(saved, tmp_path):
    saved()
    state = {"content.nothing": torch.zeros(1), "elsewhere.x": torch.zeros(1)}
    io.save_file(state, saved.folder / "model.safetensors")
    checksum = io._sha256(saved.folder / "model.safetensors")
    _edit(saved.folder, lambda c: c.update(sha256=checksum))
    with pytest.raises(InputError, match=r"unexpected tensors: elsewhere\.x"):
        load_model(saved.folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        load_model(tmp_path / "nothing")


def test_an_unwritable_place_is_named(saved, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        saved(folder=blocked / "best")


def test_others_may_read_a_model(saved):
    saved()
    assert (saved.folder / "model.safetensors").stat().st_mode & 0o777 == 0o644
    assert saved.folder.stat().st_mode & 0o777 == 0o755
