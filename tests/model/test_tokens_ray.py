"""Tokenizing by Ray Data gives what tokenizing in one process gives."""

from __future__ import annotations

import numpy as np
import pytest

from legoray.data import tokenization
from legoray.data.tokenization import CHUNK, encode, word_tokenizer


@pytest.fixture(scope="module")
def local_ray():
    """Ray on this machine, as another test left it or started for this module."""
    from legoray.rayinit import ensure_ray, quiet_environment

    quiet_environment()
    import ray

    started = not ray.is_initialized()
    ensure_ray(num_cpus=2)
    yield ray
    if started:
        ray.shutdown()


@pytest.mark.slow
def test_both_ways_give_the_same(local_ray, monkeypatch):
    texts = [f"word{n % 97} and {n % 31} things no.{n}" if n % 5 else "" for n in range(CHUNK + 9)]
    tokenizer = word_tokenizer(texts)
    used = []
    by_ray = tokenization._encode_by_ray
    monkeypatch.setattr(tokenization, "_encode_by_ray", lambda *a: used.append(1) or by_ray(*a))
    found = {}
    for way in ("always", "never"):
        monkeypatch.setenv("LEGORAY_RAY_DATA", way)
        found[way] = encode(texts, length=4, tokenizer=tokenizer)
    assert used == [1]
    for left, right in zip(found["always"], found["never"], strict=True):
        np.testing.assert_array_equal(left, right)
        assert left.dtype == right.dtype


@pytest.mark.slow
def test_a_worker_never_waits_for_a_cpu(local_ray):
    @local_ray.remote(num_cpus=1, runtime_env={"env_vars": {"LEGORAY_RAY_DATA": "always"}})
    def decide():
        return tokenization._use_ray(10**9)

    assert local_ray.get(decide.remote()) is False
