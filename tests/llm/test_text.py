"""Templates, and the tokens of filled-in texts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from llm_cases import word_tokenizer

from legoray.errors import InputError
from legoray.llm.text import (
    check_attributes,
    default_template,
    encode,
    render,
    template_attributes,
    texts_fingerprint,
)


def test_the_default_template_joins_the_text_attributes_as_sentences():
    assert default_template(["title"]) == "{title}"
    assert default_template(["title", "abstract"]) == "{title}. {abstract}"


def test_a_template_is_filled_in_row_by_row():
    columns = {"title": ["Rain", " Sun \n shines", None], "title-short": ["R", "", "x{y}"]}
    texts = render("{{News}} {title} ({title-short})", columns)
    assert texts.to_pylist() == ["{News} Rain (R)", "{News} Sun shines ()", "{News} (x{y})"]
    assert template_attributes("{title} {title-short} {title}") == ["title", "title-short"]


def test_an_empty_last_attribute_leaves_no_white_space():
    texts = render("{title}. {abstract}", {"title": ["Rain"], "abstract": [""]})
    assert texts.to_pylist() == ["Rain."]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{title", "not well formed"),
        ("title}", "not well formed"),
        ("just words", "names no attribute"),
        ("", "names no attribute"),
        ("{}", "an attribute's name alone"),
        ("{title:>30}", "an attribute's name alone"),
        ("{title!r}", "an attribute's name alone"),
        ("{title.upper}", "an attribute's name alone"),
        ("{titel}", "did you mean 'title'?"),
        ("{title} {zzz}", "known: category, title"),
    ],
)
def test_a_wrong_template_is_named(template, said):
    with pytest.raises(InputError) as caught:
        check_attributes(template, ["title", "category"], "here")
    assert said in str(caught.value)
    assert str(caught.value).startswith("here: ")


def test_every_unknown_attribute_is_reported_at_once():
    with pytest.raises(InputError) as caught:
        check_attributes("{a} {b} {title}", ["title"])
    assert len(caught.value.problems) == 2


def test_the_fingerprint_sees_where_a_text_ends():
    one = render("{t}", {"t": ["ab", "c"]})
    assert texts_fingerprint(one) == texts_fingerprint(render("{t}", {"t": ["ab", "c"]}))
    others = (["a", "bc"], ["ab", "d"], ["abc"], ["c", "ab"])
    found = {texts_fingerprint(render("{t}", {"t": other})) for other in others}
    assert len(found) == 4
    assert texts_fingerprint(one) not in found


@pytest.mark.parametrize("special", [True, False])
def test_tokens_are_those_of_the_tokenizer_and_never_none_at_all(special):
    tokenizer = word_tokenizer(special=special)
    texts = ["Rain floods the harbour town", "", "Markets"]
    encoded = encode(tokenizer, render("{t}", {"t": texts}), 4)
    for row, text in enumerate(texts):
        found = encoded.ids[encoded.offsets[row] : encoded.offsets[row + 1]].tolist()
        assert found == (tokenizer(text, truncation=True, max_length=4)["input_ids"] or [0])
    assert encoded.lengths.tolist() == ([4, 2, 3] if special else [4, 1, 1])
    assert len(encode(tokenizer, render("{t}", {"t": []}), 4).ids) == 0


def test_threads_may_cut_with_one_tokenizer():
    tokenizer, texts = word_tokenizer(), pa.array(["rain floods the harbour town again"] * 2_000)
    with ThreadPoolExecutor(3) as pool:
        lengths = [3, 5, 7] * 6
        found = pool.map(lambda length: encode(tokenizer, texts, length).lengths, lengths)
        assert [set(one.tolist()) for one in found] == [{length} for length in lengths]


@pytest.mark.parametrize("set_before", [False, True])
def test_a_tokenizer_is_afterwards_as_it_was(set_before):
    tokenizer = word_tokenizer()
    if set_before:
        tokenizer.backend_tokenizer.enable_truncation(max_length=9, strategy="only_first")
        tokenizer.backend_tokenizer.enable_padding(length=4, pad_to_multiple_of=2)
    before = tokenizer.backend_tokenizer.to_str()
    found = encode(tokenizer, pa.array(["rain floods the harbour", "rain"]), 4)
    assert found.lengths.tolist() == [4, 3]
    assert tokenizer.backend_tokenizer.to_str() == before
