"""Which texts are computed, and in which blocks."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from legoray.data.ragged import offsets_of
from legoray.llm.plan import block_size, part_of, plan_blocks, text_digests
from legoray.llm.text import Encoded

NOTHING = np.zeros(0, "S16")


def random_texts(seed, count=200):
    """Texts of 1 to 4 tokens of three: many are equal."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 5, count)
    return Encoded(rng.integers(0, 3, lengths.sum()), offsets_of(lengths))


def contents(encoded, texts):
    ids, offsets = encoded.ids, encoded.offsets
    return [tuple(ids[offsets[t] : offsets[t + 1]].tolist()) for t in texts]


def test_a_digest_is_of_the_token_ids_alone():
    encoded = random_texts(0)
    found = text_digests(encoded)
    for text, own in enumerate(contents(encoded, range(200))):
        raw = np.array(own, "<i8").tobytes()
        assert found[text : text + 1].tobytes() == hashlib.blake2b(raw, digest_size=16).digest()


@pytest.mark.parametrize("seed", range(3))
def test_what_is_left_is_cut_as_an_undisturbed_run_cuts_it(seed):
    encoded = random_texts(seed)
    digests = text_digests(encoded)
    whole = plan_blocks(encoded, digests, [NOTHING, NOTHING], 7)
    every = [text for job in whole for text in contents(encoded, job.texts)]
    assert sorted(every) == sorted(set(contents(encoded, range(200))))
    assert [len(text) for text in every] == sorted(map(len, every), reverse=True)
    assert all(len(job.texts) == 7 for job in whole[:-1])
    # any blocks may be there, of either unit: workers finish in any order
    rng = np.random.default_rng(seed)
    has = rng.random((2, len(whole))) < 0.5
    known = [
        np.concatenate([NOTHING, *[digests[j.texts] for j, h in zip(whole, row, strict=True) if h]])
        for row in has
    ]
    rest = plan_blocks(encoded, digests, known, 7)
    found = {tuple(job.texts.tolist()): job.units for job in rest}
    # blocks lacking in both units and in one alone are cut apart, the last one of all is shorter
    wanted = {
        tuple(job.texts.tolist()): tuple(np.flatnonzero(~column).tolist())
        for job, column in zip(whole, has.T, strict=True)
        if not column.all()
    }
    assert found == wanted


def test_a_new_text_makes_a_block_of_its_own():
    encoded = random_texts(1)
    digests = text_digests(encoded)
    some = part_of(encoded, np.arange(150))
    rest = plan_blocks(encoded, digests, [text_digests(some)], 1_000)
    new = set(contents(encoded, range(200))) - set(contents(encoded, range(150)))
    assert {text for job in rest for text in contents(encoded, job.texts)} == new


def test_a_block_is_of_bounded_size():
    assert block_size(32, 384) == 1_024
    for length, width in ((64, 576), (128, 4_096), (512, 1_024)):
        size = block_size(length, width)
        assert 32 << 20 < size * length * width * 2 <= 48 << 20
