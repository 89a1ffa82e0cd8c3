"""A split model equals the whole one, for many families and at every layer."""

from __future__ import annotations

import copy

import pytest
import torch
from llm_cases import FAMILIES, LAYERS, random_model, relative_error
from torch import nn

from legoray.errors import InputError
from legoray.llm.load import _NOT_WITHOUT_LAYERS, load_base, load_tokenizer, settle_quantized
from legoray.llm.split import check_split, layers_of, lower_view, run_view, upper_view


def padded_batch(vocabulary=60):
    """Three texts of 9, 6 and 3 tokens."""
    ids = torch.randint(3, vocabulary, (3, 9))
    mask = torch.arange(9) < torch.tensor([9, 6, 3])[:, None]
    return ids, mask


@pytest.mark.parametrize("family", FAMILIES)
def test_every_split_of_a_random_model_equals_its_own_forward(family):
    model = random_model(family)
    ids, mask = padded_batch()
    with torch.no_grad():
        whole = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        for split in range(family in _NOT_WITHOUT_LAYERS, LAYERS + 1):
            states = run_view(lower_view(model, LAYERS, split), ids, mask)
            if split < LAYERS:
                states = run_view(upper_view(model, LAYERS, split), states, mask)
            assert relative_error(states[mask], whole[mask]) < 1e-6, split
    assert check_split(model, LAYERS, family) == whole.shape[-1]


@pytest.mark.parametrize("family", ["bert", "llama", "gpt2"])
def test_stretches_in_a_row_equal_the_whole(family):
    model = random_model(family)
    ids, mask = padded_batch()
    with torch.no_grad():
        states = run_view(lower_view(model, LAYERS, 0), ids, mask)
        for start in range(LAYERS):
            states = run_view(upper_view(model, LAYERS, start, start + 1), states, mask)
        whole = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    assert relative_error(states[mask], whole[mask]) < 1e-6


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8", "nf4"])
def test_every_split_of_the_real_model_equals_its_own_forward(precision):
    base = load_base("minilm", precision)
    tokenizer = load_tokenizer("minilm")
    given = tokenizer(
        ["Rain floods the harbour", "Goal!", "The striker scores twice in a late cup final"],
        padding=True,
        return_tensors="pt",
    )
    mask = given["attention_mask"].bool()
    with torch.no_grad():
        whole = base.model(**given).last_hidden_state
        for split in range(base.layers + 1):
            part = settle_quantized(lower_view(base.model, base.layers, split).eval())
            states = run_view(part, given["input_ids"], mask)
            if split < base.layers:
                part = settle_quantized(upper_view(base.model, base.layers, split).eval())
                states = run_view(part, states, mask)
            assert torch.equal(states[mask], whole[mask]), split


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_gradients_of_the_upper_layers_equal_the_whole_models(family):
    model = random_model(family)
    split = 1
    ids, mask = padded_batch()
    whole = copy.deepcopy(model)
    layers_of(whole, LAYERS)[:split].requires_grad_(False)
    target = torch.randn(3, 9, 32)
    loss = (whole(input_ids=ids, attention_mask=mask.long()).last_hidden_state * target)[mask].sum()
    loss.backward()
    with torch.no_grad():
        states = run_view(lower_view(model, LAYERS, split), ids, mask)
    upper = copy.deepcopy(upper_view(model, LAYERS, split))
    (run_view(upper, states, mask) * target)[mask].sum().backward()
    expected = dict(layers_of(whole, LAYERS)[split:].named_parameters())
    found = dict(layers_of(upper, LAYERS - split).named_parameters())
    assert found.keys() == expected.keys()
    for name, parameter in found.items():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-4, atol=1e-6)


def test_a_view_shares_its_layers_and_leaves_the_model_as_it_was():
    model = random_model("bert")
    ids, mask = padded_batch()
    with torch.no_grad():
        before = run_view(model, ids, mask)
        upper = upper_view(model, LAYERS, 2)
        assert layers_of(upper, 1)[0] is model.encoder.layer[2]
        assert sum(p.numel() for p in upper.parameters()) < 15_000  # no embeddings, no pooler
        assert torch.equal(run_view(model, ids, mask), before)
    assert model.config.num_hidden_layers == LAYERS
    assert isinstance(model.embeddings, nn.Module)
    assert model.pooler is not None


def test_a_family_that_the_views_are_wrong_for_is_refused():
    class Skips(nn.Module):
        """Its layers see the first layer's input too, which no split can know."""

        def __init__(self, model):
            super().__init__()
            self.config, self.inner = model.config, model

        def get_input_embeddings(self):
            return self.inner.get_input_embeddings()

        def forward(self, **given):
            output = self.inner(**given)
            if "input_ids" in given:
                output.last_hidden_state = output.last_hidden_state * 1.01
            return output

    with pytest.raises(InputError, match="cannot be split between its layers"):
        check_split(Skips(random_model("bert")), LAYERS, "odd")
    with pytest.raises(InputError, match="its list of 7 layers was not found"):
        check_split(random_model("bert"), 7, "odd")
