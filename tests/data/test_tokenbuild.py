"""Tokens made unit by unit: the same as at once, and an interruption loses little."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from small_tables import write_items

from legoray.data import tokenbuild
from legoray.data.tokenbuild import build_tokens
from legoray.data.tokenization import text_units, word_tokenizer
from legoray.data.tokens import make_table, open_table
from legoray.errors import InputError

TEXTS = [" ".join(f"w{(n * k) % 41}" for k in range(n % 6)) for n in range(100)]
TOKENIZER = word_tokenizer(TEXTS)


def units_of(folder, group):
    """The texts in two files of small row groups."""
    files = [folder / "a.parquet", folder / "b.parquet"]
    numbers = np.arange(1, 101, dtype=np.int32)
    for file, some in zip(files, (slice(0, 63), slice(63, 100)), strict=True):
        table = pa.table({"item_id": numbers[some], "title": TEXTS[some]})
        pq.write_table(table, file, row_group_size=group)
    return text_units(files, "title", "item_id")


def built(folder, units):
    file = folder / "tokens" / "tokens.safetensors"
    file.parent.mkdir(exist_ok=True)
    build_tokens(file, units, {"kind": "tést"}, length=4, tokenizer=TOKENIZER, shift=1)
    return file


@pytest.mark.parametrize("group", [1, 7, 100])
def test_units_of_any_size_give_the_same_file(tmp_path, group):
    from safetensors.torch import load_file

    file = built(tmp_path, units_of(tmp_path, group))
    found = load_file(file)
    expected = make_table(TEXTS, length=4, tokenizer=TOKENIZER, shift=1)
    assert torch.equal(found["ids"], expected.ids)
    assert torch.equal(found["offsets"], expected.offsets)
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("left", ["whole units", "half a unit", "ids alone", "too few ids"])
def test_who_is_interrupted_goes_on(tmp_path, monkeypatch, left):
    units = units_of(tmp_path, 10)
    whole = built(tmp_path, units).read_bytes()
    (tmp_path / "tokens/tokens.safetensors").unlink()
    asked = []
    encode = tokenbuild.encode_units

    def interrupted(some, **options):
        asked.append(len(some))
        for number, found in enumerate(encode(some, **options)):
            if len(asked) == 1 and number == 4:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(tokenbuild, "encode_units", interrupted)
    with pytest.raises(KeyboardInterrupt):
        built(tmp_path, units)
    counts, ids = (tmp_path / "tokens/unfinished" / name for name in ("counts", "ids"))
    if left == "half a unit":
        np.array([3, 3], np.int64).tofile(counts.open("ab"))
    if left in ("half a unit", "ids alone"):
        np.array([1, 2, 3], np.int32).tofile(ids.open("ab"))
    if left == "too few ids":
        os.truncate(ids, 8)
    assert built(tmp_path, units).read_bytes() == whole
    assert asked == [11, 11 if left == "too few ids" else 7]


def test_what_is_wrong_with_the_texts_is_said(tmp_path):
    tables = write_items(tmp_path, [{"title": f"t{n}"} for n in range(6)])
    file = tables / "items/part-00001.parquet"
    table = pq.read_table(file)
    for change, message in (
        (table.set_column(2, "title", pa.array(["a", None, "c"])), "item 5 has no value"),
        (table.slice(1), "its rows are not items 1 to N"),
        (None, "is missing"),
    ):
        file.unlink()
        if change:
            pq.write_table(change, file)
        with pytest.raises(InputError, match=message):
            open_table(tables, "title", length=4, tokenizer=TOKENIZER, shift=0)
