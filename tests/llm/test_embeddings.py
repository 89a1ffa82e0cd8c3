"""The input embeddings of a language model, read alone, against the whole model's."""

from __future__ import annotations

import pytest
import torch
from llm_cases import FAMILIES, random_model, write_model

from legoray.errors import InputError
from legoray.llm.embeddings import input_embeddings, word_embeddings
from legoray.llm.load import load_tokenizer


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_has_its_own_table(tmp_path, family):
    folder = write_model(tmp_path / family, family)
    own = random_model(family).get_input_embeddings().weight
    assert torch.equal(input_embeddings(folder), own)


def test_a_model_with_a_head_and_in_several_files(tmp_path):
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, num_key_value_heads=2,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="8KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    found = input_embeddings(str(tmp_path))
    assert found.dtype == torch.float32
    assert torch.equal(found, model.get_input_embeddings().weight.float())


def test_reading_them_moves_no_random_numbers(tiny_bert):
    before = torch.get_rng_state()
    input_embeddings(tiny_bert)
    assert torch.equal(before, torch.get_rng_state())


def test_damaged_weights_are_named(tmp_path):
    folder = write_model(tmp_path / "bert", "bert")
    file = tmp_path / "bert" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match=r"bert: its weights cannot be read"):
        input_embeddings(folder)


def byte_tokenizer(folder):
    """Byte pairs as GPT-2 has them, with some whole words, each after a space or not."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = list("Ġrainsted")
    merges = [("r", "a"), ("i", "n"), ("ra", "in"), ("Ġ", "rain"), ("e", "d")]
    tokens = dict.fromkeys(letters + ["".join(pair) for pair in merges])
    vocabulary = {token: number for number, token in enumerate(tokens)}
    core = Tokenizer(models.BPE(vocabulary, merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=core).save_pretrained(folder)
    return vocabulary


def test_words_are_read_as_they_stand_within_a_text(tmp_path):
    random_model("gpt2").save_pretrained(tmp_path)
    vocabulary = byte_tokenizer(tmp_path)
    table = input_embeddings(str(tmp_path))
    found = word_embeddings(str(tmp_path), ["rain", "rained", "train"])
    pieces = {"rain": ["Ġrain"], "rained": ["Ġrain", "ed"], "train": ["t", "rain"]}
    assert found.place.tolist() == [0, 1, 2]
    for vector, own in zip(found.vectors, pieces.values(), strict=True):
        expected = sum(table[vocabulary[piece]] for piece in own) / len(own)
        torch.testing.assert_close(torch.from_numpy(vector), expected)


def test_no_words_and_unknown_words(tiny_bert):
    width = input_embeddings(tiny_bert).shape[1]
    assert word_embeddings(tiny_bert, []).vectors.shape == (0, width)
    assert word_embeddings(tiny_bert, ["unheard"]).vectors.shape == (0, width)
    found = word_embeddings(tiny_bert, ["unheard", "rain"])
    assert found.place.tolist() == [1]
    number = load_tokenizer(tiny_bert).convert_tokens_to_ids("rain")
    assert torch.equal(torch.from_numpy(found.vectors[0]), input_embeddings(tiny_bert)[number])
