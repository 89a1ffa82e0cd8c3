"""TSV with a row of names: their order, their absence, and quotes."""

from __future__ import annotations

import csv
import io

import pyarrow as pa
import pytest

from legoray.data.lines import blocks_of
from legoray.data.tsv import headed_layout, read_headed, unquoted
from legoray.errors import InputError

NAMES = {"News ID": "key", "Headline": "title"}
TEXTS = ["plain", 'a "quote"', '"all of it"', '"', '""', '"a" and "b"', "Müller", ""]


def read(path):
    layout, header = headed_layout(path, NAMES)
    rows = pa.concat_tables([read_headed(b, layout, header=header) for b in blocks_of(path, 40)])
    return rows.select(["key", "title"]).to_pylist()


def rows_of(texts):
    return [(f"N{n}", text) for n, text in enumerate(texts)]


def expected(texts):
    return [{"key": key, "title": title} for key, title in rows_of(texts)]


def test_written_by_hand(tmp_path):
    lines = ["News ID\tHeadline", *("\t".join(row) for row in rows_of(TEXTS))]
    path = tmp_path / "news.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert read(path) == expected(TEXTS)


def test_written_by_a_library(tmp_path):
    text = io.StringIO()
    rows = [("News ID", "Headline"), *rows_of(TEXTS)]
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows(rows)
    path = tmp_path / "news.tsv"
    path.write_text("\ufeff" + text.getvalue().replace("\n", "\r\n"), encoding="utf-8", newline="")
    assert read(path) == expected(TEXTS)


def test_in_another_order_with_more_columns(tmp_path):
    path = tmp_path / "news.tsv"
    path.write_text("Headline\tx\tNews ID\none\t1\tN0\ntwo\t2\tN1\n")
    assert read(path) == expected(["one", "two"])


def test_without_names(tmp_path):
    path = tmp_path / "news.tsv"
    path.write_text("N0\tone\nN1\tHeadline\n")
    assert read(path) == expected(["one", "Headline"])


def test_a_name_that_is_not_there(tmp_path):
    path = tmp_path / "news.tsv"
    path.write_text("News ID\tHeadlines\tTopic\n")
    names = {**NAMES, "Topic": "topic"}
    with pytest.raises(InputError, match=r"news.tsv:1: has no column 'Headline' .*'Headlines'"):
        headed_layout(path, names)


def test_nulls_stay_null():
    column = pa.chunked_array([[None, '"a ""b"""', "c"]])
    assert unquoted(column).to_pylist() == [None, 'a "b"', "c"]
