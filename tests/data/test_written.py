"""Texts written in parts: read as the last one of each key, never twice, never half."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from legoray.data.written import (
    Provenance,
    WrittenMeta,
    fingerprint_of,
    list_written,
    part_files,
    read_meta,
    read_written,
    write_meta,
    write_part,
    written_folder,
)
from legoray.errors import InputError


def rows(texts, source="s", status="written"):
    made = [{"key": k, "source": source, "text": t, "status": status} for k, t in texts.items()]
    return pa.Table.from_pylist(made)


@pytest.fixture
def folder(tmp_path):
    return written_folder(tmp_path, "news", "summary")


def test_the_last_part_of_a_key_holds(folder):
    chance, expected = random.Random(3), {}
    for turn in range(20):
        texts = {f"k{chance.randrange(40)}": f"text {turn} {n}" for n in range(9)}
        write_part(folder, rows(texts, source=f"prompt {turn}"))
        expected |= texts
    found = read_written(folder)
    assert found["key"].to_pylist() == sorted(expected)
    assert dict(zip(found["key"].to_pylist(), found["text"].to_pylist(), strict=True)) == expected


def test_nothing_is_written_twice(folder):
    first = write_part(folder, rows({"a": "1", "b": "2"}))
    state = first.stat()
    assert write_part(folder, rows({"a": "1", "b": "2"})) == first
    assert part_files(folder) == [first]
    assert first.stat().st_mtime_ns == state.st_mtime_ns
    more = write_part(folder, rows({"c": "3"}))
    assert write_part(folder, rows({"a": "1", "b": "2"})) == first
    other = write_part(folder, rows({"a": "1", "b": "2"}, source="t"))
    again = write_part(folder, rows({"a": "9", "b": "2"}))  # back to the first prompt
    assert part_files(folder) == [first, more, other, again]
    assert read_written(folder)["text"].to_pylist() == ["9", "2", "3"]


def test_a_fingerprint_is_of_the_written_texts_alone(folder):
    one = rows({"a": "1", "b": "2"})
    print_of_one = fingerprint_of(one)
    assert fingerprint_of(rows({"b": "2", "a": "1"}, source="other")) == print_of_one
    refused = rows({"c": "I cannot"}, status="refused")
    assert fingerprint_of(pa.concat_tables([one, refused])) == print_of_one
    assert fingerprint_of(rows({"a": "1", "b": "3"})) != print_of_one
    assert fingerprint_of(rows({"a": "12", "b": ""})) != fingerprint_of(rows({"a": "1", "b": "2"}))
    assert len(read_written(folder)) == 0


def test_damaged_parts_are_named_all(folder):
    paths = [write_part(folder, rows({str(n): "text"})) for n in range(4)]
    paths[1].write_bytes(paths[1].read_bytes()[:-9])
    paths[3].write_bytes(b"nothing")
    with pytest.raises(InputError) as caught:
        read_written(folder)
    assert [p.where for p in caught.value.problems] == [str(paths[1]), str(paths[3])]
    (folder / "parts" / ".new-1-000009-x.parquet").write_bytes(b"half")  # of a killed writer
    for path in (paths[1], paths[3]):
        path.unlink()
    assert read_written(folder)["key"].to_pylist() == ["0", "2"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (rows({"a": "1"}).drop_columns(["source"]), "no column 'source'"),
        (rows({"a": None}), "has no text"),
        (pa.concat_tables([rows({"a": "1"}), rows({"a": "2"})]), "stands twice"),
        (rows({"a": "1"}, status="done"), "'done' is no status"),
    ],
)
def test_bad_tables_are_refused(folder, table, message):
    with pytest.raises(InputError, match=message):
        write_part(folder, table)
    assert part_files(folder) == []


def test_what_is_known_of_an_attribute(tmp_path, folder):
    assert list_written(tmp_path, "news") == []
    origin = Provenance(model="smollm2", revision="1", seed=1, settings={"temperature": 0.0})
    meta = WrittenMeta(attribute="summary", provenance=origin, counts={"written": 2})
    write_meta(folder, meta)
    write_meta(written_folder(tmp_path, "news", "a"), WrittenMeta(attribute="a", of="users"))
    assert read_meta(folder) == meta
    assert list_written(tmp_path, "news") == ["a", "summary"]
    with pytest.raises(InputError, match="not the folder of 'b'"):
        write_meta(folder, WrittenMeta(attribute="b"))
    (folder / "meta.json").write_text("{}")
    with pytest.raises(InputError, match="is damaged"):
        read_meta(folder)
