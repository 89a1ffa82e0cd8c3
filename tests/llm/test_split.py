"""A split model equals the whole one, for many families and at every layer."""

from __future__ import annotations

import copy

import pytest
import torch
from llm_cases import FAMILIES, LAYERS, VARIANTS, built, random_model, relative_error, settings
from torch import nn

from legoray.errors import InputError
from legoray.llm.load import _NOT_WITHOUT_LAYERS, facts, load_base, load_tokenizer, settle_quantized
from legoray.llm.split import layers_of, lower_view, run_view, text_part, upper_view
from legoray.llm.splitcheck import REFUSED, check_split

ALL = [*FAMILIES, *VARIANTS]


def padded_batch(vocabulary=60):
    """Three texts of 9, 6 and 3 tokens."""
    ids = torch.randint(3, vocabulary, (3, 9))
    mask = torch.arange(9) < torch.tensor([9, 6, 3])[:, None]
    return ids, mask


@pytest.mark.parametrize("family", ALL)
def test_every_split_of_a_random_model_equals_its_own_forward(family):
    """In a padded batch with its mask, and in a bucket of one length without one."""
    model = random_model(family)
    ids, mask = padded_batch()
    lowest = int(family in _NOT_WITHOUT_LAYERS)
    for given in (mask, None):
        with torch.no_grad():
            known = None if given is None else given.long()
            whole = model(input_ids=ids, attention_mask=known).last_hidden_state
            for split in range(lowest, LAYERS + 1):
                states = run_view(lower_view(model, LAYERS, split), ids, given)
                if split < LAYERS:
                    states = run_view(upper_view(model, LAYERS, split), states, given)
                rows = mask if given is not None else torch.ones_like(mask)
                assert relative_error(states[rows], whole[rows]) < 1e-6, (split, given is None)
    assert check_split(model, LAYERS, family, lowest=lowest) == whole.shape[-1]


@pytest.mark.parametrize("family", ALL)
def test_texts_that_were_stored_alone_and_padded_later_equal_the_whole_forward(family):
    """As the store and the operator do it: no mask below, zeros and a mask above."""
    model = random_model(family)
    ids, mask = padded_batch()
    lengths = mask.sum(dim=1).tolist()
    lower, upper = lower_view(model, LAYERS, 2), upper_view(model, LAYERS, 2)
    with torch.no_grad():
        stored = torch.zeros(3, 9, 32)
        for row, length in enumerate(lengths):
            stored[row, :length] = run_view(lower, ids[row : row + 1, :length], None)
        found = run_view(upper, stored, mask)
        for row, length in enumerate(lengths):
            alone = model(input_ids=ids[row : row + 1, :length]).last_hidden_state[0]
            assert relative_error(found[row, :length], alone) < 1e-5, row


WINDOWS = {
    "mistral": 4,
    "phi3-window": 4,
    "qwen2-window": 4,
    "gemma2": 4,
    "gemma3_text": 4,
    "embedding-gemma": 4,
    "cohere2": 4,
    "starcoder2": 4,
    "olmo3": 4,
    "modernbert": 4,
    "gpt_neo": 4,
    "mixtral": 4,
    "gpt_oss": 4,
}


@pytest.mark.parametrize("family", WINDOWS)
def test_the_windows_of_these_tests_are_shorter_than_their_texts(family):
    """Else a window that a split forgets would not show: the model without one differs."""
    model = random_model(family)
    names = {"modernbert": "local_attention", "gpt_neo": "window_size"}
    wide = random_model(family, **{names.get(family, "sliding_window"): 64})
    wide.load_state_dict(model.state_dict())
    ids, _ = padded_batch()
    with torch.no_grad():
        narrow, all_seen = (m(input_ids=ids).last_hidden_state for m in (model, wide))
    assert relative_error(narrow, all_seen) > 1e-5


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


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
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


@pytest.mark.parametrize("family", ALL)
def test_gradients_of_the_upper_layers_equal_the_whole_models(family, tmp_path):
    """The lower states come from a file in float32, as a store of that type gives them."""
    model = random_model(family)
    split = 1
    ids, mask = padded_batch()
    whole = copy.deepcopy(model)
    layers_of(whole, LAYERS)[:split].requires_grad_(False)
    target = torch.randn(3, 9, model(input_ids=ids).last_hidden_state.shape[-1])
    loss = (whole(input_ids=ids, attention_mask=mask.long()).last_hidden_state * target)[mask].sum()
    loss.backward()
    with torch.no_grad():
        states = run_view(lower_view(model, LAYERS, split), ids, mask)
    states.numpy().tofile(tmp_path / "states")
    stored = torch.from_file(str(tmp_path / "states"), size=states.numel()).view(states.shape)
    assert not stored.requires_grad
    upper = copy.deepcopy(upper_view(model, LAYERS, split))
    (run_view(upper, stored, mask) * target)[mask].sum().backward()
    expected = dict(layers_of(whole, LAYERS)[split:].named_parameters())
    found = dict(layers_of(upper, LAYERS - split).named_parameters())
    assert found.keys() == expected.keys()
    reached = {name for name, parameter in expected.items() if parameter.grad is not None}
    assert {name for name, parameter in found.items() if parameter.grad is not None} == reached
    assert len(reached) > len(found) / 2
    for name in reached:
        scale = expected[name].grad.abs().max().item()
        torch.testing.assert_close(
            found[name].grad, expected[name].grad, rtol=1e-4, atol=1e-5 * max(scale, 1e-3)
        )


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


_T5 = {"d_model": 32, "num_layers": 3, "num_heads": 4, "d_kv": 8, "d_ff": 64}
_XLM = {"emb_dim": 32, "n_layers": 3, "n_heads": 4}
# kinds that cannot be split: what they need beside SMALL, and what is said of them
OTHERS = {
    "albert": ({"embedding_size": 16}, "share one layer's weights"),
    "t5": (_T5, "is an encoder-decoder"),
    "mt5": (_T5, "is an encoder-decoder"),
    "t5gemma": ({}, "is an encoder-decoder"),
    "bart": ({"d_model": 32, "encoder_layers": 3, "decoder_layers": 3}, "is an encoder-decoder"),
    "whisper": ({"d_model": 48, "encoder_layers": 3, "decoder_layers": 3}, "an encoder-decoder"),
    "rwkv": ({"attention_hidden_size": 32}, "scale their states"),
    "reformer": ({"attn_layers": ["local"] * 3, "axial_pos_embds": False}, "two states"),
    "perceiver": ({"d_model": 32, "d_latents": 32, "num_latents": 4}, "latent vectors"),
    "canine": ({}, "shorten the text"),
    "funnel": (None, "shorten the text"),
    "xlnet": (None, "carry two states"),
    "longformer": ({"attention_window": [4, 4, 4]}, "their window"),
    "big_bird": ({}, "with the length of the text"),
    "fnet": ({}, "mix the padding"),
    "nystromformer": ({}, "mix the padding"),
    "xmod": ({"languages": ["en_XX"]}, "language of each text"),
    "gemma3n_text": (None, "an embedding of its own"),
    "vit": (None, "has no vocabulary"),
    "resnet": (None, "is not a transformer language model"),
    "xlm": (_XLM, "its list of 3 layers was not found"),
    "flaubert": (_XLM, "its list of 3 layers was not found"),
    "ctrl": ({"n_embd": 32, "n_layer": 3, "n_head": 4, "dff": 64}, "cannot be split between"),
    "recurrent_gemma": ({"num_key_value_heads": 2, "lru_width": 32}, "cannot be split between"),
    "nanochat": ({"num_key_value_heads": 2}, "cannot be split between"),
    "esm": ({}, "cannot be split between"),
    "ibert": ({}, "cannot be split between"),
    "clip_text_model": ({}, "cannot be split between"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_cannot_be_split_says_why(kind, tmp_path):
    """Before its weights are read, where its kind is enough to know; else when they are."""
    from transformers import AutoConfig

    own, said = OTHERS[kind]
    config = AutoConfig.for_model(kind) if own is None else settings(kind, **own)
    config.save_pretrained(tmp_path)

    def load():
        facts(str(tmp_path))
        check_split(built(config), LAYERS, kind)

    with pytest.raises(InputError, match=said) as caught:
        load()
    assert "\n" not in str(caught.value)
    assert kind in str(caught.value)


def test_every_refused_family_is_among_them():
    assert set(REFUSED) <= {*OTHERS, "gemma4_text"}


@pytest.mark.parametrize("family", ["qwen3_vl", "gemma3", "llama4"])
def test_the_language_model_within_one_of_images_is_split(family):
    model = built(with_images(family))
    part = text_part(model)
    layers = part.config.num_hidden_layers
    assert check_split(part, layers, family) == 32
    ids, mask = padded_batch()
    with torch.no_grad():
        given = {"input_ids": ids, "attention_mask": mask.long()}
        whole = model(**given, output_hidden_states=True).hidden_states[-1]
        states = run_view(lower_view(part, layers, 1), ids, mask)
        states = run_view(upper_view(part, layers, 1), states, mask)
    assert relative_error(states[mask], whole[mask]) < 1e-6
    assert sum(p.numel() for p in part.parameters()) < sum(p.numel() for p in model.parameters())


def with_images(family):
    """The configuration of a small model of images and texts."""
    from transformers import AutoConfig

    text = settings("gemma3_text" if family == "gemma3" else "qwen3").to_dict()
    text["model_type"] = f"{family}_text"
    eyes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "depth": 1}
    eyes |= {"num_attention_heads": 2, "num_heads": 2, "image_size": 28, "patch_size": 14}
    return AutoConfig.for_model(family, text_config=text, vision_config=eyes)
