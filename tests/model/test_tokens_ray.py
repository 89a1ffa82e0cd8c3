"""Tokenizing by Ray Data gives what tokenizing in one process gives."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from legoray.data import tokenization
from legoray.data.tokenization import encode, encode_units, text_units, word_tokenizer


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
def test_both_ways_give_the_same(local_ray, tmp_path, monkeypatch):
    texts = [f"word{n % 97} and {n % 31} things no.{n}" if n % 5 else "" for n in range(5000)]
    table = pa.table({"item_id": np.arange(1, 5001, dtype=np.int32), "title": texts})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=700)
    units = text_units([tmp_path / "a.parquet"], "title", "item_id")
    assert len(units) == 8
    tokenizer = word_tokenizer(texts)
    used = []
    by_ray = tokenization._encode_by_ray
    monkeypatch.setattr(tokenization, "_encode_by_ray", lambda *a: used.append(1) or by_ray(*a))
    found = {}
    for way in ("always", "never"):
        monkeypatch.setenv("LEGORAY_RAY_DATA", way)
        parts = list(encode_units(units, length=4, tokenizer=tokenizer))
        assert len(parts) == len(units)
        found[way] = [np.concatenate(column) for column in zip(*parts, strict=True)]
    assert used == [1]
    expected = encode(texts, length=4, tokenizer=tokenizer)
    for left, right, alone in zip(found["always"], found["never"], expected, strict=True):
        np.testing.assert_array_equal(left, right)
        np.testing.assert_array_equal(left, alone)
        assert left.dtype == right.dtype == alone.dtype


@pytest.mark.slow
def test_what_is_wrong_with_a_unit_comes_back_from_a_worker(local_ray, tmp_path, monkeypatch):
    table = pa.table({"item_id": [1, 2, 3], "title": ["a", None, "c"]})
    pq.write_table(table, tmp_path / "a.parquet")
    monkeypatch.setenv("LEGORAY_RAY_DATA", "always")
    units = text_units([tmp_path / "a.parquet"], "title", "item_id")
    with pytest.raises(ValueError, match="a row has no title"):
        list(encode_units(units, length=4, tokenizer=word_tokenizer(["a c"])))


@pytest.mark.slow
def test_a_worker_never_waits_for_a_cpu(local_ray):
    @local_ray.remote(num_cpus=1, runtime_env={"env_vars": {"LEGORAY_RAY_DATA": "always"}})
    def decide():
        return tokenization._use_ray(10**9)

    assert local_ray.get(decide.remote()) is False
