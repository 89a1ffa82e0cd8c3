"""Places of words among keys, against Arrow's own look-up."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from legoray.data.keyindex import SPARSE, KeyIndex

NUMBERED = pa.array(["N5", "N12", "N0", "N900", "N7"])
ODD = ["", "N", "N05", "N-5", "N+5", "N5 ", " N5", "n5", "M5", "5", "N5.0", "N1e1", "N٥", "NN5",
       "N99999999999999999999", "N901", "N12x"]  # fmt: skip


def same(index: KeyIndex, words: pa.Array) -> bool:
    found, wanted = index.find(words), pc.index_in(words, value_set=index.keys)
    return found.to_pylist() == wanted.to_pylist()


def test_numbered_keys_have_a_table():
    index = KeyIndex.of(NUMBERED)
    assert index.prefix == "N"
    assert index.places is not None
    assert same(index, pa.array(["N7", "N5", "N900", "N0", "N12", "N7"]))
    assert same(pickle.loads(pickle.dumps(index)), NUMBERED)


@pytest.mark.parametrize("odd", ODD)
def test_words_that_are_no_key_are_none(odd):
    index = KeyIndex.of(NUMBERED)
    assert same(index, pa.array([odd]))
    assert same(index, pa.array(["N5", odd, "N7"]))


@pytest.mark.parametrize(
    "keys",
    [
        pa.array(["a", "b"]),
        pa.array(["N1", "M2"]),
        pa.array(["N01", "N1"]),
        pa.array(["N1", f"N{SPARSE * 10**6}"]),
        pa.array([], pa.string()),
        pa.array(["7", "12"]),
        pa.array([7, 12, 3], pa.int32()),
        pa.array([7, -12], pa.int64()),
        pa.array([7, 12], pa.uint64()),
    ],
    ids=str,
)
def test_any_keys_are_found(keys):
    index = KeyIndex.of(keys)
    words = pa.concat_arrays([keys, keys.slice(0, 1)])
    assert same(index, words)
    if pa.types.is_integer(keys.type):
        assert same(index, pa.array([1, None, 7], keys.type))
    else:
        assert same(index, pa.array(["N1", None, "c", "7", "07"]))


def test_many_random_words():
    draw = np.random.default_rng(1)
    keys = pa.array([f"item{n}" for n in draw.permutation(3000)[:2000]])
    words = pa.array([f"item{n}" for n in draw.integers(0, 4000, 5000)])
    index = KeyIndex.of(keys)
    assert index.places is not None
    assert same(index, words)
