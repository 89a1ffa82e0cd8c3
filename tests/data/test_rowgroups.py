"""Parquet in blocks: the same rows, wherever and however they are cut."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt
import pytest

from legoray.data import rowgroups
from legoray.data.engine import Engine
from legoray.data.lines import LINE
from legoray.data.rowgroups import check_columns, read_rows
from legoray.errors import InputError


def same(table: pa.Table) -> pa.Table:
    return table


def read(path, **keys):
    tables = list(read_rows(Engine(), path, ["number", "text", "absent"], same, **keys))
    return pa.concat_tables(tables), [len(table) for table in tables]


@pytest.fixture
def path(tmp_path):
    texts = [f"t{n}" for n in range(1000)]
    table = pa.table({"number": range(1000), "text": texts, "more": texts})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=300)
    return tmp_path / "rows.parquet"


def test_by_row_groups(path):
    table, sizes = read(path)
    assert sizes == [300, 300, 300, 100]
    assert table["number"].to_pylist() == table[LINE].to_pylist() == list(range(1000))
    assert table["text"][999].as_py() == "t999"
    assert "more" not in table.column_names


def test_huge_row_groups_come_in_batches(path):
    table, sizes = read(path, batch=30)
    assert max(sizes) == 30
    assert table["number"].to_pylist() == table[LINE].to_pylist() == list(range(1000))


@pytest.mark.parametrize("huge", [1, 1 << 20])
def test_a_damaged_page(path, huge, monkeypatch):
    monkeypatch.setattr(rowgroups, "HUGE", huge)
    data = bytearray(path.read_bytes())
    data[50:400] = bytes(350)
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"rows\.parquet: is a damaged Parquet file"):
        read(path)


def test_no_rows(tmp_path):
    pq.write_table(pa.table({"number": pa.array([], pa.int64())}), tmp_path / "none.parquet")
    assert (
        sum(len(t) for t in read_rows(Engine(), tmp_path / "none.parquet", ["number"], same)) == 0
    )


def test_all_that_is_wrong_with_the_columns(path):
    wanted = {
        "number": (pt.is_string, "texts"),
        "texts": (pt.is_string, "texts"),
        "text": (pt.is_string, "texts"),
    }
    with pytest.raises(InputError) as caught:
        check_columns(path, wanted)
    messages = [str(problem) for problem in caught.value.problems]
    assert messages == [
        f"{path}: its column 'number' is int64, expected texts",
        f"{path}: has no column 'texts' (is it 'text'?)",
    ]


def test_no_parquet(tmp_path):
    (tmp_path / "x.parquet").write_text("key,title\n")
    with pytest.raises(InputError, match="is not a whole Parquet file"):
        check_columns(tmp_path / "x.parquet", {})
