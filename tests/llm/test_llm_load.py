"""Loading: once, frozen, quietly, and refusing what cannot be split."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from legoray.errors import InputError
from legoray.llm.load import facts, load_base, load_tokenizer, settle_quantized
from legoray.model.content.iisan import IisanConfig, IisanOperator
from legoray.model.content.llm import LlmConfig, LlmOperator


def test_the_facts_come_from_the_configuration_alone(tmp_path, tiny_llama):
    shutil.copy(f"{tiny_llama}/config.json", tmp_path)
    known = facts(str(tmp_path))
    assert (known.family, known.layers, known.hidden_size, known.positions) == ("llama", 3, 32, 64)
    assert facts("minilm").layers == 6


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "albert"}, "share one layer's weights"),
        ({"model_type": "t5"}, "encoder-decoder"),
        ({"model_type": "no-such-family"}, "transformers cannot read it"),
        ({}, "transformers cannot read it"),
        ({"model_type": "bert", "num_hidden_layers": "six"}, "config.json"),
    ],
)
def test_families_that_cannot_be_used_are_refused(tmp_path, config, said):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError) as caught:
        facts(str(tmp_path))
    assert said in str(caught.value)


def test_damaged_weights_are_an_input_error(tmp_path, tiny_bert):
    shutil.copytree(tiny_bert, tmp_path / "copy")
    file = tmp_path / "copy" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(InputError, match="cannot be loaded as a language model"):
        load_base(str(tmp_path / "copy"))


def test_weights_that_lack_a_layer_are_refused_not_filled_at_random(tmp_path, tiny_bert):
    shutil.copytree(tiny_bert, tmp_path / "copy")
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    config["num_hidden_layers"] += 1
    (tmp_path / "copy" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"lack 16 tensors, such as encoder\.layer\.3"):
        load_base(str(tmp_path / "copy"))


def test_a_damaged_tokenizer_is_an_input_error(tmp_path, tiny_bert):
    shutil.copytree(tiny_bert, tmp_path / "copy")
    (tmp_path / "copy" / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="its tokenizer cannot be loaded"):
        load_tokenizer(str(tmp_path / "copy"))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8", "nf4"])
def test_loading_is_shared_frozen_and_leaves_random_numbers_alone(tiny_bert, precision):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    base = load_base(tiny_bert, precision)
    assert torch.equal(torch.rand(1), expected)
    assert load_base(tiny_bert, precision) is base
    assert not any(p.requires_grad for p in base.model.parameters())
    kinds = {p.dtype for p in base.model.parameters()}
    assert (
        kinds
        == {
            "float32": {torch.float32},
            "bfloat16": {torch.bfloat16},
            "int8": {torch.float32, torch.int8},
            "nf4": {torch.float32, torch.uint8},
        }[precision]
    )


def test_a_model_that_changed_on_the_disk_is_loaded_again(tmp_path, tiny_bert, tiny_llama):
    shutil.copytree(tiny_bert, tmp_path / "copy")
    first = load_base(str(tmp_path / "copy"))
    shutil.copytree(tiny_llama, tmp_path / "copy", dirs_exist_ok=True)
    assert facts(str(tmp_path / "copy")).family == "llama"
    assert type(load_base(str(tmp_path / "copy")).model) is not type(first.model)


def test_loading_says_nothing(tiny_bert, capfd, recwarn):
    from legoray.llm.load import _load

    _load.cache_clear()
    for precision in ("bfloat16", "int8", "nf4"):
        load_base(tiny_bert, precision)
    load_tokenizer(tiny_bert)
    assert capfd.readouterr() == ("", "")
    assert not [w for w in recwarn if "bitsandbytes" in str(w.message)]


@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_quantized_layers_stay_on_one_path_in_both_modes(tiny_bert, precision):
    model = load_base(tiny_bert, precision).model
    ids = torch.arange(4, 12)[None]
    with torch.no_grad():
        training = settle_quantized(model.train().eval())(input_ids=ids).last_hidden_state
        again = settle_quantized(model.eval())(input_ids=ids).last_hidden_state
    assert torch.equal(training, again)
    kinds = {"Linear8bitLt", "Linear4bit"}
    quantized = [m for m in model.modules() if type(m).__name__ in kinds]
    assert quantized
    assert all(m.training for m in quantized)
    assert not model.training


def test_the_first_token_of_a_causal_model_is_not_read_as_the_text(tiny_bert, tiny_llama):
    said = "the first token, which sees none of the text"
    for kind, settings in ((LlmOperator, LlmConfig), (IisanOperator, IisanConfig)):
        for pooling in ("mean", "cls", "last"):
            for model, refused in ((tiny_bert, False), (tiny_llama, pooling == "cls")):
                config = settings(model=model, pooling=pooling, length=8)
                problems = " ".join(kind.problems(config, 8))
                assert (said in problems) == refused, (kind, pooling, model, problems)
