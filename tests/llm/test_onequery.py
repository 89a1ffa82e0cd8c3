import copy

import pytest
import torch
from llm_cases import FAMILIES, LAYERS, random_model

from legoray.llm.lora import LoraSettings, add_lora
from legoray.llm.onequery import fits, one_query
from legoray.llm.split import layers_of, run_view, upper_view

BERT_LIKE = {"bert", "roberta", "electra", "xlm-roberta"}


def last_layer(family):
    model = random_model(family)
    view = copy.deepcopy(upper_view(model, LAYERS, LAYERS - 1))
    return view, layers_of(view, 1)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_only_layers_of_berts_build_are_taken(family):
    assert fits(last_layer(family)[1]) == (family in BERT_LIKE)


@pytest.mark.parametrize("family", sorted(BERT_LIKE))
@pytest.mark.parametrize("masked", [False, True])
def test_it_equals_the_librarys_forward_and_its_gradient(family, masked):
    view, layer = last_layer(family)
    add_lora(layers_of(view, 1), LoraSettings(rank=2, dropout=0.0))
    for name, parameter in layer.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([6, 2, 4]) if masked else torch.tensor([6, 6, 6])
    mask = torch.arange(6) < lengths[:, None]
    hidden = torch.randn(3, 6, 32, generator=torch.Generator().manual_seed(2))
    at = torch.tensor([0, 1, 3])
    trained = [p for p in layer.parameters() if p.requires_grad]
    assert trained
    plain = run_view(view, hidden, mask if masked else None)[torch.arange(3), at]
    one = one_query(layer, hidden, mask if masked else None, at)
    torch.testing.assert_close(one, plain, rtol=1e-5, atol=1e-5)
    expected = torch.autograd.grad(plain.square().sum(), trained)
    found = torch.autograd.grad(one.square().sum(), trained)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_dropout_is_put_back():
    _, layer = last_layer("bert")
    layer.train()
    assert fits(layer)
    assert all(module.training for module in layer.modules())
