"""Adapters: which projections, what is trained, and what they compute."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from llm_cases import LAYERS, random_model

from legoray.llm.lora import (
    LoraSettings,
    adapters,
    add_lora,
    copy_into,
    projections,
    projections_of_family,
    resolve_targets,
)
from legoray.llm.split import layers_of


@pytest.mark.parametrize(
    ("family", "targets"),
    [
        ("bert", ["query", "value"]),
        ("distilbert", ["q_lin", "v_lin"]),
        ("mpnet", ["q", "v"]),
        ("modernbert", ["Wqkv"]),
        ("llama", ["q_proj", "v_proj"]),
        ("gpt2", ["c_attn"]),
        ("opt", ["q_proj", "v_proj"]),
    ],
)
def test_queries_and_values_are_adapted_by_default(family, targets):
    layers = layers_of(random_model(family), LAYERS)
    assert resolve_targets(projections(layers[0]), None) == targets
    add_lora(layers, LoraSettings(rank=2))
    trained = [n for n, p in layers.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * LAYERS * len(targets)
    assert all(".lora_" in name for name in trained)


def test_the_projections_are_known_from_the_configuration(tiny_bert, tiny_llama):
    assert projections_of_family(tiny_bert) == ["dense", "key", "query", "value"]
    assert projections_of_family("minilm") == ["dense", "key", "query", "value"]
    assert {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj"} < set(
        projections_of_family(tiny_llama)
    )


@pytest.mark.parametrize(
    ("targets", "said"),
    [(["querry"], "did you mean 'query'?"), (["zzz"], "known: dense, key"), ([], "is empty")],
)
def test_a_target_that_the_layers_lack_is_named(targets, said):
    with pytest.raises(ValueError, match="LoRA target") as caught:
        resolve_targets(["dense", "key", "query", "value"], targets)
    assert said in str(caught.value)


def test_an_adapter_adds_its_scaled_product():
    layers = layers_of(random_model("bert"), LAYERS)
    plain = copy.deepcopy(layers[0].attention.self.query)
    add_lora(layers, LoraSettings(rank=3, alpha=12.0, targets=["query"]))
    own = adapters(layers, 0)
    a, b = (own[f"layer.0.attention.self.query.lora_{x}.weight"] for x in "AB")
    assert a.shape == (3, 32)
    assert (b == 0).all()
    with torch.no_grad():
        b.normal_()
    x = torch.randn(5, 32)
    expected = plain(x) + 12 / 3 * x @ a.T @ b.T
    torch.testing.assert_close(layers[0].attention.self.query(x), expected)


def test_rslora_scales_by_the_root_of_the_rank():
    layers = layers_of(random_model("bert"), LAYERS)
    plain = copy.deepcopy(layers[0].attention.self.query)
    add_lora(layers, LoraSettings(rank=4, alpha=6.0, targets=["query"], rslora=True))
    own = adapters(layers, 0)
    a, b = (own[f"layer.0.attention.self.query.lora_{x}.weight"] for x in "AB")
    torch.nn.init.normal_(b)
    x = torch.randn(5, 32)
    expected = plain(x) + 6 / math.sqrt(4) * x @ a.T @ b.T
    torch.testing.assert_close(layers[0].attention.self.query(x), expected)


def test_dora_sets_the_length_of_each_row():
    layers = layers_of(random_model("bert"), LAYERS)
    plain = copy.deepcopy(layers[0].attention.self.query)
    add_lora(layers, LoraSettings(rank=3, alpha=12.0, targets=["query"], dora=True))
    query = layers[0].attention.self.query
    x = torch.randn(5, 32)
    torch.testing.assert_close(query(x), plain(x))  # nothing has changed before training
    own = adapters(layers, 0)
    place = "layer.0.attention.self.query.lora_"
    a, b = (own[f"{place}{name}.weight"] for name in "AB")
    length = own[f"{place}magnitude_vector.weight"]
    torch.nn.init.normal_(b)
    torch.nn.init.uniform_(length, 0.5, 2.0)
    rows = plain.weight + 12 / 3 * b @ a
    rows = torch.stack([m * row / row.norm() for m, row in zip(length, rows, strict=True)])
    expected = torch.nn.functional.linear(x, rows, plain.bias)
    torch.testing.assert_close(query(x), expected, atol=1e-5, rtol=1e-4)


def test_the_last_layers_alone_may_be_adapted():
    layers = layers_of(random_model("bert"), LAYERS)
    add_lora(layers, LoraSettings(rank=2, targets=["query"], layers=1))
    assert {name.split(".")[1] for name in adapters(layers, 4)} == {str(4 + LAYERS - 1)}
    with pytest.raises(ValueError, match=f"LoRA on 9 layers, but {LAYERS} are trained"):
        add_lora(layers_of(random_model("bert"), LAYERS), LoraSettings(layers=9))


def test_names_are_those_of_the_whole_models_layers():
    layers = layers_of(random_model("llama"), LAYERS)
    add_lora(layers, LoraSettings(rank=2, targets=["q_proj"]))
    names = list(adapters(layers, 5))
    assert names[0] == "layer.5.self_attn.q_proj.lora_A.weight"
    assert names[-1] == "layer.7.self_attn.q_proj.lora_B.weight"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "missing"),
        ({"a": torch.ones(2), "b": torch.ones(1)}, "unexpected"),
        ({"a": torch.ones(3)}, "expected"),
    ],
)
def test_tensors_that_do_not_fit_change_nothing(given, said):
    target = {"a": torch.zeros(2)}
    with pytest.raises(ValueError, match=said):
        copy_into(target, given)
    assert (target["a"] == 0).all()
