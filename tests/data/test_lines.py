"""Blocks of lines: wherever they are cut, every line is read once, and its number is true."""

from __future__ import annotations

import pyarrow as pa
import pytest

from legoray.data.lines import (
    BLOCK,
    LINE,
    PROBLEM,
    Layout,
    blocks_of,
    line_number,
    read_block,
    read_fields,
)

TEXT = "a\tb\n\nc\té\r\nlong line of no fields\nd\t\n\te\nlast\tone"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_bytes(TEXT.encode())
    return path


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 1000])
def test_blocks_of_any_size_hold_every_line_once(path, size):
    assert b"".join(read_block(block)[0] for block in blocks_of(path, size)) == TEXT.encode()


@pytest.mark.parametrize("size", [1, 4, 7, 1000])
def test_fields_and_places(path, size):
    layout = Layout(("one", "two"), "\t", "tabs")
    rows = pa.concat_tables([read_fields(block, layout) for block in blocks_of(path, size)])
    found = [
        (line_number(path, row[BLOCK], row[LINE]), row["one"], row["two"], row[PROBLEM])
        for row in rows.to_pylist()
    ]
    assert found == [
        (1, "a", "b", None),
        (3, "c", "é", None),
        (4, None, None, "has 1 field, expected 2 separated by tabs: one, two"),
        (5, "d", "", None),
        (6, "", "e", None),
        (7, "last", "one", None),
    ]


def test_latin_1_reads_what_utf_8_refuses(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"a|\xe9\nb|c\n")
    (block,) = blocks_of(path)
    latin = read_fields(block, Layout(("k", "v"), "|", "'|'", "latin-1"))
    assert latin["v"].to_pylist() == ["é", "c"]
    strict = read_fields(block, Layout(("k", "v"), "|", "'|'"))
    assert strict[PROBLEM].to_pylist() == ["is not UTF-8 text", None]
    assert strict["v"].to_pylist() == [None, "c"]


def test_the_last_field_may_be_all_that_is_left(tmp_path):
    path = tmp_path / "titles.csv"
    path.write_text("1,a\n2,b, c,\n3\n")
    layout = Layout(("id", "title"), ",", "the first comma", rest=True)
    rows = pa.concat_tables([read_fields(block, layout) for block in blocks_of(path)])
    assert rows["title"].to_pylist() == ["a", "b, c,", None]
    assert (
        rows[PROBLEM].to_pylist()[2]
        == "has 1 field, expected 2 separated by the first comma: id, title"
    )
