"""`legoray export`: which language model of which model, and what is said."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch
from made_models import ROWS, save_cnn, save_id, save_with
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast

from legoray import cli
from legoray.llm.store import states_of_texts
from legoray.model.io import load_model

WORDS = sorted({word for row in ROWS for text in row.values() for word in text.lower().split()})


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """The folder of a random two-layer BERT that knows the items' words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    folder = tmp_path_factory.mktemp("bert")
    names = ["[PAD]", "[UNK]", *WORDS]
    core = Tokenizer(models.WordLevel({w: n for n, w in enumerate(names)}, unk_token="[UNK]"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(names), intermediate_size=24, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    return str(folder)


def llm(model, **changes):
    return {"name": "llm", "model": model, "split": -1, "store": "float32", **changes}


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `legoray export <arguments>`: exit code, what it said, what it complained of."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["legoray", "export", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        told = capsys.readouterr()
        return int(caught.value.code or 0), told.out, told.err

    return run


@torch.no_grad()
def exported_vectors(model, folder, tokenizer):
    """By the head's own words, every text alone."""
    about = json.loads((folder / "head.json").read_text())
    head, found = load_file(folder / "head.safetensors"), []
    tokenizer = AutoTokenizer.from_pretrained(tokenizer)
    for row in ROWS:
        ids = tokenizer(about["template"].format(**row))["input_ids"][: about["length"]]
        states = model.eval()(input_ids=torch.tensor([ids])).last_hidden_state
        found.append(F.linear(states.mean(1), head["project.weight"], head["project.bias"])[0])
    return torch.stack(found)


@torch.no_grad()
def operators_vectors(operator, recipe):
    return operator(states_of_texts(recipe, ROWS).gather(torch.arange(1, len(ROWS) + 1)))


def test_adapters_of_a_models_folder(bert, tmp_path, command):
    model = save_with(tmp_path / "run" / "best", llm(bert))
    code, out, _ = command(tmp_path / "run", tmp_path / "out")  # of a trial, as recommend takes it
    assert code == 0
    assert "512 numbers of adapters trained above layer 1" in out
    assert "mean pooling, a projection to 8" in out
    loaded = load_model(model)
    about = json.loads((tmp_path / "out" / "head.json").read_text())
    assert about["model"] == bert
    wanted = {"part": "llm", "split": 1, "merged": False, "template": "{title}. {category}"}
    assert wanted.items() <= about.items()
    adapted = PeftModel.from_pretrained(AutoModel.from_pretrained(bert), tmp_path / "out")
    expected = operators_vectors(loaded.recommender.content, loaded.recipes.items)
    found = exported_vectors(adapted, tmp_path / "out", bert)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_other_weights_than_it_was_trained_on_are_told(bert, tmp_path, caplog):
    own = tmp_path / "bert"
    shutil.copytree(bert, own)
    model = save_with(tmp_path / "best", {"name": "hybrid", "text": llm(str(own))})
    load_model(model)
    assert caplog.text == ""
    (own / "tokenizer_config.json").write_text("{}")
    load_model(model)
    assert f"{model}: was trained on other files of {own}" in caplog.text
    assert "(other tokenizer)" in caplog.text
    weights = load_file(own / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] += 1
    save_file(weights, own / "model.safetensors", {"format": "pt"})
    load_model(model)
    assert "(other weights and tokenizer)" in caplog.text


@pytest.mark.parametrize("tune", ["full", "head"])
def test_a_merged_model_is_complete(bert, tmp_path, command, tune):
    model = save_with(tmp_path / "best", llm(bert, tune=tune, precision="bfloat16"))
    code, out, err = command(model, tmp_path / "out")
    assert code == 2
    assert "has no adapters" in err
    assert "--merge" in err
    code, out, _ = command(model, tmp_path / "out", "--merge")
    assert code == 0
    assert ("its own weights trained" if tune == "full" else "none trained") in out
    assert "trained on bfloat16 weights" in out
    assert f"model: {tmp_path / 'out'}" in out
    loaded = load_model(model)
    expected = operators_vectors(loaded.recommender.content, loaded.recipes.items)
    found = exported_vectors(AutoModel.from_pretrained(tmp_path / "out"), tmp_path / "out", bert)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


def test_a_language_model_inside_another_operator(bert, tmp_path, command):
    model = save_with(tmp_path / "best", {"name": "hybrid", "text": llm(bert)})
    code, out, _ = command(model, tmp_path / "out", "--merge")
    assert code == 0
    assert "the rest of 'hybrid' is not in it" in out
    loaded = load_model(model)
    recipe = loaded.recipes.items.parts[0]
    expected = operators_vectors(loaded.recommender.content.text, recipe)
    found = exported_vectors(
        AutoModel.from_pretrained(tmp_path / "out"), tmp_path / "out", tmp_path / "out"
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_one_of_several_language_models_is_named(bert, tmp_path, command):
    model = save_with(tmp_path / "best", {"name": "views", "encoder": llm(bert)})
    code, _, err = command(model, tmp_path / "out")
    assert code == 2
    assert "holds 2 language models: encoders.0, encoders.1" in err
    assert "such as --part encoders.0" in err
    code, _, err = command(model, tmp_path / "out", "--part", "encoder.1")
    assert code == 2
    assert "did you mean 'encoders.1'?" in err
    loaded = load_model(model)
    for number in (0, 1):
        folder = tmp_path / f"out{number}"
        assert command(model, folder, "--part", f"encoders.{number}", "--merge")[0] == 0
        expected = operators_vectors(
            loaded.recommender.content.encoders[number], loaded.recipes.items.parts[number]
        )
        found = exported_vectors(AutoModel.from_pretrained(folder), folder, bert)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_models_without_a_language_model_say_so(tmp_path, command):
    for model in (save_cnn(tmp_path / "cnn"), save_id(tmp_path / "id")):
        code, _, err = command(model, tmp_path / "out")
        assert code == 2
        assert f"'{model.name}' trains no language model" in err
    assert not (tmp_path / "out").exists()


def test_other_mistakes_are_one_message(bert, tmp_path, command, project):
    model = save_with(tmp_path / "best", llm(bert))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    code, _, err = command(model, tmp_path / "full")
    assert (code, "is there already" in err) == (2, True)
    code, _, err = command(tmp_path / "full", tmp_path / "out")
    assert (code, "is not a model's folder" in err) == (2, True)
    code, _, err = command("models:/nobody@champion", tmp_path / "out")
    assert (code, "there is no registered model 'nobody'" in err) == (2, True)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]
