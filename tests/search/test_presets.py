"""Named models: every one is valid, is what the paper's table says, and trains on real rows."""

from __future__ import annotations

import re

import pytest

from legoray.config import ModelConfig, TrainConfig, TrialConfig, build
from legoray.data.load import load_corpus
from legoray.errors import InputError
from legoray.model.compose import check
from legoray.model.presets import FOLDER, fitting, merged, names, preset, reading_note
from legoray.search.check import check_config
from legoray.train.losses import check_train

# Table 2 of Legommenders (WWW 2025): data, model, content, behavior, predictor.
TABLE_2 = """
original | NAML-ID | Null | AdditiveAttention | Dot
original | DCN | Null | Pooling | DCN
original | DIN | Null | Null | DIN
original | DCN-text | Pooling | Pooling | DCN
original | DIN-text | Pooling | Null | DIN
original | NAML | CNN | AdditiveAttention | Dot
original | NRMS | Attention | Attention | Dot
original | MINER | BERT | PolyAttention | Attention
original | Fastformer | Fastformer | Fastformer | Dot
original | PLM-NR | BERT | Attention | Dot
original | DIRE | Llama 1 | Attention | Dot
original | DIRE, decoupled | Null (Llama 1 vectors) | Attention | Dot
augmented | DCN-text | Pooling | Pooling | DCN
augmented | NAML | CNN | AdditiveAttention | Dot
augmented | NRMS | Attention | Attention | Dot
augmented | PLM-NR | BERT | Attention | Dot
augmented | ONCE | Llama 1 | Attention | Dot
"""
NAMES = (
    "naml-id dcn din dcn-text din-text naml nrms miner fastformer plm-nr dire dire-decoupled "
    "lstur bst prec npa iisan deepfm pnn autoint dcnv2 masknet gdcn finalmlp fm wide-deep xdeepfm "
    "sasrec caser once"
)
NAMED = NAMES.split()
OURS = {
    "content": {
        "Null": "id",
        "BERT": "llm",
        "Llama 1": "llm",
        "Null (Llama 1 vectors)": "vector",
        "Pooling": "pooling",
        "CNN": "cnn",
        "Attention": "attention",
        "Fastformer": "fastformer",
    },
    "behavior": {
        "Null": "none",
        "AdditiveAttention": "additive",
        "PolyAttention": "poly-attention",
        "Pooling": "pooling",
        "Attention": "attention",
        "Fastformer": "fastformer",
    },
    "predictor": {"Dot": "dot", "DCN": "dcn", "DIN": "din", "Attention": "miner"},
}
STATES = {n for n in names() if {"llm", "iisan", "vector"} & set(preset(n).parts().values())}


def rows():
    lines = TABLE_2.strip().splitlines()
    return [(n, *map(str.strip, line.split("|"))) for n, line in enumerate(lines, start=1)]


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row[0]}-{row[2]}")
def test_every_row_of_table_2_is_a_preset(row):
    number, data, title, content, behavior, predictor = row
    (found,) = [preset(name) for name in names() if preset(name).row == number]
    assert found.title == title
    assert found.augmented == (data == "augmented")
    assert found.parts() == {
        "content": OURS["content"][content],
        "behavior": OURS["behavior"][behavior],
        "predictor": OURS["predictor"][predictor],
    }
    told = f"Row {number} of Table 2 of Legommenders (WWW 2025): {content}, {behavior}, {predictor}"
    assert told in re.sub(r"\s*\n# ", " ", (FOLDER / f"{found.name}.yaml").read_text())


def test_every_named_model_is_a_preset():
    assert set(NAMED) <= set(names())
    assert [n for n in names() if preset(n).row][:12] == NAMED[:12], "in the table's order"


@pytest.mark.parametrize("name", names())
def test_a_preset_is_valid_and_says_where_it_is_from(name):
    known = preset(name)
    config = build(ModelConfig, known.model)
    assert check(config) == []
    assert check_train(build(TrainConfig, known.train)) == []
    assert known.paper
    assert known.train["negatives"] >= 1
    header = (FOLDER / f"{name}.yaml").read_text()
    assert header.startswith("# ")
    if "llm" in known.composition():
        assert known.note.startswith("its paper's language model is ")
        assert known.model["content"]["model"] == "minilm"
        assert "stands in" in re.sub(r"\s*\n# ", " ", header)


def test_models_with_a_language_model_say_which_the_paper_had():
    for name in STATES:
        text = re.sub(r"\s*\n# ", " ", (FOLDER / f"{name}.yaml").read_text())
        assert re.search(r"The paper's language model is (BERT|Llama 1|a BERT)", text), name


@pytest.mark.parametrize("name", [n for n in names() if n not in STATES])
def test_a_preset_trains_a_step(name, sample_tables, tmp_path):
    assert trained(name, sample_tables, tmp_path, {}) == []


@pytest.mark.slow
def test_presets_with_a_language_model_train_a_step(sample_tables, tmp_path):
    for name in sorted(STATES):
        assert trained(name, sample_tables, tmp_path, {"length": 12}) == [], name


def trained(name, tables, home, content):
    """What goes wrong in one step of training and scoring on the embedded corpus."""
    known = preset(name)
    model = merged(known.model, {"content": content, "preset": name})
    train = {**known.train, "max_history": 8, "batch_size": 8}
    config = build(TrialConfig, {"model": model, "train": train})
    problems = check_config(config, ("title",), load_corpus(tables), tables, home)
    return [str(problem) for problem in problems]


def test_an_unknown_preset():
    with pytest.raises(InputError, match=r"no preset 'nmrs' \(did you mean 'nrms'\?\)"):
        preset("nmrs")


def test_another_part_brings_its_own_settings():
    base = {"content": {"name": "cnn", "kernel_size": 3}, "size": 1}
    assert merged(base, {"content": {"dropout": 0.1}, "size": 2}) == {
        "content": {"name": "cnn", "kernel_size": 3, "dropout": 0.1},
        "size": 2,
    }
    assert merged(base, {"content": {"name": "gru"}})["content"] == {"name": "gru"}
    assert base["content"] == {"name": "cnn", "kernel_size": 3}, "nothing is changed in place"


def test_presets_of_given_parts():
    found = fitting({"content": ["cnn", "id"], "behavior": ["additive"], "predictor": ["dot"]})
    assert found == ["naml-id", "naml", "naml-augmented"]


def test_augmented_presets_say_what_they_read():
    content = preset("once").model["content"]
    assert "reads title as it is" in reading_note("once", content, ("title",))
    assert reading_note("once", content, ("title-augmented",)) == ""
    assert "reads summary as it is" in reading_note("once", content, ("summary",))
    assert reading_note("once", content, ("summary",), ["summary"]) == ""
    given = {**content, "template": "{title-augmented}"}
    assert reading_note("once", given, ("title",)) == ""
    assert reading_note("dire", content, ("title",)) == ""
    naml = preset("naml-augmented").model["content"]
    assert "reads title, abstract" in reading_note("naml-augmented", naml, ("title", "abstract"))
