"""Exported folders, read by transformers and PEFT alone, give the operator's vectors."""

from __future__ import annotations

import json
import stat

import pytest
import torch
from llm_cases import ITEMS, write_model
from peft import PeftModel
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from legoray.config import build
from legoray.errors import InputError
from legoray.llm.catalogue import locate
from legoray.llm.export import Trained, check_target, export_adapters, export_merged
from legoray.llm.load import load_base
from legoray.llm.store import states_of_texts
from legoray.model.base import Shape
from legoray.model.content.llm import LlmConfig, LlmOperator

ALL = torch.arange(1, len(ITEMS) + 1)
SHAPE = Shape(hidden_size=8, item_count=len(ITEMS) + 1)
TEMPLATE = "{title}, {category}"
DORA = {"rank": 3, "dora": True, "alpha": 6}
RSLORA = {"rank": 4, "rslora": True, "alpha": 5, "dropout": 0.2}


def trained_operator(model, **changes):
    """An operator all of whose trained numbers moved, and what is to be exported of it."""
    given = {"model": model, "store": "float32", "template": TEMPLATE, "length": 9, **changes}
    config = build(LlmConfig, given)
    torch.manual_seed(5)
    operator = LlmOperator(config, SHAPE).eval()
    with torch.no_grad():
        for name, tensor in operator.saved_state().items():
            # DoRA's magnitudes stand for lengths: they stay near where they were
            tensor.add_(torch.randn_like(tensor) * (0.02 if "magnitude" in name else 0.1))
    about = {"pooling": config.pooling, "template": TEMPLATE, "length": config.length}
    return operator, Trained(model, config.lora, operator.saved_state(), about)


def vectors_of(operator):
    recipe = LlmOperator.recipe(operator.config, ("title",))
    with torch.no_grad():
        return operator(states_of_texts(recipe, ITEMS).gather(ALL))


@torch.no_grad()
def vectors_by_hand(model, tokenizer, folder):
    """By the exported head's own words, every text alone."""
    about = json.loads((folder / "head.json").read_text())
    head, found = load_file(folder / "head.safetensors"), []
    for row in ITEMS:
        text = about["template"].replace("{title}", row["title"])
        text = text.replace("{category}", row["category"])
        ids = tokenizer(text, truncation=True, max_length=about["length"])["input_ids"] or [0]
        states = model.eval()(input_ids=torch.tensor([ids])).last_hidden_state[0]
        pooled = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[about["pooling"]]
        found.append(F.linear(pooled, head["project.weight"], head["project.bias"]))
    return torch.stack(found)


CASES = [
    ("tiny_bert", {"split": 1}),
    ("tiny_bert", {"split": 0, "lora": DORA, "pooling": "cls"}),
    ("tiny_bert", {"split": -1, "lora": {"targets": ["query", "dense"]}}),
    ("tiny_llama", {"split": -2, "lora": RSLORA, "pooling": "last"}),
    ("tiny_llama", {"split": 0, "lora": {**DORA, "layers": 2, "rslora": True}}),
]


@pytest.mark.parametrize(("model", "changes"), CASES)
def test_adapters_and_merged_weights_give_the_operators_vectors(request, tmp_path, model, changes):
    name = request.getfixturevalue(model)
    operator, trained = trained_operator(name, **changes)
    expected = vectors_of(operator)
    tokenizer = AutoTokenizer.from_pretrained(name)
    fresh = LlmOperator(operator.config, SHAPE).eval()
    fresh.project.load_state_dict(operator.project.state_dict())
    assert float((vectors_of(fresh) - expected).abs().max()) > 1e-2  # the adapters do matter

    export_adapters(trained, tmp_path / "adapters")
    assert {p.name for p in (tmp_path / "adapters").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "head.json", "head.safetensors",
    }  # fmt: skip
    base = AutoModel.from_pretrained(name, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, tmp_path / "adapters")
    found = vectors_by_hand(adapted, tokenizer, tmp_path / "adapters")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)

    export_merged(trained, tmp_path / "merged")
    merged, loading = AutoModel.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    own = AutoTokenizer.from_pretrained(tmp_path / "merged")
    found = vectors_by_hand(merged, own, tmp_path / "merged")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    plain = {"model": str(tmp_path / "merged"), "tune": "head", "lora": None}
    again = LlmOperator(operator.config.model_copy(update=plain), SHAPE).eval()
    again.project.load_state_dict(operator.project.state_dict())
    torch.testing.assert_close(vectors_of(again), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "distilbert", "phi3"])
def test_other_families_layers_are_found(tmp_path, family):
    name = write_model(tmp_path / "base", family)
    operator, trained = trained_operator(name, split=1)
    export_adapters(trained, tmp_path / "adapters")
    base = AutoModel.from_pretrained(name, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, tmp_path / "adapters")
    tokenizer = AutoTokenizer.from_pretrained(name)
    expected = vectors_of(operator)
    for model, folder in ((adapted, "adapters"), (None, "merged")):
        if model is None:
            export_merged(trained, tmp_path / folder)
            model = AutoModel.from_pretrained(tmp_path / folder)
        found = vectors_by_hand(model, tokenizer, tmp_path / folder)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tune", ["full", "head"])
def test_what_has_no_adapters_is_written_whole(tiny_bert, tmp_path, tune):
    operator, trained = trained_operator(tiny_bert, split=1, tune=tune)
    said = "trained whole" if tune == "full" else "only its head was"
    with pytest.raises(InputError, match=said):
        export_adapters(trained, tmp_path / "adapters")
    assert not any(tmp_path.iterdir())
    export_merged(trained, tmp_path / "merged")
    model = AutoModel.from_pretrained(tmp_path / "merged")
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    found = vectors_by_hand(model, tokenizer, tmp_path / "merged")
    torch.testing.assert_close(found, vectors_of(operator), rtol=1e-4, atol=1e-4)


def test_adapters_of_quantized_weights_are_merged_into_float32_ones(tiny_bert, tmp_path):
    _, trained = trained_operator(tiny_bert, split=1, precision="int8")
    export_merged(trained, tmp_path / "merged")
    content = load_file(tmp_path / "merged" / "model.safetensors")
    assert {tensor.dtype for tensor in content.values()} == {torch.float32}
    base = load_file(locate(tiny_bert).folder / "model.safetensors")
    layers = [f"encoder.layer.{n}.attention.self" for n in (1, 2)]
    adapted = {f"{own}.{part}.weight" for own in layers for part in ("query", "value")}
    for name, tensor in content.items():
        if name not in adapted:
            assert torch.equal(tensor, base[name]), name
            continue
        # W + (alpha / r) B A, by hand
        own = name.replace("encoder.layer", "layer").removesuffix(".weight")
        a, b = (trained.state[f"{own}.lora_{part}.weight"] for part in "AB")
        torch.testing.assert_close(tensor, base[name] + 16 / 8 * b @ a, rtol=1e-5, atol=1e-6)
    exact, _ = trained_operator(tiny_bert, split=1)
    exact.load_saved_state(trained.state)
    model = AutoModel.from_pretrained(tmp_path / "merged")
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    found = vectors_by_hand(model, tokenizer, tmp_path / "merged")
    torch.testing.assert_close(found, vectors_of(exact), rtol=1e-4, atol=1e-4)


def test_the_shared_model_stays_as_it_is(tiny_bert, tmp_path):
    operator, trained = trained_operator(tiny_bert, split=1)
    before = vectors_of(operator)
    export_merged(trained, tmp_path / "merged")
    other, _ = trained_operator(tiny_bert, split=1)
    other.load_saved_state(trained.state)
    assert torch.equal(vectors_of(other), before)


def test_nothing_is_written_over_and_all_may_be_read(tiny_bert, tmp_path):
    _, trained = trained_operator(tiny_bert, split=1)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    for taken in ("file", "full"):
        with pytest.raises(InputError, match="is there already"):
            export_adapters(trained, tmp_path / taken)
    check_target(tmp_path / "new")
    export_adapters(trained, tmp_path / "empty")
    assert stat.S_IMODE((tmp_path / "empty").stat().st_mode) == 0o755
    modes = {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "empty").iterdir()}
    assert modes == {0o644}
    with pytest.raises(InputError, match="cannot be written"):
        export_adapters(trained, tmp_path / "file" / "below")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "full"]


def test_real_minilm(tmp_path):
    operator, trained = trained_operator("minilm", lora={"rank": 4, "rslora": True})
    expected = vectors_of(operator)
    folder = locate("minilm").folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    export_adapters(trained, tmp_path / "adapters")
    settings = json.loads((tmp_path / "adapters" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "sentence-transformers/all-MiniLM-L6-v2"
    base = AutoModel.from_pretrained(folder, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, tmp_path / "adapters")
    found = vectors_by_hand(adapted, tokenizer, tmp_path / "adapters")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    export_merged(trained, tmp_path / "merged")
    merged = AutoModel.from_pretrained(tmp_path / "merged")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    found = vectors_by_hand(merged, tokenizer, tmp_path / "merged")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "shared"),
    [
        ("mpnet", "encoder.relative_attention_bias.weight"),
        ("deberta-v2", "encoder.rel_embeddings.weight"),
        ("roformer", "encoder.embed_positions.weight"),
    ],
)
@pytest.mark.parametrize("split", [1, 2])
def test_what_all_layers_share_is_as_it_was(tmp_path, family, shared, split):
    name = write_model(tmp_path / "model", family)
    operator, trained = trained_operator(name, split=split, tune="full")
    assert f"model.{shared}" not in trained.state
    assert any(key.startswith("model.encoder.layer.2.") for key in trained.state)
    export_merged(trained, tmp_path / "out")
    merged = AutoModel.from_pretrained(tmp_path / "out")
    assert torch.equal(merged.get_parameter(shared), load_base(name).model.get_parameter(shared))
    found = vectors_by_hand(
        merged, AutoTokenizer.from_pretrained(tmp_path / "out"), tmp_path / "out"
    )
    torch.testing.assert_close(found, vectors_of(operator), rtol=1e-4, atol=1e-4)
