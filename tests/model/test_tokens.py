"""Token ids: what is a word, made once, shared, whole or refused."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from model_cases import ITEMS, N
from small_tables import write_items

from legoray.data import tokens
from legoray.data.recipes import IdRecipe, TokenRecipe
from legoray.data.tokenization import CHUNK, encode, word_tokenizer
from legoray.data.tokens import make_table, open_table, open_word_tokenizer
from legoray.errors import InputError
from legoray.model.features import IdFeatures, TokenFeatures, features_of_texts, open_features

BOTH = TokenRecipe("words", ("title", "abstract"), 6, 1)


def words(text):
    """A plain reading of the same rule: lower case, runs of letters and digits."""
    return "".join(c if c.isalnum() else " " for c in text.lower()).split()


@pytest.fixture
def own_tables(tmp_path):
    return write_items(tmp_path / "tables", ITEMS)


def test_words_are_lower_case_runs_of_letters_and_digits():
    tokenizer = word_tokenizer(["It's 3 O'CLOCK—naïve Ærø, हिन्दी!"])
    found = tokenizer.encode("IT'S 3 o'clock naïve ÆRØ हिन्दी").tokens
    assert found == ["it", "s", "3", "o", "clock", "naïve", "ærø", "हिन्दी"]


def test_padding_is_0_unknown_is_1_then_words_by_frequency():
    tokenizer = word_tokenizer(["b a b", "c b a"], min_count=2)
    assert tokenizer.get_vocab() == {"[PAD]": 0, "[UNK]": 1, "b": 2, "a": 3}
    assert tokenizer.encode("a x b").ids == [3, 1, 2]


def test_no_word_is_dropped_silently_from_a_large_vocabulary():
    texts = [f"w{n}" for n in range(40_000)]
    assert word_tokenizer(texts).get_vocab_size() == 40_002


def test_gathered_tokens_are_the_words_of_each_attribute_one_after_another(tables, tmp_path):
    features = open_features(BOTH, tables, tmp_path)
    found = features.gather(torch.arange(1, N + 1))
    name = {n: word for word, n in features.tokenizer.get_vocab().items()}
    for n, row in enumerate(ITEMS):
        parts = [words(row["title"])[:6], words(row["abstract"])[:6]]
        mask = found.mask[n]
        assert [name[i] for i in found.ids[n][mask].tolist()] == parts[0] + parts[1]
        assert found.attribute[n][mask].tolist() == [0] * len(parts[0]) + [1] * len(parts[1])
        assert mask.tolist() == sorted(mask.tolist(), reverse=True)  # padding only at the end
        assert (found.ids[n][~mask] == 0).all()
        assert (found.attribute[n][~mask] == 0).all()
    assert found.ids.shape[1] == features.lengths(torch.arange(1, N + 1)).max()


def test_the_width_is_the_longest_of_what_is_asked_for(tables, tmp_path):
    features = open_features(BOTH, tables, tmp_path)
    assert features.gather(torch.tensor([4])).ids.shape == (1, 1)
    assert features.gather(torch.tensor([3])).mask.tolist() == [[False]]  # no text: one column
    assert features.gather(torch.tensor([], dtype=torch.long)).ids.shape == (0, 1)
    assert features.lengths(torch.tensor([3, 4, 4])).tolist() == [0, 1, 1]
    assert (features.item_count, features.sizes.attributes) == (N + 1, 2)


def test_ids_are_their_own_features(tables, tmp_path):
    features = open_features(IdRecipe(), tables, tmp_path)
    assert isinstance(features, IdFeatures)
    assert features.item_count == N + 1
    assert features.gather(torch.tensor([3, 1])).tolist() == [3, 1]
    assert features.lengths(torch.tensor([3, 1])).tolist() == [1, 1]


def test_tokens_are_made_once_and_per_content(own_tables, tmp_path, monkeypatch):
    open_features(BOTH, own_tables, tmp_path)
    files = sorted((own_tables / "tokens").rglob("*.*"))
    assert len([f for f in files if f.suffix == ".safetensors"]) == 2
    with monkeypatch.context() as patch:
        patch.setattr(tokens, "build_tokens", lambda *a, **k: pytest.fail("made twice"))
        open_features(BOTH, own_tables, tmp_path)
    write_items(own_tables, [dict(row, title="New title") for row in ITEMS], fingerprint="0" * 64)
    fresh = open_features(TokenRecipe("words", ("title",), 6, 1), own_tables, tmp_path)
    assert fresh.lengths(torch.arange(1, N + 1)).tolist() == [2] * N


def test_many_processes_make_them_once(own_tables):
    code = (
        "import sys; from pathlib import Path; from legoray.data import tokens\n"
        "made = []; write, build = tokens._write, tokens.build_tokens\n"
        "tokens._write = lambda file, content: (made.append(file), write(file, content))\n"
        "tokens.build_tokens = lambda file, *a, **k: (made.append(file), build(file, *a, **k))\n"
        "tables = Path(sys.argv[1]); words = tokens.open_word_tokenizer(tables, ['title'], 1)\n"
        "tokens.open_table(tables, 'title', length=4, tokenizer=words, shift=0)\n"
        "print(len(made))"
    )
    command = [sys.executable, "-c", code, str(own_tables)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    counts = [int(process.communicate(timeout=120)[0]) for process in running]
    assert sum(counts) == 2  # the vocabulary and one table, whoever came first


def test_what_is_mapped_equals_what_is_made(own_tables):
    tokenizer = open_word_tokenizer(own_tables, ["title"], 1)
    mapped = open_table(own_tables, "title", length=6, tokenizer=tokenizer, shift=1)
    titles = [row["title"] for row in ITEMS]
    made = make_table(titles, length=6, tokenizer=tokenizer, shift=1)
    assert torch.equal(mapped.ids, made.ids)
    assert torch.equal(mapped.offsets, made.offsets)
    assert mapped.ids.min() > 1  # shifted: the first word's id is 3


def test_unknown_attributes_are_named_with_the_nearest(own_tables, tmp_path):
    recipe = TokenRecipe("words", ("titel", "body"), 6, 1)
    with pytest.raises(InputError) as error:
        open_features(recipe, own_tables, tmp_path)
    assert "no attribute 'titel' (did you mean 'title'?)" in str(error.value)
    assert "no attribute 'body'" in str(error.value)


def test_a_missing_value_is_refused(own_tables):
    file = own_tables / "items" / "part-00001.parquet"
    table = pq.read_table(file)
    titles = pa.array([None, *table["title"].to_pylist()[1:]], pa.string())
    pq.write_table(table.set_column(2, "title", titles), file)
    with pytest.raises(InputError, match=r"title: item 6 has no value"):
        open_word_tokenizer(own_tables, ["title"], 1)


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "other"])
def test_a_damaged_file_is_refused_with_advice(own_tables, tmp_path, damage):
    recipe = TokenRecipe("words", ("abstract",), 6, 1)
    open_features(recipe, own_tables, tmp_path)
    (file,) = (own_tables / "tokens").rglob("tokens.safetensors")
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[-3] ^= 1
    keep = {"truncate": content[:-9], "flip": content, "empty": b"", "other": b"not safetensors"}
    file.write_bytes(keep[damage])
    with pytest.raises(InputError, match=r"is damaged.*delete the folder"):
        open_features(recipe, own_tables, tmp_path)


def test_a_damaged_vocabulary_is_refused(own_tables, tmp_path):
    open_features(BOTH, own_tables, tmp_path)
    (file,) = (own_tables / "tokens").rglob("tokenizer.json")
    file.write_text("{}")
    with pytest.raises(InputError, match="is damaged"):
        open_features(BOTH, own_tables, tmp_path)


def test_a_folder_that_cannot_be_written_is_named(own_tables, tmp_path):
    (own_tables / "tokens").write_text("a file where a folder should be")
    with pytest.raises(InputError, match="cannot be written"):
        open_features(BOTH, own_tables, tmp_path)


def test_an_interrupted_writer_leaves_nothing_that_passes_for_whole(own_tables, monkeypatch):
    def broken(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", broken)
        with pytest.raises(KeyboardInterrupt):
            open_word_tokenizer(own_tables, ["title"], 1)
    left = [f for f in (own_tables / "tokens").rglob("*") if f.is_file() and f.name != ".lock"]
    assert left == []
    assert open_word_tokenizer(own_tables, ["title"], 1).get_vocab_size() > 10


def test_new_texts_are_read_as_the_data_set_s_were(tables, tmp_path):
    features = open_features(BOTH, tables, tmp_path)
    features.save_assets(tmp_path)
    again = features_of_texts(BOTH, tmp_path, ITEMS)
    items = torch.arange(1, N + 1)
    assert isinstance(again, TokenFeatures)
    assert again.sizes == features.sizes
    for name in ("ids", "mask", "attribute"):
        left, right = (getattr(f.gather(items), name) for f in (features, again))
        assert torch.equal(left, right)


@pytest.mark.parametrize(
    ("recipe", "rows", "expected"),
    [
        (IdRecipe(), [{"title": "x"}], "use a text model"),
        (BOTH, [{"title": "x", "abstract": "y"}, {"title": "x"}], "item 2: 'abstract' is missing"),
        (BOTH, [{"title": 3, "abstract": "y"}], "'title' is 3, not a text"),
    ],
)
def test_new_texts_that_cannot_be_read_are_refused(tables, tmp_path, recipe, rows, expected):
    open_features(BOTH, tables, tmp_path).save_assets(tmp_path)
    with pytest.raises(InputError, match=expected):
        features_of_texts(recipe, tmp_path, rows)


def test_a_model_folder_without_its_tokenizer_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        features_of_texts(BOTH, tmp_path, ITEMS)


def test_chunks_join_to_the_same_ids():
    texts = [f"a b{n % 7} c"[: n % 9] for n in range(CHUNK + 5)]
    tokenizer = word_tokenizer(texts)
    counts, ids = encode(texts, length=2, tokenizer=tokenizer)
    assert counts.tolist() == [min(len(words(text)), 2) for text in texts]
    assert ids[-2:].tolist() == tokenizer.encode(texts[-1]).ids[:2]
    assert encode([], length=2, tokenizer=tokenizer)[0].tolist() == []


def test_gathering_a_thousand_items_takes_little_time():
    texts = [" ".join(f"w{(n * k) % 500}" for k in range(5 + n % 25)) for n in range(5000)]
    tokenizer = word_tokenizer(texts[:200])
    table = make_table(texts, length=30, tokenizer=tokenizer, shift=0)
    features = TokenFeatures([table, table], tokenizer, 0)
    items = torch.randint(1, 5001, (1000,))
    times = []
    for _ in range(20):
        start = time.perf_counter()
        features.gather(items)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.02  # about a tenth of that on an idle core
