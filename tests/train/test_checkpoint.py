"""Checkpoints: whole or not there, and never another training's."""

import pytest
import torch
from train_corpora import trial

from legoray.errors import InputError
from legoray.train.checkpoint import (
    FILE,
    Progress,
    config_digest,
    matching_checkpoint,
    read_checkpoint,
    read_epochs,
    remove_checkpoint,
    write_checkpoint,
)

TENSORS = {
    "model/content.weight": torch.randn(5, 3),
    "model/half": torch.randn(4).to(torch.bfloat16),
    "model/bytes": torch.arange(7, dtype=torch.int8),
    "model/none": torch.zeros(0),
    "optimizer/step": torch.tensor(3.0),
}


def progress(**more):
    settings = {"config": "abc", "run": "me", "epochs": [{"epoch": 1.0, "auc": 1 / 3}], **more}
    return Progress(**settings)


@pytest.fixture
def written(tmp_path):
    write_checkpoint(tmp_path, progress(), TENSORS)
    return tmp_path


def test_round_trip(written):
    found, tensors = read_checkpoint(written)
    assert found == progress()
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == TENSORS[name].dtype
        assert torch.equal(tensor, TENSORS[name])
    assert read_epochs(written) == found.epochs


def test_there_may_be_none(tmp_path):
    assert read_checkpoint(tmp_path) is None
    assert read_epochs(tmp_path) == []


def test_the_newest_replaces_the_older_and_leaves_nothing_beside_it(written):
    write_checkpoint(written, progress(since_best=2), {"model/x": torch.ones(1)})
    assert read_checkpoint(written)[0].since_best == 2
    assert [file.name for file in (written / "last").iterdir()] == [FILE]


def truncate(data):
    return data[: len(data) // 2]


def empty(data):
    return b""


def flip_last_byte(data):
    return data[:-1] + bytes([data[-1] ^ 1])


def flip_in_header(data):
    place = data.index(b"content.weight")
    return data[:place] + b"X" + data[place + 1 :]


def lose_metadata(data):
    return data.replace(b'"progress"', b'"pro_ress"')


@pytest.mark.parametrize("damage", [truncate, empty, flip_last_byte, flip_in_header, lose_metadata])
def test_damage_is_found_and_the_folder_to_delete_named(written, damage):
    file = written / "last" / FILE
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(InputError) as caught:
        read_checkpoint(written)
    text = str(caught.value)
    assert str(file) in text
    assert f"delete the folder {written / 'last'}" in text
    assert "\n" not in text


def test_another_trainings_checkpoint_is_refused(written):
    assert matching_checkpoint(written, "abc") is not None
    with pytest.raises(InputError, match="belongs to another configuration"):
        matching_checkpoint(written, "abd")


def test_another_version_is_refused(tmp_path):
    write_checkpoint(tmp_path, progress(format=0), TENSORS)
    with pytest.raises(InputError, match="has format 0, expected 1"):
        read_checkpoint(tmp_path)


def test_only_its_writer_removes_it(written):
    remove_checkpoint(written, "somebody else")
    assert read_checkpoint(written) is not None
    remove_checkpoint(written, "me")
    assert not (written / "last").exists()
    remove_checkpoint(written, "me")


def test_an_unwritable_folder_is_the_users_problem(tmp_path):
    (tmp_path / "last").write_text("a file where a folder should be")
    with pytest.raises(InputError, match="cannot be written"):
        write_checkpoint(tmp_path, progress(), TENSORS)


def test_how_long_to_train_does_not_belong_to_the_configuration():
    first = config_digest(trial(epochs=2, patience=1), "f", {"title": ""})
    assert first == config_digest(trial(epochs=9, patience=3), "f")
    others = [
        config_digest(trial(epochs=2, patience=1), "g"),
        config_digest(trial(seed=2), "f"),
        config_digest(trial(epochs=2, patience=1), "f", {"summary": "1"}),
        config_digest(trial(epochs=2, patience=1), "f", {"summary": "2"}),
        config_digest(trial(batch_size=8), "f"),
        config_digest(trial("pooling"), "f"),
    ]
    assert len({first, *others}) == 7
