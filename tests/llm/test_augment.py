"""`legoray augment` with a tiny model: resumed after kills, never two prompts in one attribute."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from writing_cases import (
    PROMPT,
    ROOT,
    asked,
    rows_of,
    run,
    write_dataset,
    write_prompt,
    write_writer,
)

from legoray import cli
from legoray.data.load import load_items
from legoray.data.prepare import prepare
from legoray.data.written import part_files, read_meta, read_written, written_folder
from legoray.errors import InputError
from legoray.llm.generation.augment import augment
from legoray.llm.generation.local import LocalModel, Settings
from legoray.llm.generation.questions import Question

CHAT = (
    "{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<user>{{ m.content }}</s>{% endfor %}"
)


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """The folder of a tiny model that writes."""
    return write_writer(tmp_path_factory.mktemp("writer"))


@pytest.fixture
def dataset(tmp_path, home, sample_tables):
    """The embedded corpus in a home of the test's own."""
    return write_dataset(tmp_path, home, sample_tables)


def test_answers_are_the_models_own(writer):
    """Greedy answers of a padded batch are those of a loop that knows no batch."""
    model = LocalModel(writer, "float32", Settings(max_new_tokens=6))
    texts = ["Rain again", "Storm closes coastal roads after a long night", "Goal"]
    found = model.answer([Question(str(n), "", text) for n, text in enumerate(texts)])
    for text, answer in zip(texts, found, strict=True):
        ids = model._tokenizer(text)["input_ids"]
        for _ in range(6):
            with torch.no_grad():
                ids = [*ids, int(model._model(torch.tensor([ids])).logits[0, -1].argmax())]
            if ids[-1] == 0:
                break
        assert answer.cut == (ids[-1] != 0)
        new = ids[len(model._tokenizer(text)["input_ids"]) :]
        assert answer.text == model._tokenizer.decode(new, skip_special_tokens=True)


def test_sampling_depends_on_seed_and_key_alone(writer):
    questions = [Question(f"N{n}", "", f"Rain {n} floods the town") for n in range(6)]

    def texts(seed, chosen):
        model = LocalModel(writer, "float32", Settings(8, temperature=1.0, seed=seed))
        return {q.key: a.text for q, a in zip(chosen, model.answer(chosen), strict=True)}

    whole = texts(1, questions)
    assert texts(1, questions[::-1]) == whole
    assert {
        k: v for part in (questions[:2], questions[2:]) for k, v in texts(1, part).items()
    } == whole
    assert texts(2, questions) != whole
    greedy = LocalModel(writer, "float32", Settings(8)).answer(questions)
    assert [a.text for a in greedy] != list(whole.values())


def test_sampling_draws_from_the_softmax():
    """The share of each token among many keys is its probability."""
    from legoray.llm.generation.local import Steer

    scores = torch.tensor([[1.0, 0.0, -1.0]]).expand(4000, 3)
    drawn = Steer([f"N{n}" for n in range(4000)], Settings(1, temperature=0.5))(None, scores)
    share = torch.bincount(drawn.argmax(1), minlength=3) / 4000
    assert torch.allclose(share, torch.softmax(scores[0] / 0.5, 0), atol=0.03)


def test_chat_templates(tmp_path):
    """One that refuses a system text gets it before the question; control tokens are plain text."""
    folder = write_writer(tmp_path, template=CHAT)
    model = LocalModel(folder, "float32", Settings(2))
    tokenizer = model._tokenizer
    ids = model._encode(Question("N1", "Be brief.", "Rain </s> falls"))
    assert tokenizer.decode(ids) == "<user>Be brief.\n\nRain </s> falls</s>"
    assert ids.count(tokenizer.eos_token_id) == 1, "an item cannot end the question"


def test_a_question_that_is_too_long_is_not_asked(tmp_path):
    model = LocalModel(write_writer(tmp_path, positions=32), "float32", Settings(8))
    long, short = Question("N7", "", "rain " * 40), Question("N8", "", "rain")
    answers = model.answer([short, long, short])
    told = [answer.too_long for answer in answers]
    assert told[::2] == ["", ""]
    assert re.match(r"the question has .* tokens; with 8 new ones .* than the 32 that", told[1])
    assert answers[::2] == model.answer([short, short])
    assert [answer.text for answer in model.answer([long])] == [""]
    no_room = LocalModel(str(tmp_path), "float32", Settings(32))
    with pytest.raises(InputError, match=r"max_new_tokens: is 32, and .* reads 32 tokens"):
        no_room.answer([short])


def test_what_is_too_long_is_counted_and_the_rest_goes_on(dataset, home, tmp_path):
    prompt = write_prompt(tmp_path)
    writer = write_writer(tmp_path / "model", positions=44)
    said = run(asked(dataset, prompt=prompt, model=writer))
    meta = read_meta(written_folder(home, "mind_sample", "short"))
    long = meta.counts["too_long"]
    assert 0 < long < 24
    assert sum(meta.counts[s] for s in meta.counts if s != "cut") == 24
    assert f"{long} not asked: too long for the model" in said
    assert re.search(r"N\d+  not asked: the question has \d+ tokens; .* more than the 44", said)
    assert "counts as missing: name fewer attributes" in said
    assert "24 known, 0 to write" in run(asked(dataset, prompt=prompt, model=writer))
    counts = prepare(dataset, say=print).manifest.written["short"].counts
    assert counts["too_long"] == long


def test_another_data_set_of_the_same_name_is_not_added_to(dataset, home, tmp_path, writer):
    """It has the same keys, and other items."""
    prompt = write_prompt(tmp_path)
    run(asked(dataset, prompt=prompt, model=writer, limit=4))
    raw = tmp_path / "other"
    shutil.copytree(ROOT / "datasets/mind_sample", raw)
    for file in raw.rglob("news.tsv"):
        lines = [line.split("\t") for line in file.read_text().splitlines()]
        others = [[*row[:3], f"Another {row[0]}", "Not the same", *row[5:]] for row in lines]
        file.write_text("".join("\t".join(row) + "\n" for row in others))
    text = dataset.read_text().replace(f"{ROOT}/datasets/mind_sample", str(raw))
    other = tmp_path / "other.yaml"
    other.write_text(text)
    with pytest.raises(InputError, match="'short' was written for other data of the name 'mind_s"):
        run(asked(other, prompt=prompt, model=writer, limit=6))
    assert len(rows_of(home)[1]) == 4
    assert "4 known, 2 to write" in run(asked(dataset, prompt=prompt, model=writer, limit=6))
    run(asked(other, prompt=prompt, model=writer, limit=2, overwrite=True))
    assert len(rows_of(home)[1]) == 2


def test_models_that_do_not_write_are_refused(dataset, tiny_bert, tiny_llama, tmp_path):
    prompt = write_prompt(tmp_path)
    for model in (tiny_bert, tiny_llama):
        with pytest.raises(InputError, match=r"does not write texts.*'smollm2'"):
            run(asked(dataset, prompt=prompt, model=model))


def test_nan_stops_with_the_key(tmp_path):
    from safetensors.torch import load_file, save_file

    file = Path(write_writer(tmp_path)) / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"][:] = float("nan")
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(InputError, match="N3: the model's scores are NaN"):
        LocalModel(str(tmp_path), "float32", Settings(2)).answer([Question("N3", "", "Rain")])


def test_it_writes_records_and_goes_on(dataset, home, tmp_path, writer):
    request = asked(dataset, prompt=write_prompt(tmp_path), model=writer, limit=10)
    said = run(request)
    assert "short: 0 known, 10 to write" in said
    assert "text: [short]" in said
    assert "{name: short, missing: empty}" in said
    rows, texts = rows_of(home)
    keys = load_items(prepare(dataset, say=print).tables, ["key"])["key"].to_pylist()
    assert sorted(texts) == sorted(keys[:10])
    meta = read_meta(written_folder(home, "mind_sample", "short"))
    assert meta.provenance.prompt_text == "{title} -> "
    assert len(meta.provenance.weights) == 64
    assert (meta.provenance.seed, meta.provenance.prompt) == (1, "short")
    assert meta.provenance.settings["recipe"]["by"]["precision"] == "float32"
    assert sum(meta.counts[s] for s in ("written", "refused", "empty") if s in meta.counts) == 10

    said = run(asked(dataset, prompt=write_prompt(tmp_path), model=writer, limit=10))
    assert "short: 10 known, 0 to write" in said
    said = run(asked(dataset, prompt=write_prompt(tmp_path), model=writer, limit=14))
    assert "short: 10 known, 4 to write" in said
    rows, more = rows_of(home)
    assert len(rows) == len(more) == 14
    assert texts.items() <= more.items()


def test_another_recipe_is_refused_or_sets_aside(dataset, home, tmp_path, writer):
    prompt = write_prompt(tmp_path)
    run(asked(dataset, prompt=prompt, model=writer, limit=4))
    before = rows_of(home)[1]
    with pytest.raises(
        InputError, match=r"'short' was written with another seed .*--as.*--overwrite"
    ):
        run(asked(dataset, prompt=prompt, model=writer, limit=4, seed=2))
    other = write_prompt(tmp_path, user='user: "On {title}: "')
    with pytest.raises(InputError, match="another prompt"):
        run(asked(dataset, prompt=other, model=writer, limit=4))
    assert rows_of(home)[1] == before, "nothing was touched"
    run(asked(dataset, prompt=other, model=writer, limit=4, name="second"))
    said = run(asked(dataset, prompt=other, model=writer, limit=4, overwrite=True))
    assert "set aside" in said
    assert rows_of(home)[1] == rows_of(home, "second")[1]
    away = home / "written" / "mind_sample" / ".replaced" / "short-1"
    table = read_written(away)
    assert dict(zip(table["key"].to_pylist(), table["text"].to_pylist(), strict=True)) == before
    assert set(prepare(dataset, say=print).manifest.written) == {"short", "second"}


def test_the_data_set_may_name_it_before_it_is_there(dataset, home, tmp_path, writer):
    """As where the store is a new one, or a kill came between setting aside and the first part."""
    plain = dataset.read_text()
    lines = [line for line in plain.splitlines() if not line.startswith("text:")]
    named = ["attributes: [{name: short, missing: empty}]", "text: [short]"]
    dataset.write_text("\n".join([*lines, *named]) + "\n")
    with pytest.raises(InputError, match="short"):
        prepare(dataset, say=print)
    with pytest.raises(InputError, match="no item attribute 'short'"):
        run(asked(dataset, prompt=write_prompt(tmp_path), model=writer, limit=2, name="other"))
    reading = write_prompt(tmp_path, user='user: "{text}"')
    with pytest.raises(
        InputError, match=r"text is all written; what shall .*some of: title, abstract"
    ):
        run(asked(dataset, prompt=reading, model=writer, limit=2))
    run(asked(dataset, prompt=write_prompt(tmp_path), model=writer, limit=2))
    manifest = prepare(dataset, say=print).manifest
    assert manifest.text == ["short"]
    assert manifest.written["short"].counts["texts"] == len(rows_of(home)[1]) == 2


def test_what_a_prompt_does_not_read_is_not_asked_for(dataset, home, tmp_path, writer):
    prompt = write_prompt(tmp_path)
    with pytest.raises(InputError, match="names itself what it reads"):
        run(asked(dataset, prompt=prompt, model=writer, attributes=("title",)))
    text = PROMPT.replace("{title}", "{history}") + "of: users\nhistory: {most: 2}\n"
    prompt = write_prompt(tmp_path, text)
    with pytest.raises(InputError, match="written by one attribute"):
        run(asked(dataset, prompt=prompt, model=writer, attributes=("title", "category")))
    dataset.write_text(dataset.read_text().replace("text: [title]", "text: [title, abstract]"))
    run(asked(dataset, prompt=prompt, model=writer, limit=1))
    meta = read_meta(written_folder(home, "mind_sample", "short"))
    assert meta.provenance.settings["recipe"]["attributes"] == ["title"]


def test_texts_of_unknown_origin_are_not_added_to(dataset, home, tmp_path, writer):
    request = asked(dataset, prompt=write_prompt(tmp_path), model=writer, limit=4)
    run(request)
    folder = written_folder(home, "mind_sample", "short")
    whole = (folder / "meta.json").read_text()
    (folder / "meta.json").write_text(whole[:20])
    with pytest.raises(InputError, match=rf"meta\.json: is damaged.*move {folder} away"):
        run(request)
    (folder / "meta.json").unlink()
    other = write_prompt(tmp_path, user='user: "On {title}: "')
    request = asked(dataset, prompt=other, model=writer, limit=2)
    with pytest.raises(InputError, match=r"no meta\.json that says what .*--overwrite"):
        run(request)
    run(asked(dataset, prompt=other, model=writer, limit=2, overwrite=True))
    assert len(rows_of(home)[1]) == 2, "none of the four from before is among them"


def test_ctrl_c_says_what_becomes_of_it(dataset, home, tmp_path, writer, monkeypatch):
    answer, calls = LocalModel.answer, []

    def twice(self, questions):
        calls.append(len(questions))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return answer(self, questions)

    request = asked(dataset, prompt=write_prompt(tmp_path), model=writer, limit=24, batch=4)
    console = Console(width=200, record=True, file=io.StringIO())
    with monkeypatch.context() as patched:
        patched.setattr(LocalModel, "answer", twice)
        with pytest.raises(KeyboardInterrupt):
            augment(request, console)
    assert "interrupted: what is finished is kept; the same command" in console.export_text()
    assert len(rows_of(home)[1]) == 8
    assert "8 known, 16 to write" in run(request)


def test_nothing_is_written_from_itself(dataset, tmp_path, writer):
    run(asked(dataset, prompt=write_prompt(tmp_path), model=writer, limit=2))
    itself = write_prompt(tmp_path, user='user: "{short} -> "')
    with pytest.raises(InputError, match="'short' would be written from itself"):
        run(asked(dataset, prompt=itself, model=writer, overwrite=True))


def test_items_whose_text_has_changed(dataset, home, tmp_path, writer):
    """They alone are written again, and only on request."""
    prompt = write_prompt(tmp_path)
    run(asked(dataset, prompt=prompt, model=writer, limit=8))
    before = rows_of(home)[1]
    raw = tmp_path / "raw"
    shutil.copytree(ROOT / "datasets/mind_sample", raw)
    key = next(iter(before))
    for file in raw.rglob("news.tsv"):
        lines = [line.split("\t") for line in file.read_text().splitlines()]
        changed = [[*r[:3], "A new title", *r[4:]] if r[0] == key else r for r in lines]
        file.write_text("".join("\t".join(r) + "\n" for r in changed))
    text = dataset.read_text()
    dataset.write_text(text.replace(f"path: {ROOT}/datasets/mind_sample", f"path: {raw}"))
    with pytest.raises(InputError, match=f"what 1 items were written from has changed.*{key}"):
        run(asked(dataset, prompt=prompt, model=writer, limit=8))
    said = run(asked(dataset, prompt=prompt, model=writer, limit=8, overwrite=True))
    assert "short: 7 known, 1 to write" in said
    rows, after = rows_of(home)
    assert len(rows) == 8
    assert {k for k in before if before[k] != after[k]} <= {key}


def test_names_that_are_taken_and_requests_that_do_not_fit(dataset, tmp_path, writer):
    prompt = write_prompt(tmp_path)
    for given, told in (
        ({"name": "title"}, "have already.*title-augmented"),
        ({"name": "a b"}, "attribute"),
        ({"precision": "float16"}, "no precision 'float16'"),
        ({"endpoint_model": "x"}, "give --endpoint too"),
        ({"endpoint": "http://localhost:1"}, "which of the server's models"),
        ({"endpoint": "localhost:1", "endpoint_model": "x"}, "no address"),
        ({"endpoint": "http://me:secret@h/", "endpoint_model": "x"}, "LEGORAY_API_KEY"),
        (
            {"endpoint": "http://h/", "endpoint_model": "x"},
            "--model: is for a model that runs here",
        ),
        ({"model": "smolm2"}, "did you mean 'smollm2"),
    ):
        with pytest.raises(InputError, match=told) as caught:
            run(asked(dataset, **{"prompt": prompt, "model": writer, **given}))
        assert "secret" not in str(caught.value)


def test_the_command_lists_prompts_and_says_what_is_missing(monkeypatch, capsys):
    for words, code, told in (
        (["--list"], 0, "title-augmented"),
        ([], 2, "give a data set"),
        (["datasets/mind_sample.yaml"], 2, "give --prompt"),
        (["datasets/mind_sample.yaml", "--prompt", "titel"], 2, "did you mean 'title'"),
    ):
        monkeypatch.setattr(sys, "argv", ["legoray", "augment", *words])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert caught.value.code == code
        found = capsys.readouterr()
        assert told in found.out + found.err


def test_many_parts_become_one(dataset, home, tmp_path, writer):
    request = asked(dataset, prompt=write_prompt(tmp_path), model=writer, limit=66, batch=1)
    run(request)
    assert len(part_files(written_folder(home, "mind_sample", "short"))) == 1
    assert len(rows_of(home)[0]) == 66
    assert "66 known, 0 to write" in run(request)


@pytest.mark.slow
def test_killed_at_several_moments_and_started_again(dataset, home, tmp_path, writer):
    """Nothing twice, nothing lost but the batch in hand, and the same as undisturbed."""
    prompt = write_prompt(tmp_path)
    folder = written_folder(home, "mind_sample", "short")
    command = [sys.executable, "-m", "legoray.cli", "augment", str(dataset), "--prompt", prompt]
    command += ["--model", writer, "--limit", "96", "--batch", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LEGORAY_HOME": str(home)}
    known = []
    for parts in (1, 9, 25):
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 90
            while len(part_files(folder)) < parts and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.002)
            os.kill(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, "killed in the middle"
        rows, texts = rows_of(home)
        assert len(rows) == len(texts) >= 2 * parts
        known.append(texts)
    assert len(known[-1]) < 96
    said = run(asked(dataset, prompt=prompt, model=writer, limit=96, batch=2))
    assert f"short: {len(known[-1])} known, {96 - len(known[-1])} to write" in said
    rows, texts = rows_of(home)
    assert len(rows) == len(texts) == 96, "no key twice"
    for before in known:
        assert before.items() <= texts.items()
    run(asked(dataset, prompt=prompt, model=writer, limit=96, batch=2, name="whole"))
    assert rows_of(home, "whole")[1] == texts
    meta = read_meta(folder)
    assert sum(meta.counts.get(s, 0) for s in ("written", "refused", "empty")) == 96


@pytest.mark.cluster
@pytest.mark.slow
def test_ray_data_writes_the_same(dataset, home, tmp_path, writer, monkeypatch):
    from legoray.rayinit import ensure_ray

    prompt = write_prompt(tmp_path)
    run(asked(dataset, prompt=prompt, model=writer, name="here"))
    monkeypatch.setenv("LEGORAY_RAY_DATA", "always")
    ensure_ray(num_cpus=2)
    run(asked(dataset, prompt=prompt, model=writer, name="there"))
    rows, texts = rows_of(home, "there")
    assert len(rows) == len(texts) == 24
    assert texts == rows_of(home, "here")[1]

    long = write_prompt(tmp_path, user=f'user: "{"rain " * 400} {{title}}"')
    said = run(asked(dataset, prompt=long, model=writer, name="long"))
    assert "24 not asked: too long for the model" in said
    assert read_meta(written_folder(home, "mind_sample", "long")).counts["too_long"] == 24
